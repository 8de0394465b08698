"""Settings of the simulator, one model per effect; each value with unit and source.

Sources: "paper" is Lin et al., Nat. Comput. Sci. 5, 37-47 (2025) and its released code; "TI" is the data sheet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from hil.config import Settings, setting

GUESS = "guess: not published"


class FormingSettings(Settings):
    """Conductance of formed cells and voltage at which they form."""

    preset: Literal["paper-input", "paper-recurrent", "custom"] = setting(
        "paper-input", "statistics of formed cells; 'custom' uses sigma_difference_s", source="paper"
    )
    sigma_difference_s: float = setting(
        6.61e-6, "spread of G+ - G- for preset 'custom'", unit="S", source="paper: 6.61 uS, input block", gt=0
    )
    mean_s: float = setting(
        14.25e-6, "mean conductance of a formed cell", unit="S", source="ESGNN, same 40 nm macro: 14.2473 uS", gt=0
    )
    pristine_s: float = setting(
        0.1e-6, "conductance of a cell before forming", unit="S", source="ESGNN: pristine about 10 MOhm", ge=0
    )
    breakdown_mean_v: float = setting(
        3.433, "mean forming voltage", unit="V", source="ESGNN extended data figure 1: 3.433 V, 400 cells", gt=0
    )
    breakdown_sigma_v: float = setting(
        0.114, "spread of the forming voltage", unit="V", source="ESGNN extended data figure 1: 0.114 V", ge=0
    )
    formed: bool = setting(True, "start with every cell formed (false: pristine array)", source="paper: formed array")
    early_share: float = setting(
        0.0, "share of cells that break down early", source="none in ESGNN; 5 % in RADAR data", ge=0, le=1
    )
    early_scale_v: float = setting(
        0.5, "how far below the mean those form: mean of an exponential", unit="V", source="RADAR data", gt=0
    )
    leaky_share: float = setting(
        0.0, "share of cells that form at any voltage", source="none in ESGNN; up to 3 % in RADAR data", ge=0, le=1
    )
    weak_share: float = setting(
        0.0, "share of formed cells that conduct less than normal", source="none known; 0.5 in RADAR data", ge=0, le=1
    )
    width_ref_s: float = setting(1e-3, "pulse width at which breakdown_mean_v holds", unit="s", source=GUESS, gt=0)
    width_slope_v: float = setting(
        0.05, "lower forming voltage per decade of longer pulse", unit="V", source=GUESS + "; usual 0.03 to 0.2", ge=0
    )
    gate_ref_v: float = setting(
        1.2, "gate voltage at which mean_s holds", unit="V", source=GUESS + " (paper's SI figure 3)", gt=0
    )
    gate_threshold_v: float = setting(
        0.4, "gate voltage below which no forming current flows", unit="V", source=GUESS, ge=0
    )


#: Where the shape of SET and RESET comes from: 1T1R data of another array, scaled to our conductances.
SCALED = "guess: RADAR 1T1R data scaled to 14 uS"


class SwitchingSettings(Settings):
    """SET and RESET of formed cells."""

    enabled: bool = setting(True, "SET and RESET change cells (false: formed cells never change)", source="")
    width_ref_s: float = setting(
        200e-9, "pulse width at which the voltages below hold", unit="s", source="RADAR data: 200 ns", gt=0
    )
    width_slope_v: float = setting(
        0.1, "lower switching voltage per decade of longer pulse", unit="V", source=GUESS + "; usual 0.05 to 0.2", ge=0
    )
    set_voltage_v: float = setting(
        0.6, "bit-line voltage at which SET begins, median cell", unit="V", source="guess: RADAR data 0 to 0.4 V"
    )
    set_cell_v: float = setting(
        0.05, "spread of it between cells", unit="V", source="guess: a third of RADAR data's", ge=0
    )
    set_line_s_per_v: float = setting(
        60e-6, "conductance after SET per volt of bit line over set_voltage_v", unit="S/V", source=SCALED, gt=0
    )
    set_line_cell: float = setting(
        0.0, "spread of that between cells, log", source="ours: in set_cell_v; RADAR data 0.4", ge=0, le=5
    )
    gate_threshold_v: float = setting(0.4, "gate voltage at which SET current begins", unit="V", source=GUESS)
    set_gate_s_per_v: float = setting(
        18e-6, "conductance after SET per volt of gate over threshold", unit="S/V", source=SCALED, gt=0
    )
    set_series_ohm: float = setting(
        3.2e3, "resistance that no SET goes below (select transistor, lines)", unit="ohm", source="RADAR data", ge=0
    )
    set_cell: float = setting(
        0.06, "spread of the gate's limit between cells, log", source="guess: RADAR cycling data 0.1", ge=0
    )
    set_cycle: float = setting(
        0.03, "spread of SET conductance between pulses, log", source="RADAR data: 0.015 sweeps, 0.1 cycling", ge=0
    )
    set_cycle_cell: float = setting(
        0.0,
        "how much that spread differs between cells, log",
        source="ours: all alike; RADAR cycling data 0.5",
        ge=0,
        le=2,
    )
    reset_voltage_v: float = setting(
        0.9, "cell voltage at which RESET begins, mean", unit="V", source="guess: RADAR data 1.7 V, full window"
    )
    reset_cell_v: float = setting(0.1, "spread of it between cells", unit="V", source="guess: RADAR 0.2 V", ge=0)
    reset_cell_tail: float = setting(
        1.0,
        "how far out late cells lie (power of an exponential distribution)",
        source="ours: 1; RADAR data 1 to 2",
        gt=0,
        le=10,
    )
    reset_cycle_v: float = setting(0.02, "spread of it between pulses", unit="V", source="guess: RADAR 0.07 V", ge=0)
    reset_onset_v: float = setting(
        0.03, "voltage over which RESET sets in (logistic)", unit="V", source="RADAR data: below its 0.05 V step", gt=0
    )
    reset_gate_drop_v: float = setting(
        0.5, "gate voltage that the transistor keeps from the cell in RESET", unit="V", source=GUESS
    )
    reset_s: float = setting(25e-6, "conductance that RESET aims at where it begins", unit="S", source=SCALED, gt=0)
    reset_slope_v: float = setting(
        0.5, "RESET voltage that lowers the aim by a factor e", unit="V", source="RADAR data: 0.4 to 0.7 V", gt=0
    )
    reset_floor_s: float = setting(0.5e-6, "lowest aim of RESET", unit="S", source=SCALED, gt=0)
    reset_cell: float = setting(
        0.1, "spread of the aim between cells, log", source="guess: a quarter of RADAR data's", ge=0
    )
    reset_cycle: float = setting(
        0.15, "spread of RESET between pulses, log", source="guess: RADAR data 0.45 over a window of 25", ge=0
    )
    reset_cycle_cell: float = setting(
        0.0,
        "how much the spreads between pulses differ between cells, log",
        source="ours: all alike; RADAR data 0.3 cycling, 0.5 sweeps",
        ge=0,
        le=2,
    )
    reset_keep: float = setting(
        0.3, "share of the log distance to the aim that one pulse leaves", source="RADAR data: 0.2 to 0.4", ge=0, le=1
    )
    reset_back: float = setting(
        0.0,
        "how far RESET pulls up cells below its aim (1: as fully as down)",
        source="ours: 0; RADAR data: 1",
        ge=0,
        le=1,
    )


class EnduranceSettings(Settings):
    """Wear-out of cells that are switched often."""

    enabled: bool = setting(True, "cells wear out", source="")
    life_cycles: float = setting(
        1e7, "median number of switching pulses a cell lives", source="guess: TaOx cells reach 1e6 to 1e10", gt=0
    )
    life_decades: float = setting(
        0.5, "spread of it between cells, in decades", source="guess: half a decade", ge=0, le=5
    )
    stuck_on_share: float = setting(
        0.5, "share of worn cells that stick at high conductance", source="guess: either way", ge=0, le=1
    )
    stuck_on_s: float = setting(50e-6, "conductance of a cell stuck on", unit="S", source="guess", ge=0)
    stuck_off_s: float = setting(0.1e-6, "conductance of a cell stuck off", unit="S", source="guess: pristine", ge=0)


class NoiseSettings(Settings):
    """Read noise of the cells."""

    enabled: bool = setting(True, "read noise on, telegraph noise too", source="")
    relative: float = setting(
        0.02, "sigma of a cell's conductance per read, relative", source="2 % in ESGNN, DEPLM and PRIME", ge=0, le=1
    )
    flicker_share: float = setting(
        0.5,
        "share of that variance that is 1/f noise; the rest is white",
        source="0.6 to 1 in another technology (akashlevy, technology A, 5 cells); for this macro " + GUESS,
        ge=0,
        le=1,
    )
    flicker_low_hz: float = setting(1e-4, "1/f above this frequency, flat below", unit="Hz", source=GUESS, gt=0)
    flicker_high_hz: float = setting(
        1e3, "1/f below this frequency", unit="Hz", source=GUESS + "; measured up to 200 Hz (akashlevy)", gt=0
    )

    @model_validator(mode="after")
    def _frequencies_ascend(self) -> NoiseSettings:
        if self.flicker_high_hz <= self.flicker_low_hz:
            raise ValueError(f"flicker_high_hz {self.flicker_high_hz:g} is not above {self.flicker_low_hz:g}")
        return self


class TelegraphSettings(Settings):
    """Random telegraph noise: a few cells jump between two conductances."""

    enabled: bool = setting(True, "telegraph noise on", source="")
    share: float = setting(
        0.02, "share of cells that have it", source=GUESS + "; paper: most of 40 cells are quiet", ge=0, le=1
    )
    amplitude: float = setting(
        0.03, "median of the jump, relative to the conductance", source="1 to 4 % (akashlevy); for ours " + GUESS, ge=0
    )
    amplitude_spread: float = setting(0.5, "spread of it between cells, of its logarithm", source=GUESS, ge=0, le=3)
    dwell_min_s: float = setting(
        1e-2,
        "shortest mean time in one state",
        unit="s",
        source="16 ms and more seen in 400 Hz reads (akashlevy)",
        gt=0,
    )
    dwell_max_s: float = setting(1e2, "longest mean time in one state", unit="s", source="as above; " + GUESS, gt=0)

    @model_validator(mode="after")
    def _times_ascend(self) -> TelegraphSettings:
        if self.dwell_max_s < self.dwell_min_s:
            raise ValueError(f"dwell_max_s {self.dwell_max_s:g} is below dwell_min_s {self.dwell_min_s:g}")
        return self


class RelaxationSettings(Settings):
    """How conductance wanders after programming, in logarithmic time, and is lost to heat.

    Tables hold one value per level (fraction of `full_scale_s` that a cell was programmed to), or one for all levels.
    """

    enabled: bool = setting(True, "relaxation and drift on", source="")
    temperature_c: float = setting(25.0, "temperature of the array", unit="degC", source="room", ge=-55, le=400)
    start_s: float = setting(1e-3, "age at which relaxation sets in", unit="s", source="akashlevy data, fit", gt=0)
    full_scale_s: float = setting(25e-6, "conductance that levels are fractions of", unit="S", source="ours", gt=0)
    levels: tuple[float, ...] = setting((1.0,), "conductance over full scale, ascending", source="ours")
    trend: tuple[float, ...] = setting((0.0,), "steady change of ln(conductance) per decade of time", source=GUESS)
    spread: tuple[float, ...] = setting(
        (0.005,),
        "sigma of ln(conductance) after one decade of time, jumps apart",
        source=GUESS + "; paper: reads of most cells stay within 0.14 uS^2 over 30,000 cycles",
    )
    jump_rate: tuple[float, ...] = setting((0.0,), "jumps per decade of time", source=GUESS)
    jump_up_share: tuple[float, ...] = setting((0.5,), "share of jumps that go up", source=GUESS)
    jump_up: tuple[float, ...] = setting((0.1,), "mean jump up of ln(conductance)", source=GUESS)
    jump_down: tuple[float, ...] = setting((0.1,), "mean jump down of ln(conductance)", source=GUESS)
    reference_c: float = setting(
        25.0, "temperature at which ages count as they are", unit="degC", source="ours", ge=-55, le=400
    )
    activation_ev: float = setting(
        1.5,
        "of relaxation: how heat speeds it up",
        unit="eV",
        source="1.5 to 2.5 in akashlevy bakes; " + GUESS,
        ge=0,
        le=5,
    )
    loss_reference_c: float = setting(
        220.0, "temperature at which `loss_per_s` holds", unit="degC", source="akashlevy bake", ge=-55, le=400
    )
    loss_per_s: tuple[float, ...] = setting(
        (4e-5,), "mean loss of ln(conductance) to heat", unit="1/s", source="akashlevy, technology A; for ours " + GUESS
    )
    loss_spread: float = setting(
        0.9, "variance over mean of that loss", source="akashlevy, technology A; for ours " + GUESS, gt=0
    )
    loss_activation_ev: float = setting(
        0.85, "of that loss", unit="eV", source="akashlevy, technology A; for ours " + GUESS, ge=0, le=5
    )

    @model_validator(mode="after")
    def _tables_match(self) -> RelaxationSettings:
        if not self.levels or any(b <= a for a, b in zip(self.levels, self.levels[1:], strict=False)):
            raise ValueError(f"levels {self.levels} do not ascend")
        for name in ("trend", "spread", "jump_rate", "jump_up_share", "jump_up", "jump_down", "loss_per_s"):
            table = getattr(self, name)
            if len(table) not in (1, len(self.levels)):
                raise ValueError(f"{name} has {len(table)} values, but there are {len(self.levels)} levels")
            if name != "trend" and min(table) < 0:
                raise ValueError(f"{name} has a negative value, {min(table):g}")
        if max(self.jump_up_share) > 1:
            raise ValueError(f"jump_up_share {max(self.jump_up_share):g} is above 1")
        return self


class FaultSettings(Settings):
    """Cells and lines that do not work."""

    enabled: bool = setting(True, "faults on", source="")
    stuck_on: float = setting(0.0, "share of cells that stay on", source="none published", ge=0, le=0.33)
    stuck_off: float = setting(0.0, "share of cells that stay off", source="none published", ge=0, le=0.33)
    noisy: float = setting(0.0, "share of cells with more read noise", source="none published", ge=0, le=0.33)
    line_open: float = setting(0.0, "share of rows and of columns that are open", source="none published", ge=0, le=0.5)
    line_short: float = setting(
        0.0, "share of rows and of columns that are shorted", source="none published", ge=0, le=0.5
    )
    on_s: float = setting(100e-6, "conductance of a cell stuck on", unit="S", source=GUESS, ge=0)
    off_s: float = setting(0.01e-6, "conductance of a cell stuck off", unit="S", source=GUESS, ge=0)
    short_s: float = setting(1e-3, "conductance of each crossing of a shorted line", unit="S", source=GUESS, ge=0)
    noisy_factor: float = setting(10.0, "read noise of a noisy cell over the normal one", source=GUESS, ge=1)


class LineSettings(Settings):
    """Resistance of the lines inside the array."""

    enabled: bool = setting(True, "line resistance on", source="")
    row_ohm: float = setting(0.1, "bit line, per cell", unit="ohm", source=GUESS, ge=0, le=1e4)
    col_ohm: float = setting(0.1, "source line, per cell", unit="ohm", source=GUESS, ge=0, le=1e4)


class MuxSettings(Settings):
    """8:1 multiplexers between DAC channels and bit lines."""

    enabled: bool = setting(True, "on-resistance on", source="")
    width: int = setting(8, "lines per multiplexer, read one after the other", source="TI CD4051B", ge=1, le=64)
    r_on_ohm: float = setting(125.0, "on-resistance", unit="ohm", source="TI CD4051B, VDD 15 V: 125 typ", ge=0)
    r_on_sigma_ohm: float = setting(
        5.0, "spread of it between channels", unit="ohm", source="TI CD4051B, VDD 15 V: 5 ohm typ", ge=0
    )
    selects: Literal["common", "independent"] = setting(
        "common",
        "mux positions: the same for all, or each mux steps through its own active rows",
        source=GUESS + " (wiring of the board)",
    )
    inhibit: bool = setting(
        False,
        "a mux whose row is not driven connects nothing (false: it holds that row at the idle level)",
        source=GUESS + " (wiring of the board)",
    )
    idle_rows: Literal["floating", "isolated"] = setting(
        "floating",
        "rows that no mux selects: floating, or cut off by their select transistors; for common selects without "
        "inhibit, else they float",
        source=GUESS + " (direction of the word line)",
    )
    skip_silent: bool = setting(
        True,
        "leave out a mux phase in which no row is active; for common selects without inhibit, else always so",
        source="schedule of the board",
    )


class DacSettings(Settings):
    """DAC80508 row drivers."""

    enabled: bool = setting(True, "gain error, offset error and quantisation on", source="")
    full_scale_v: float = setting(5.0, "output range", unit="V", source="TI DAC80508, gain 2", gt=0)
    bits: int = setting(16, "resolution", source="TI DAC80508", ge=1, le=24)
    gain_sigma: float = setting(
        5e-4, "gain error between channels, relative", source="within TUE 0.1 % FSR, TI DAC80508", ge=0
    )
    offset_sigma_v: float = setting(
        5e-4, "offset between channels", unit="V", source="within TUE 0.1 % FSR (5 mV max), TI DAC80508", ge=0
    )


class TiaSettings(Settings):
    """OPA4322 transimpedance amplifiers, one per column."""

    enabled: bool = setting(True, "gain error, offset and output swing on", source="")
    r_feedback_ohm: float = setting(
        20e3,
        "feedback resistor",
        unit="ohm",
        source="for 4 sigma of a mux phase at 30 % activity; value " + GUESS,
        gt=0,
    )
    v_common_v: float = setting(
        1.6, "output at zero current; leaves 0.2 V for amplified offsets", unit="V", source=GUESS, gt=0
    )
    gain_sigma: float = setting(1e-3, "tolerance of the resistor, relative", source="0.1 % part; " + GUESS, ge=0)
    offset_sigma_v: float = setting(
        0.5e-3, "input offset between columns", unit="V", source="TI OPA4322: 0.5 mV typ, 2 mV max", ge=0
    )
    swing_low_v: float = setting(0.02, "lowest output", unit="V", source="TI OPA4322: 10-20 mV from the rail", ge=0)


class AdcSettings(Settings):
    """ADS8324 converters, -IN at the reference so that +IN swings over twice the reference."""

    enabled: bool = setting(True, "quantisation, clipping, noise and static errors on", source="")
    v_reference_v: float = setting(0.9, "reference", unit="V", source="TI ADS8324: up to VCC / 2", gt=0)
    bits: int = setting(14, "resolution", source="TI ADS8324", ge=1, le=24)
    noise_lsb: float = setting(0.8, "sigma of one conversion, in LSB", source="TI ADS8324: 5 LSB peak to peak", ge=0)
    gain_sigma: float = setting(1e-3, "gain error between converters, relative", source=GUESS, ge=0)
    offset_sigma_lsb: float = setting(2.0, "offset between converters, in LSB", source=GUESS, ge=0)
    zero_average: int = setting(64, "conversions averaged for the zero code of a column", source="ours", ge=1)


class SimSettings(Settings):
    """The simulator `--backend sim`."""

    rows: int = setting(512, "bit lines", source="paper", ge=1, le=4096)
    cols: int = setting(512, "source lines", source="paper", ge=1, le=4096)
    fidelity: Literal["statistical", "conversion"] = setting(
        "statistical",
        "'statistical': noise of a sum drawn once; 'conversion': every ADC conversion of every mux phase",
        source="ours",
    )
    chip: Path | None = setting(
        None, "file that keeps the cells between sessions; none: drawn anew from the seed", source="ours"
    )
    ideal: bool = setting(False, "switch every error and noise off", source="ours")
    forming: FormingSettings = FormingSettings()
    noise: NoiseSettings = NoiseSettings()
    lines: LineSettings = LineSettings()
    mux: MuxSettings = MuxSettings()
    dac: DacSettings = DacSettings()
    tia: TiaSettings = TiaSettings()
    adc: AdcSettings = AdcSettings()
    switching: SwitchingSettings = SwitchingSettings()
    endurance: EnduranceSettings = EnduranceSettings()
    telegraph: TelegraphSettings = TelegraphSettings()
    relaxation: RelaxationSettings = RelaxationSettings()
    faults: FaultSettings = FaultSettings()
