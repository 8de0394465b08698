"""An array of ohmic cells without wires behind the backend interface, for tests of procedures; it has its own noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.backend import BackendInfo, Capabilities, CrossbarBackend, Limits, Pulse, PulseReport, RowInput, Telemetry
from hil.calibration_file import BoardIdentity, Calibration, Part, Quantity
from hil.spikes import PackedSpikes
from hil.tile import Tile
from hil.wiring import Wiring

ROWS, COLS, MUX = 24, 32, 4
READ_NOISE, CONVERTER_NOISE_LSB = 0.02, 0.8
ELECTRICS: dict[str, Any] = {
    "mux_width": MUX,
    "selects": "independent",
    "inhibit": True,
    "r_feedback_ohm": 20e3,
    "v_common_v": 1.6,
    "adc_v_reference_v": 0.9,
    "adc_bits": 14,
    "dac_full_scale_v": 5.0,
    "dac_bits": 16,
}
LSB_A = 2 * 0.9 / 2**14 / 20e3


def wiring(**changes: Any) -> Wiring:
    rows, cols = np.arange(ROWS), np.arange(COLS)
    values: dict[str, Any] = {
        "row_channel": rows // MUX,
        "row_position": rows % MUX,
        "col_converter": cols % 2,
        "independent_selects": True,
        "inhibit": True,
        "channel_names": tuple(f"channel {m}" for m in range(ROWS // MUX)),
        "converter_names": ("converter 0", "converter 1"),
        "row_ok": np.ones(ROWS, np.bool_),
        "col_ok": np.ones(COLS, np.bool_),
    }
    return Wiring(**{**values, **changes})


def cells_s(seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(10e-6, 3e-6, (ROWS, COLS)).clip(2e-6)


def calibration(parts: Mapping[str, Mapping[str, Quantity]] | None = None, **of_wiring: Any) -> Calibration:
    found = {name: Part(name, quantities) for name, quantities in (parts or {}).items()}
    board = BoardIdentity("fake-1", "1.0", "fake", "none", (ROWS, COLS))
    return Calibration(board, wiring(**of_wiring), ELECTRICS, parts=found)


class LinearArray(CrossbarBackend):
    """Cells that add up; every attribute may be changed between calls.

    Attributes:
        cells_s: conductances.
        gain: of each column.
        row_gain: of each row.
        offset_v: input offset of each column.
        offset_a: of each column.
        noise: relative, of each cell, shape of the array.
        converter_lsb: noise of a conversion.
        clip_a: conversions above this clip.
        calls: sizes of the batches asked for.
    """

    def __init__(self, cells: NDArray[np.float64], *, seed: int, calibration_id: str | None = None) -> None:
        self.cells_s = cells.copy()
        self.gain = np.ones(COLS)
        self.row_gain = np.ones(ROWS)
        self.offset_v = np.zeros(COLS)
        self.offset_a = np.zeros(COLS)
        self.noise = np.full(cells.shape, READ_NOISE)
        self.converter_lsb = CONVERTER_NOISE_LSB
        self.clip_a = np.inf
        self.calls: list[tuple[int, float]] = []
        self._clipped = 0
        self._rng = np.random.default_rng(seed)
        self._info = BackendInfo(
            name="fake",
            shape=(ROWS, COLS),
            identity={"board_serial": "fake-1", "seed": seed},
            capabilities=Capabilities(),
            limits=Limits(0.5, 5.0, 5.0, 1e-3, 10),
            calibration_id=calibration_id,
            wiring=wiring(),
        )

    @property
    def info(self) -> BackendInfo:
        return self._info

    def open(self) -> None: ...

    def close(self) -> None: ...

    def make_safe(self) -> None: ...

    def vmm(
        self, x: RowInput, tile: Tile, v_read_v: float, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        bits = (x.unpack() if isinstance(x, PackedSpikes) else x).astype(np.float64)
        self.calls.append((len(bits), v_read_v))
        cells = self.cells_s[np.ix_(tile.rows, tile.cols)]
        drive_v = v_read_v * self.row_gain[tile.rows][:, None] - self.offset_v[tile.cols]
        mean_a = (bits @ (cells * drive_v)) * self.gain[tile.cols] + self.offset_a[tile.cols]
        driven = np.zeros((len(bits), ROWS))
        driven[:, tile.rows] = bits
        n_phases = driven.reshape(len(bits), -1, MUX).sum(axis=2).max(axis=1)
        cells_a2 = bits @ (self.noise[np.ix_(tile.rows, tile.cols)] * cells * drive_v) ** 2
        sigma_a = np.sqrt(cells_a2 + n_phases[:, None] * (self.converter_lsb * LSB_A) ** 2)
        found = mean_a + sigma_a * self._rng.standard_normal(mean_a.shape)
        self._clipped += int((found > self.clip_a).sum())
        half = tile.n_outputs
        return (found[:, :half] - found[:, half:] if tile.differential else found).astype(np.float32)

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        raise NotImplementedError

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        raise NotImplementedError

    def telemetry(self) -> Telemetry:
        return Telemetry({"clipped_sums_count": float(self._clipped), "board_time_s": 0.0})
