"""Settings of the array procedures, one class per verb."""

from __future__ import annotations

from typing import Literal

from hil.config import Settings, setting

_GUESS = "guess: not published"


class ReadSettings(Settings):
    """How a cell is read."""

    v_read_v: float = setting(0.2, "read voltage", unit="V", source=_GUESS, gt=0)
    n_average: int = setting(4, "conversions averaged per cell", source="ours", ge=1)
    correction: Literal["none", "zero", "polarity"] = setting(
        "none",
        "'zero' subtracts a read at 0 V (what offsets drive); 'polarity' takes half the difference of both polarities",
        source="ours",
    )


class FormSettings(Settings):
    """Forming: once per cell, with the current limited by the gate of the select transistor."""

    mode: Literal["uniform", "ramp", "sparsity"] = setting(
        "uniform",
        "'uniform': one pulse per cell; 'ramp': rising voltage until formed; 'sparsity': until a fraction is formed",
        source="paper: one uniform programming voltage, no write-verify",
    )
    voltage_v: float = setting(
        4.0, "voltage of mode 'uniform'", unit="V", source="5 sigma above ESGNN's forming voltage, 3.433 V", gt=0
    )
    v_gate_v: float = setting(1.2, "word line; sets the compliance current", unit="V", source=_GUESS, gt=0)
    width_s: float = setting(1e-3, "pulse width", unit="s", source=_GUESS, gt=0)
    v_start_v: float = setting(3.0, "first voltage of a ramp", unit="V", source="ESGNN: from 3 V", gt=0)
    v_stop_v: float = setting(4.0, "last voltage of a ramp; ceiling of all modes", unit="V", source="ours", gt=0)
    v_step_v: float = setting(0.05, "step of a ramp", unit="V", source="ESGNN: 0.05 V steps", gt=0)
    v_step_min_v: float = setting(
        0.002, "smallest step of mode 'sparsity'", unit="V", source="several codes of a 16-bit DAC of 5 V", gt=0
    )
    target_fraction: float = setting(0.5, "fraction formed, mode 'sparsity'", source="ESGNN: 49 % formed", gt=0, le=1)
    fraction_tolerance: float = setting(0.01, "how near the fraction must come", source="ours", gt=0, lt=1)
    formed_above_s: float = setting(
        0.5e-6,
        "a cell that conducts more is formed",
        unit="S",
        source="5 times pristine; 0.2 % of formed cells lie below (normal, 14.25 +- 4.7 uS)",
        gt=0,
    )
    pulses_per_cell_max: int = setting(64, "ceiling of pulses on one cell, all sessions of a run", source="ours", ge=1)


class TrainSettings(Settings):
    """A train of equal pulses, each followed by a read."""

    n_pulses: int = setting(1, "pulses on each cell", source="ours", ge=1)
    voltage_v: float = setting(2.0, "amplitude", unit="V", source=_GUESS, gt=0)
    v_gate_v: float = setting(1.5, "word line", unit="V", source=_GUESS, gt=0)
    width_s: float = setting(200e-9, "pulse width", unit="s", source="RADAR data: 200 ns", gt=0)
    pulses_per_cell_max: int = setting(10_000, "ceiling of pulses on one cell", source="ours", ge=1)


class ResetSettings(TrainSettings):
    """A train of RESET pulses; the gate is fully open, so that the cell gets the voltage."""

    v_gate_v: float = setting(3.0, "word line", unit="V", source=_GUESS, gt=0)


