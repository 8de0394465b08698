"""Settings of the simulator, one model per effect; each value with unit and source.

Sources: "paper" is Lin et al., Nat. Comput. Sci. 5, 37-47 (2025) and its released code; "TI" is the data sheet.
"""

from __future__ import annotations

from typing import Literal

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


class NoiseSettings(Settings):
    """Read noise of the cells."""

    enabled: bool = setting(True, "read noise on", source="")
    relative: float = setting(
        0.02, "sigma of a cell's conductance per read, relative", source="2 % in ESGNN, DEPLM and PRIME", ge=0, le=1
    )


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
    idle_rows: Literal["floating", "isolated"] = setting(
        "floating",
        "rows that no mux selects: floating, or cut off by their select transistors",
        source=GUESS + " (direction of the word line)",
    )
    skip_silent: bool = setting(True, "leave out a mux phase in which no row is active", source="schedule of the board")


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
    ideal: bool = setting(False, "switch every error and noise off", source="ours")
    forming: FormingSettings = FormingSettings()
    noise: NoiseSettings = NoiseSettings()
    lines: LineSettings = LineSettings()
    mux: MuxSettings = MuxSettings()
    dac: DacSettings = DacSettings()
    tia: TiaSettings = TiaSettings()
    adc: AdcSettings = AdcSettings()
