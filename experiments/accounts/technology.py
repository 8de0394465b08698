"""Constants of technology that energies are counted with, each with its source; section `energy` of the settings."""

from __future__ import annotations

from hil.config import Settings, setting


class TechnologySettings(Settings):
    """Digital logic, a projected chip (names without `board`), and the board as it is (`board_...`)."""

    digital_j_per_op: float = setting(
        0.4808e-12,
        "one digital operation; a multiplication and an addition are two",
        unit="J",
        source="624e12 operations per second at 300 W, the data sheet of an A100 (INT8); "
        "the paper's digital figure for N-MNIST follows from it",
        gt=0,
    )
    paper_column_j: float = setting(
        14e-12,
        "one neuron column for one step in the paper's projection, whatever the rows",
        unit="J",
        source="derived: 2.80 nJ per step of 200 neurons fits the paper's N-MNIST and N-TIDIGITS",
        gt=0,
    )
    array_rows: int = setting(512, "rows of a macro; a network with more is cut into blocks", source="paper", ge=1)
    v_read_v: float = setting(0.2, "read voltage", unit="V", source="guess: not published", gt=0)
    mean_conductance_s: float = setting(
        14.25e-6, "mean conductance of a cell", unit="S", source="sister paper on the same macro", gt=0
    )
    read_time_s: float = setting(100e-9, "time that the rows are driven", unit="s", source="guess", gt=0)
    line_capacitance_f: float = setting(
        0.5e-12, "one row line, charged for each read", unit="F", source="guess: 1 fF for each of 512 cells", ge=0
    )
    conversions_per_neuron: int = setting(
        2, "columns converted for each neuron: G+ and G- apart", source="ours; 1 if they are subtracted before", ge=1
    )
    front_end_j: float = setting(
        2e-12, "amplifier of one column for one conversion", unit="J", source="guess: 20 uW for 100 ns", ge=0
    )
    adc_bits: int = setting(8, "resolution of a converter on the chip", unit="bit", source="guess", ge=1, le=16)
    adc_j_per_step: float = setting(
        20e-15,
        "conversion step of a converter on the chip (Walden's figure of merit)",
        unit="J",
        source="guess: successive-approximation converters near 40 nm lie between a few fJ and 100 fJ in B. Murmann's "
        "ADC Performance Survey",
        gt=0,
    )
    input_rate: float = setting(0.1, "input spikes per line and step, where no run says it", source="guess", ge=0, le=1)
    spike_rate: float = setting(
        0.1, "spikes per neuron and step, where no run says it", source="guess; the paper's settings give 4 to 9 %",
        ge=0, le=1,
    )  # fmt: skip
    board_adc_count: int = setting(8, "converters on the board", source="guess, as in profile paper-guess", ge=1)
    board_adc_rate_hz: float = setting(
        50e3, "conversions per second of one", unit="Hz", source="ADS8324 data sheet", gt=0
    )
    board_adc_j: float = setting(
        50e-9, "one conversion", unit="J", source="ADS8324 data sheet: 2.5 mW at 1.8 V and 50 kHz", gt=0
    )
    board_phases: int = setting(
        8, "phases of a product at most: rows behind one multiplexer", source="CD4051B, 8:1", ge=1
    )
    board_dac_w: float = setting(
        0.192, "64 DAC channels", unit="W", source="DAC80508 data sheet: 0.6 mA per channel, at 5 V", ge=0
    )
    board_amplifier_w: float = setting(
        7.5e-3, "one column amplifier", unit="W", source="OPA4322-Q1 data sheet: 1.5 mA per channel, at 5 V", ge=0
    )
    board_amplifier_count: int = setting(512, "column amplifiers", source="guess: one per column", ge=0)
    board_zynq_w: float = setting(2.0, "processor and fabric", unit="W", source="guess", ge=0)

    @property
    def adc_j(self) -> float:
        """One conversion on the projected chip."""
        return self.adc_j_per_step * float(2**self.adc_bits)

    @property
    def board_static_w(self) -> float:
        """What the board draws whether it converts or not; multiplexers, links and power supplies are left out."""
        return self.board_dac_w + self.board_amplifier_w * self.board_amplifier_count + self.board_zynq_w