class IvSettings(Settings):
    """I-V curves within the read range, or the hysteresis loop of SET and RESET pulses."""

    mode: Literal["read", "switch"] = setting(
        "read", "'read': currents at rising read voltages; 'switch': rising SET, then RESET pulses", source="ours"
    )
    v_read_stop_v: float = setting(0.3, "largest read voltage of mode 'read'", unit="V", source=_GUESS, gt=0)
    n_points: int = setting(12, "read voltages of one polarity", source="ours", ge=4, le=1000)
    n_average: int = setting(16, "conversions averaged per point of mode 'read'", source="ours", ge=1)
    nonlinearity_max: float = setting(
        0.1, "cubic part of the current at the largest read voltage that counts as ohmic, relative", source="ours", gt=0
    )
    set_start_v: float = setting(0.3, "first SET voltage", unit="V", source=_GUESS, gt=0)
    set_stop_v: float = setting(2.0, "last SET voltage", unit="V", source="RADAR data: SET below 2 V", gt=0)
    set_gate_v: float = setting(1.2, "word line of SET; sets the compliance current", unit="V", source=_GUESS, gt=0)
    reset_start_v: float = setting(0.4, "first RESET voltage", unit="V", source=_GUESS, gt=0)
    reset_stop_v: float = setting(2.2, "last RESET voltage", unit="V", source="RADAR data: RESET below 3 V", gt=0)
    reset_gate_v: float = setting(3.0, "word line of RESET", unit="V", source=_GUESS, gt=0)
    step_v: float = setting(0.1, "step of both staircases", unit="V", source="ours", gt=0)
    width_s: float = setting(200e-9, "pulse width", unit="s", source="RADAR data: 200 ns", gt=0)
    n_loops: int = setting(2, "loops; the first starts from whatever state a cell is in", source="ours", ge=1, le=100)
    factor: float = setting(2.0, "change of conductance that counts as switched", source="ours", gt=1)
    stop_above_s: float = setting(
        80e-6, "a cell that conducts more gets no further SET in this loop", unit="S", source="ours", gt=0
    )
    pulses_per_cell_max: int = setting(1000, "ceiling of pulses on one cell", source="ours", ge=1)


class NoiseSettings(Settings):
    """Repeated reads of a few cells."""

    n_cells: int = setting(40, "cells, drawn at random from the region; 0: all", source="paper: 40 cells", ge=0)
    n_reads: int = setting(30_000, "reads of each cell", source="paper: 30,000 cycles", ge=16, le=10_000_000)
    n_average: int = setting(1, "conversions averaged per read", source="ours: averaging hides noise", ge=1)
    interval_s: float = setting(0.0, "pause between reads; 0: none", unit="s", source="ours", ge=0)
    variance_max_s2: float = setting(
        0.14e-12, "most variance of a quiet cell", unit="S^2", source="paper: below 0.14 uS, taken as uS^2", gt=0
    )
    n_segments: int = setting(8, "segments of the spectral estimate", source="ours", ge=1, le=1000)
    telegraph_p: float = setting(
        0.005, "share of cells with other noise that may be taken for telegraph noise", source="ours", ge=0.005, lt=1
    )
    seed: int = setting(0, "draws the cells", source="ours", ge=0)


class RetentionSettings(Settings):
    """Reads at times that are even on a logarithmic axis."""

    first_s: float = setting(1.0, "first read after programming", unit="s", source="ours", gt=0)
    last_s: float = setting(1e4, "last read after programming", unit="s", source="ours", gt=0, le=3.2e7)
    per_decade: int = setting(3, "reads per decade of time", source="ours", ge=1, le=100)
    n_average: int = setting(16, "conversions averaged per read", source="ours", ge=1)
    programmed_at_s: float | None = setting(
        None, "clock of the array when it was programmed; none: the start of the run", unit="s", source="ours"
    )
    temperature_c: float = setting(
        25.0, "temperature of the array, stated by you; it changes nothing", unit="degC", source="room", ge=-273
    )
    change_max: float = setting(0.2, "relative change after which a cell has not kept its state", source="ours", gt=0)


class EnduranceSettings(Settings):
    """Cycles of SET and RESET."""

    n_cycles: int = setting(1000, "cycles; hard ceiling", source="ours", ge=1, le=1_000_000)
    every_until: int = setting(10, "each cycle is read up to this one", source="ours", ge=1)
    per_decade: int = setting(5, "cycles read per decade beyond that", source="ours", ge=1, le=100)
    set_v: float = setting(2.0, "SET voltage", unit="V", source=_GUESS, gt=0)
    set_gate_v: float = setting(1.2, "word line of SET; sets the compliance current", unit="V", source=_GUESS, gt=0)
    reset_v: float = setting(2.2, "RESET voltage", unit="V", source=_GUESS, gt=0)
    reset_gate_v: float = setting(3.0, "word line of RESET", unit="V", source=_GUESS, gt=0)
    width_s: float = setting(200e-9, "pulse width", unit="s", source="RADAR data: 200 ns", gt=0)
    window_min: float = setting(
        1.5, "conductance after SET over that after RESET below which a cell has failed", source="ours", gt=1
    )
    middle_s: float = setting(
        5e-6, "a failed cell that conducts more is stuck on, another stuck off", unit="S", source=_GUESS, gt=0
    )
    record_max_bytes: int = setting(
        2_000_000_000, "a run whose record would grow larger is refused", source="ours", gt=0
    )


