"""Small emulated boards on a bench, whose hidden errors the tests may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from boards import emulate
from numpy.typing import NDArray

from calibration.procedure import CalibrationBench
from firmware_bridge.electrics import electrics
from firmware_bridge.emulator import EmulatedBackend, EmulatedBoard, EmulatedFabric
from firmware_bridge.emulator.bench import Bench
from hil.calibration_file import BoardIdentity, Calibration, Part, Quantity
from hil.session import open_session

Values = NDArray[np.float64]

#: how well part `zero` of the tests knows offsets
ZERO_ERROR_V = 5e-6


@dataclass
class Truth:
    """What is hidden in an emulated board; arrays over channels, columns or converters."""

    board: EmulatedBoard

    @property
    def row_gain_error(self) -> Values:
        return self._of_channels("_gain") - 1.0

    @property
    def row_offset_v(self) -> Values:
        """By the law of `calibration.dac`."""
        return self._of_channels("_offset_v") + self.board.profile.tia.v_common_v * self.row_gain_error

    @property
    def idle_v(self) -> float:
        """Ideal level of the idle code above v_common."""
        step_v = self.board.profile.dac.output_range.span_v / 2**16
        common_v = self.board.profile.tia.v_common_v
        return round(common_v / step_v) * step_v - common_v

    @property
    def column_offset_v(self) -> Values:
        return self.board.analogue.tias.offset_v

    @property
    def amps_per_code(self) -> Values:
        profile, tias = self.board.profile, self.board.analogue.tias
        lanes = profile.column_lane(np.arange(profile.cols))
        codes_per_volt = self.board.adcs._scale[lanes]
        return 1.0 / (codes_per_volt * profile.tia.r_feedback_ohm * (1.0 + tias.gain_error))

    def _of_channels(self, name: str) -> Values:
        profile = self.board.profile
        chip, channel = profile.row_channel(np.arange(profile.mux.count))
        return np.array([getattr(self.board.dacs[c], name)[k] for c, k in zip(chip, channel, strict=True)])


@dataclass
class Laid:
    """A board on the bench."""

    bench: CalibrationBench
    board: EmulatedBoard
    fabric: EmulatedFabric
    truth: Truth
    recorded: dict[str, list[Mapping[str, NDArray[Any]]]] = field(default_factory=dict)

    def terminals(self, row: int = 0) -> Bench:
        """Where instruments are connected: the pad of a row, and the drive channels."""
        return Bench(self.fabric, row=row)

    def connect(self, **instruments: Any) -> None:
        self.bench = replace(self.bench, instruments=instruments)

    def knows_zero(self, gauge_v: float = 0.3e-3) -> None:
        """Give it part `zero`: offsets against an unknown level."""
        rng = np.random.default_rng(1)
        rows_v = self.truth.row_offset_v + self.truth.idle_v * (1.0 + self.truth.row_gain_error) + gauge_v
        cols_v = self.truth.column_offset_v + gauge_v
        quantities = {
            name: Quantity.of(true_v + ZERO_ERROR_V * rng.standard_normal(len(true_v)), ZERO_ERROR_V)
            for name, true_v in (("row_offset_v", rows_v), ("column_offset_v", cols_v))
        }
        self.bench.known = self.bench.known.with_part(Part("zero", quantities))


@pytest.fixture
def lay() -> Iterator[Callable[..., Laid]]:
    """Puts boards on the bench: `lay(tree, seed, **effects of the hidden chip)`; their sessions end with the test."""
    with ExitStack() as stack:

        def laid(tree: dict[str, Any] | None = None, seed: int = 17, **effects: Any) -> Laid:
            board, fabric, _ = emulate(tree, seed, **effects)
            # On this one a wait takes no time.
            backend = EmulatedBackend(fabric, board.profile, {"board_serial": f"emulated-{seed}"}, None)
            session = stack.enter_context(open_session(backend))
            info = session.info
            assert info.wiring is not None
            known = Calibration(BoardIdentity.of(info), info.wiring, electrics(board.profile))
            found: dict[str, list[Mapping[str, NDArray[Any]]]] = {}
            bench = CalibrationBench(
                session, known, v_read_v=0.2, record=lambda table, columns: found.setdefault(table, []).append(columns)
            )
            return Laid(bench, board, fabric, Truth(board), found)

        yield laid
