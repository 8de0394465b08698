"""`CrossbarBackend`: the only thing that an experiment sees of a chip, an emulated board or a simulator.

The interface holds primitives. Forming, ISPP, I-V sweeps and the LSM are composed from them once, in `experiments/`
and `hil/lsm/`, and run on every backend.

Sign: a current is positive when it flows from the driven row (bit line) into the column (source line).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hil.errors import LimitError
from hil.spikes import PackedSpikes
from hil.tile import Tile
from hil.wiring import Wiring

#: What drives the rows of a VMM: packed bits, an array of bits (bool or uint8), or levels from 0 to 1 (float).
RowInput: TypeAlias = PackedSpikes | NDArray[Any]

PulseKind: TypeAlias = Literal["form", "set", "reset"]


@dataclass(frozen=True)
class Limits:
    """Ceilings that no operation may exceed. The session checks them, and the bridge below it once more.

    Attributes:
        v_read_max_v: largest read voltage on a row.
        v_pulse_max_v: largest programming voltage on any line.
        v_gate_max_v: largest word-line voltage.
        pulse_width_max_s: longest single pulse.
        pulses_per_cell_max: most pulses that one session applies to one cell.
    """

    v_read_max_v: float
    v_pulse_max_v: float
    v_gate_max_v: float
    pulse_width_max_s: float
    pulses_per_cell_max: int


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do; checked before a run starts.

    Attributes:
        pulse_kinds: pulses that it can apply.
        analogue_rows: whether a row may be driven at a level between idle and the read voltage.
        tensors: whether `vmm` also takes torch tensors of bits and then returns a tensor on the same device.
        bipolar_read: whether `read` also takes a negative read voltage.
        bench: whether it implements `hil.bench_access.BenchAccess`, which procedures with instruments need.
    """

    pulse_kinds: frozenset[PulseKind] = frozenset()
    analogue_rows: bool = False
    tensors: bool = False
    bipolar_read: bool = False
    bench: bool = False


@dataclass(frozen=True)
class BackendInfo:
    """Who answers.

    Attributes:
        name: kind of backend: "sim", "emulator", "board".
        shape: (rows, cols) of the array.
        identity: what tells this chip or simulated chip from another; goes into every run file.
        capabilities: what it can do.
        limits: what it refuses to exceed.
        calibration_id: identity of the calibration in use; None means uncalibrated.
        wiring: which channel drives each row and which converter reads each column; None where there are none.
    """

    name: str
    shape: tuple[int, int]
    identity: dict[str, Any]
    capabilities: Capabilities
    limits: Limits
    calibration_id: str | None = None
    wiring: Wiring | None = None


@dataclass(frozen=True)
class Pulse:
    """One programming pulse, applied to every cell of a mask.

    Attributes:
        kind: "form" and "set" have one polarity, "reset" the other; which line is raised is up to the board.
        voltage_v: amplitude across the cell and its select transistor.
        v_gate_v: word-line voltage, which limits the current (compliance).
        width_s: duration.
    """

    kind: PulseKind
    voltage_v: float
    v_gate_v: float
    width_s: float


@dataclass(frozen=True)
class PulseReport:
    """What a pulse did on the way to the cells.

    Attributes:
        n_cells: cells that got the pulse.
        requested: the pulse asked for.
        achieved: the pulse as the converters could make it.
    """

    n_cells: int
    requested: Pulse
    achieved: Pulse


@dataclass(frozen=True)
class Check:
    """Verdict of a self-test on one part.

    Attributes:
        part: chip or line, as a person would look for it on the board.
        ok: None where it could not be tested.
        text: what was found.
    """

    part: str
    ok: bool | None
    text: str


@dataclass
class Telemetry:
    """Counters and readings since the backend was opened; the keys carry their unit."""

    values: dict[str, float] = field(default_factory=lambda: {})


class CrossbarBackend(ABC):
    """A crossbar array that can be read, multiplied with and programmed.

    Calls are synchronous. A backend is used by one thread at a time. After `make_safe`, and between calls, the array
    is at zero bias with all rows deselected.
    """

    @property
    @abstractmethod
    def info(self) -> BackendInfo:
        """Identity, shape, capabilities and limits; may be asked for before `open`."""

    @abstractmethod
    def open(self) -> None:
        """Connect and verify; leaves the array at zero bias."""

    @abstractmethod
    def close(self) -> None:
        """Release the board or the memory; safe to call twice."""

    @abstractmethod
    def make_safe(self) -> None:
        """Bring the array to zero bias with all rows deselected; may be called at any time, any number of times."""

    def abort(self) -> None:  # noqa: B027 - nothing to stop where nothing takes long
        """Stop what runs as soon as possible; the only call that another thread may make.

        The running call raises, and so does every later one until `make_safe` or `open`.
        """

    @abstractmethod
    def vmm(
        self, x: RowInput, tile: Tile, v_read_v: float, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Multiply a batch of row vectors with the conductances of a tile.

        Args:
            x: batch of shape (B, tile.n_rows): bits, or levels from 0 to 1 of `v_read_v` if the backend is capable.
            tile: which rows and columns.
            v_read_v: voltage of a driven row above the idle level.
            out: where to put the result.

        Returns:
            Currents in amperes, shape (B, tile.n_outputs); of a differential tile I+ - I-.
        """

    @abstractmethod
    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        """Read single cells, each with all other rows and columns closed.

        Args:
            mask: cells to read, shape of the array.
            v_read_v: voltage of the row above the idle level; below 0 only if the backend is capable of `bipolar_read`.
                0 measures what offsets alone drive through each cell.
            n_average: conversions averaged per cell.

        Returns:
            Currents in amperes in row-major order of the mask, shape (mask.sum(),).
        """

    @abstractmethod
    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        """Apply one pulse to each cell of a mask; the backend chooses the order."""

    @abstractmethod
    def telemetry(self) -> Telemetry:
        """Counters since `open`."""

    def wait(self, duration_s: float) -> None:
        """Let time pass for the cells, at zero bias; a simulator need not take that long.

        Raises:
            HilError: another thread aborted the wait.
        """
        time.sleep(duration_s)

    def now_s(self) -> float:
        """The clock that the cells live by: seconds since 1970 on a board, since it was drawn on a simulated chip.

        It goes on between sessions.
        """
        return time.time()

    def self_test(self) -> list[Check]:
        """What the last power-up found, part by part; empty where there is nothing to test."""
        return []


def check_out(out: Any, x: RowInput, tile: Tile) -> None:
    """Raise `LimitError` unless `out` can take the result of a VMM: a kernel writes to it without looking.

    Backends call this too, since not every caller comes through a session.
    """
    shape = (len(x), tile.n_outputs)
    if not isinstance(x, PackedSpikes | np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LimitError("out was given together with a tensor", fix="leave out away; a tensor comes back")
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape or not out.flags.writeable:
        found = f"{out.dtype}{out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise LimitError(f"out is {found}", fix=f"give a writeable float32 array of shape {shape}")