class DisturbSettings(Settings):
    """What reading a cell, or pulsing its neighbours, does to it."""

    mode: Literal["read", "half-select"] = setting(
        "read",
        "'read': many reads of the cell itself; 'half-select': pulses on other cells of its lines",
        source="ours",
    )
    count: int = setting(10_000, "reads, or pulses on each aggressor", source="ours", ge=1, le=10_000_000)
    per_decade: int = setting(2, "looks at the cells per decade of that count", source="ours", ge=1, le=20)
    n_average: int = setting(16, "conversions averaged per look", source="ours", ge=1)
    v_disturb_v: float = setting(0.3, "read voltage that disturbs, mode 'read'", unit="V", source=_GUESS, gt=0)
    control_share: float = setting(
        0.5, "cells that are only looked at, mode 'read'; they show drift", source="ours", gt=0, lt=1
    )
    n_aggressors: int = setting(4, "cells that are pulsed, mode 'half-select'", source="ours", ge=1)
    kind: Literal["set", "reset"] = setting("reset", "pulse on the aggressors", source="ours")
    voltage_v: float = setting(1.5, "its voltage", unit="V", source=_GUESS, gt=0)
    v_gate_v: float = setting(3.0, "its word line", unit="V", source=_GUESS, gt=0)
    width_s: float = setting(200e-9, "its width", unit="s", source="RADAR data: 200 ns", gt=0)
    pulses_per_cell_max: int = setting(100_000, "ceiling of pulses on one aggressor", source="ours", ge=1)
    change_max: float = setting(0.1, "relative change above which a cell counts as disturbed", source="ours", gt=0)
    z_min: float = setting(3.0, "a mean shift of so many standard errors is significant", source="ours", gt=0)
    seed: int = setting(0, "draws aggressors and controls", source="ours", ge=0)


class HealthSettings(Settings):
    """Faults of cells and lines, from repeated reads, or with one RESET and SET of each cell."""

    n_reads: int = setting(16, "reads of each cell", source="ours", ge=8, le=10_000)
    unformed_below_s: float = setting(
        0.2e-6, "a cell that conducts less never formed", unit="S", source="ESGNN: pristine about 0.1 uS", gt=0
    )
    on_above_s: float = setting(
        40e-6, "a cell that conducts more is stuck on", unit="S", source="5 sigma above formed cells, 14 uS", gt=0
    )
    short_above_s: float = setting(200e-6, "a line whose cells conduct more is shorted", unit="S", source=_GUESS, gt=0)
    noisy_above: float = setting(
        0.05, "sigma over mean of a noisy cell", source="2.5 times the read noise of 2 % in ESGNN", gt=0
    )
    noise_reference_s: float = setting(
        2e-6, "a cell that conducts less: sigma over this", unit="S", source="ours: converters' noise", gt=0
    )
    line_share: float = setting(0.9, "share of a line's cells that must agree", source="ours", gt=0.5, le=1)
    assume_formed: bool = setting(
        False, "every cell was formed: one that does not conduct is stuck off", source="reads cannot tell"
    )
    stress: bool = setting(
        False, "RESET and SET each cell, which loses its state; the only way to see that it switches", source="ours"
    )
    set_v: float = setting(2.0, "SET voltage", unit="V", source=_GUESS, gt=0)
    set_gate_v: float = setting(1.2, "word line of SET; sets the compliance current", unit="V", source=_GUESS, gt=0)
    reset_v: float = setting(2.2, "RESET voltage", unit="V", source=_GUESS, gt=0)
    reset_gate_v: float = setting(3.0, "word line of RESET", unit="V", source=_GUESS, gt=0)
    width_s: float = setting(200e-9, "pulse width", unit="s", source="RADAR data: 200 ns", gt=0)
    switch_factor: float = setting(1.25, "change by RESET or SET of a cell that switches", source="ours", gt=1)
    middle_s: float = setting(5e-6, "a cell that does not switch is stuck on above this", unit="S", source=_GUESS, gt=0)


class ProgramSettings(Settings):
    """Write-verify of a target conductance per cell: SET by the gate, RESET by the voltage."""

    mode: Literal["ispp", "pi"] = setting(
        "ispp",
        "how amplitudes follow the error: 'ispp' steps from the newest result of each kind of pulse; 'pi' is a "
        "proportional-integral law in velocity form",
        source="ours",
    )
    tolerance_s: float = setting(1e-6, "how near a cell must come", unit="S", source="ours", gt=0)
    accept_fraction: float = setting(
        0.25,
        "part of the tolerance within which a cell is left; the rest is for noise and drift",
        source="ours",
        gt=0,
        le=1,
    )
    pulses_per_cell_max: int = setting(60, "pulses on one cell, all sessions of a run", source="ours", ge=1)
    final_passes: int = setting(
        5, "times that cells are verified at the end, and those that moved away programmed again", source="ours", ge=1
    )
    final_fraction: float = setting(
        0.35, "part of the tolerance beyond which a verified cell is programmed again", source="ours", gt=0, le=1
    )
    final_reads: int = setting(
        3, "reads averaged to verify a cell, settle_s apart: slow noise averages out in time only", source="ours", ge=1
    )
    settle_s: float = setting(
        1.0, "pause before each of these reads, in which cells relax", unit="s", source="ours", ge=0
    )
    n_average: int = setting(8, "conversions averaged per verify read", source="0.7 % of 2 % read noise", ge=1)
    reachable_min_s: float = setting(1e-6, "lowest target", unit="S", source=_GUESS, gt=0)
    reachable_max_s: float = setting(30e-6, "highest target", unit="S", source=_GUESS, gt=0)
    formed_above_s: float = setting(0.5e-6, "a cell that conducts less is not formed", unit="S", source="as form", gt=0)
    width_s: float = setting(200e-9, "pulse width", unit="s", source="RADAR data: 200 ns", gt=0)
    grid_v: float = setting(
        0.04, "grid of all amplitudes: cells with equal ones share a pulse", unit="V", source="ours", gt=0
    )
    set_voltage_v: float = setting(2.0, "bit line of SET", unit="V", source=_GUESS, gt=0)
    set_gate_start_v: float = setting(0.8, "first word-line voltage of SET", unit="V", source=_GUESS, gt=0)
    set_gate_max_v: float = setting(2.6, "highest word-line voltage of SET", unit="V", source=_GUESS, gt=0)
    set_s_per_v: float = setting(
        20e-6,
        "conductance per volt of gate, for the size of steps",
        unit="S/V",
        source=_GUESS + "; too high is safe",
        gt=0,
    )
    reset_gate_v: float = setting(3.6, "word line of RESET, fully open", unit="V", source=_GUESS, gt=0)
    reset_start_v: float = setting(0.8, "first voltage of RESET", unit="V", source=_GUESS, gt=0)
    reset_max_v: float = setting(3.0, "highest voltage of RESET", unit="V", source=_GUESS, gt=0)
    reset_v_per_e: float = setting(
        0.3,
        "RESET voltage per factor e of conductance, for the size of steps",
        unit="V",
        source=_GUESS + "; too low is safe",
        gt=0,
    )
    step_max_v: float = setting(0.3, "largest step of an amplitude", unit="V", source="ours", gt=0)
    gain: float = setting(0.7, "part of the error that a step of 'ispp' aims at", source="ours", gt=0, le=1)
    gain_p: float = setting(
        0.2, "proportional gain of 'pi'; 1 answers a change of the error in full", source="ours", ge=0
    )
    gain_i: float = setting(0.6, "integral gain of 'pi'; 1 answers the error in full", source="ours", gt=0)


class ArraySettings(Settings):
    """Section `array`: one part per verb."""

    cells_per_step: int = setting(
        16384, "cells per primitive; at most so many are uncertain after a kill", source="ours", ge=1
    )
    read: ReadSettings = ReadSettings()
    form: FormSettings = FormSettings()
    set: TrainSettings = TrainSettings()
    reset: ResetSettings = ResetSettings()
    program: ProgramSettings = ProgramSettings()
    iv: IvSettings = IvSettings()
    noise: NoiseSettings = NoiseSettings()
    retention: RetentionSettings = RetentionSettings()
    endurance: EnduranceSettings = EnduranceSettings()
    disturb: DisturbSettings = DisturbSettings()
    health: HealthSettings = HealthSettings()
