"""The emulated board: chips of the profile, wired to a hidden chip drawn from a seed, and faults on demand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.emulator.analogue import NEVER, AnalogueSide, Inputs
from firmware_bridge.emulator.array import EmulatedArray
from firmware_bridge.emulator.chips.ads8324 import AdcBank
from firmware_bridge.emulator.chips.cd4051b import MuxBankChips
from firmware_bridge.emulator.chips.dac80508 import CHANNELS, Dac80508Chip
from firmware_bridge.emulator.chips.sn74hc595 import ShiftRegisterChain
from firmware_bridge.emulator_settings import EmulatorSettings
from firmware_bridge.instructions import ROW_CHAIN, WORD_LINE_CHAIN, SourceLines
from firmware_bridge.profile import BoardProfile
from hil.errors import ConfigError
from sim_backend.chip import SimulatedChip, without_errors
from sim_backend.settings import SimSettings


@dataclass
class LinkFaults:
    """What goes wrong between host and fabric.

    Attributes:
        flip_program_bit: (word, bit) flipped in the next program upload.
        flip_result_bit: (word, bit) flipped in the next fetch of results.
        power_fails_at: instructions until the supply fails.
    """

    flip_program_bit: tuple[int, int] | None = None
    flip_result_bit: tuple[int, int] | None = None
    power_fails_at: int | None = None


@dataclass
class Faults:
    """Faults of an emulated board; set an attribute at any time, as a fault would happen.

    Attributes:
        dead_dacs: chips that do not answer and give 0 V.
        dead_dac_channels: (chip, channel) of outputs that give 0 V.
        floating_sdo: chips whose SDO line is broken.
        stuck_muxes: position each of these muxes is stuck at (-1: never connects).
        stuck_adcs: level (0 or 1) that each of these DOUT lines is stuck at.
        frozen_adcs: code that each of these converters always returns.
        clipping_adcs: +1 or -1: end of the range that the input of each of these is driven beyond.
        dac_vdd_v: supply of the DACs, None for the profile's.
        link: faults between host and fabric.
    """

    dead_dacs: set[int] = field(default_factory=set)
    dead_dac_channels: set[tuple[int, int]] = field(default_factory=set)
    floating_sdo: set[int] = field(default_factory=set)
    stuck_muxes: dict[int, int] = field(default_factory=dict)
    stuck_adcs: dict[int, int] = field(default_factory=dict)
    frozen_adcs: dict[int, int] = field(default_factory=dict)
    clipping_adcs: dict[int, int] = field(default_factory=dict)
    dac_vdd_v: float | None = None
    link: LinkFaults = field(default_factory=LinkFaults)


class EmulatedBoard:
    """Chips, array and wiring. The fabric drives it; tests look into it and break it.

    Args:
        profile: wiring.
        settings: effects of the hidden chip, as for the simulator; rows and cols must be the profile's.
        seed: draws the hidden chip, the power-up garbage and all noise.
        emulator: parts that are dead from the start, and where the bench is.
    """

    def __init__(
        self, profile: BoardProfile, settings: SimSettings, seed: int, emulator: EmulatorSettings | None = None
    ) -> None:
        if (settings.rows, settings.cols, settings.mux.width) != (profile.rows, profile.cols, profile.mux.width):
            raise ConfigError(
                f"sim.rows x sim.cols with sim.mux.width is {settings.rows} x {settings.cols} with "
                f"{settings.mux.width}, but board profile {profile.name} has {profile.rows} x {profile.cols} with "
                f"{profile.mux.width}",
                fix="use the same numbers in both",
            )
        if settings.ideal:
            settings = without_errors(settings)
        settings = _electrics_of(profile, settings)
        emulator = emulator or EmulatorSettings()
        _check_parts(profile, emulator)
        self.profile = profile
        self.emulator = emulator
        self.seed = seed
        self.faults = Faults(
            dead_dac_channels=set(emulator.dead_dac_channels), clipping_adcs=dict.fromkeys(emulator.clipping_adcs, 1)
        )
        chip = SimulatedChip.draw(settings, seed)
        _open_lines(chip, emulator, seed)
        # Streams beyond those of the simulator, so that both draw the same cells, muxes and amplifiers.
        dac, adc, garbage, noise = (
            np.random.default_rng(s) for s in np.random.SeedSequence(seed, spawn_key=(2,)).spawn(4)
        )
        self._garbage, self.noise = garbage, noise
        self._noise_start = noise.bit_generator.state
        self.array = EmulatedArray(chip, chip.r_on_ohm)
        on = float(settings.dac.enabled)
        self.dacs = [
            Dac80508Chip(
                variant=profile.dac.variant,
                vdd_v=profile.dac.vdd_v,
                v_reference_v=profile.dac.v_reference_v,
                external_reference=profile.dac.reference == "external",
                gain_error=on * dac.normal(0.0, settings.dac.gain_sigma, 8),
                offset_v=on * dac.normal(0.0, settings.dac.offset_sigma_v, 8),
            )
            for _ in range(profile.dac.chips)
        ]
        self.chains = [
            ShiftRegisterChain(profile.chains.rows.chips, garbage),
            ShiftRegisterChain(profile.chains.word_lines.chips, garbage),
        ]
        self.muxes = MuxBankChips(
            profile.mux.count, profile.mux.width, profile.mux.selects, inhibit=profile.mux.inhibit
        )
        on = float(settings.adc.enabled)
        lanes = profile.adc.count
        self.adcs = AdcBank(
            lanes,
            v_reference_v=profile.adc.v_reference_v,
            minus_input=profile.adc.minus_input,
            gain_error=on * adc.normal(0.0, settings.adc.gain_sigma, lanes),
            offset_lsb=on * adc.normal(0.0, settings.adc.offset_sigma_lsb, lanes),
            noise_lsb=on * settings.adc.noise_lsb,
        )
        self._row_channels = np.array([profile.row_channel(m) for m in range(profile.mux.count)])
        self.powered = True
        self.analogue = AnalogueSide(profile, self.array, chip.tias, self._inputs(SourceLines.GROUND, gate_on=False))
        self.peak_bias_v = 0.0
        self.power_up()

    @property
    def formed(self) -> NDArray[np.bool_]:
        """Which cells are formed; what a test may know and the host cannot."""
        return self.array.chip.formed

    def restart_noise(self) -> None:
        """Draw the noise from its beginning again; cells and chips stay as they are.

        On a chip that is kept in a file, noise goes on from session to session.
        """
        self.array.chip.restart_noise()
        if (session := self.array.chip.session) == 0:
            self.noise.bit_generator.state = self._noise_start
        else:
            again = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(2, session)))
            self.noise.bit_generator.state = again.bit_generator.state

    def power_up(self, time_s: float = 0.0) -> None:
        """Supply on: DACs reset, shift registers hold garbage, their outputs are off."""
        self.powered = True
        for dac in self.dacs:
            dac.power_on(time_s)
        for chain in self.chains:
            chain.power_on(self._garbage)
            chain.outputs_enabled = False

    def power_down(self) -> None:
        """Supply off: nothing drives anything."""
        self.powered = False
        for part in (*self.dacs, *self.chains):
            part.power_off()
        # Instruments have a supply of their own.
        off = replace(self._inputs(SourceLines.GROUND, gate_on=False), source=self.analogue.inputs.source)
        self.analogue.change(NEVER, dead_s=0.0, settle_s=0.0, **vars(off))

    def apply_faults(self) -> bool:
        """Hand the faults to the chips; whether that moved the level of a DAC."""
        faults = self.faults
        before = sum(dac.updates for dac in self.dacs)
        vdd_v = self.profile.dac.vdd_v if faults.dac_vdd_v is None else faults.dac_vdd_v
        for k, dac in enumerate(self.dacs):
            dac.dead = k in faults.dead_dacs
            dac.sdo_floating = k in faults.floating_sdo
            dead_channels = frozenset(channel for chip, channel in faults.dead_dac_channels if chip == k)
            if dac.dead_channels != dead_channels:
                dac.dead_channels = dead_channels
            if dac.vdd_v != vdd_v:
                dac.vdd_v = vdd_v
        self.muxes.stuck = dict(faults.stuck_muxes)
        self.adcs.stuck_dout = dict(faults.stuck_adcs)
        self.adcs.stuck_code = dict(faults.frozen_adcs)
        self.adcs.clipping = dict(faults.clipping_adcs)
        return sum(dac.updates for dac in self.dacs) != before

    def transfer(self, chips: int, frame: int, n_bits: int, time_s: float) -> int:
        """One frame on the DAC bus; returns the reply of the lowest selected chip."""
        selected = [dac for k, dac in enumerate(self.dacs) if chips >> k & 1]
        replies = [dac.frame(frame, n_bits, time_s=time_s) for dac in selected]
        return replies[0]

    def dac_levels(self) -> dict[str, object]:
        """Inputs of the analogue side that come from the DACs."""
        outputs_v = np.stack([dac.outputs_v for dac in self.dacs])
        profile = self.profile
        return {
            "row_v": outputs_v[self._row_channels[:, 0], self._row_channels[:, 1]],
            "source_line_v": float(outputs_v[profile.dac.source_line_channel]),
            "gate_v": float(outputs_v[profile.dac.gate_channel]),
        }

    def mux_positions(self) -> NDArray[np.intp]:
        """Where every mux stands."""
        return self.muxes.connect(self.chains[ROW_CHAIN].outputs)

    def word_lines(self) -> NDArray[np.bool_]:
        """Selected word lines; pulled down while the chain's outputs are off."""
        outputs = self.chains[WORD_LINE_CHAIN].outputs
        if outputs is None:
            return np.zeros(self.profile.cols, np.bool_)
        raw = np.frombuffer(outputs.to_bytes(self.profile.chains.word_lines.chips, "little"), np.uint8)
        return np.unpackbits(raw, bitorder="little")[: self.profile.cols].astype(np.bool_)

    def note_bias(self) -> None:
        """Remember the largest bias that any cell has seen."""
        self.peak_bias_v = max(self.peak_bias_v, self.analogue.peak_bias_v())

    @property
    def is_safe(self) -> bool:
        """No cell under bias, word lines off, source lines grounded, no DAC output above its offset error."""
        inputs = self.analogue.inputs
        quiet_v = max(abs(float(v)) for v in np.concatenate([dac.outputs_v for dac in self.dacs]))
        return (
            not self.analogue.bias_v().any()
            and not inputs.gate_on
            and inputs.source_lines is SourceLines.GROUND
            and quiet_v < 10e-3
            and not any(chain.outputs_enabled for chain in self.chains)
        )

    def _inputs(self, source_lines: SourceLines, *, gate_on: bool) -> Inputs:
        return Inputs(
            position=self.mux_positions(),
            word_lines=self.word_lines(),
            source_lines=source_lines,
            gate_on=gate_on,
            **self.dac_levels(),  # type: ignore[arg-type]
        )


def _electrics_of(profile: BoardProfile, settings: SimSettings) -> SimSettings:
    """The simulator's settings with the profile's amplifiers in place of its own."""
    tia = settings.tia.model_copy(
        update={"r_feedback_ohm": profile.tia.r_feedback_ohm, "v_common_v": profile.tia.v_common_v}
    )
    return settings.model_copy(update={"tia": tia})


def _open_lines(chip: SimulatedChip, emulator: EmulatorSettings, seed: int) -> None:
    """Break the shares of the chip's lines that are wanted; the chip is otherwise the same as without."""
    broken = {}
    streams = np.random.SeedSequence(seed, spawn_key=(4,)).spawn(2)
    shares = {"open_rows": emulator.dead_rows, "open_cols": emulator.dead_columns}
    for (name, share), stream in zip(shares.items(), streams, strict=True):
        line = getattr(chip.faults, name).copy()
        # The first of one order: more dead lines include the fewer.
        line[np.random.default_rng(stream).permutation(len(line))[: round(share * len(line))]] = True
        broken[name] = line
    chip.faults = replace(chip.faults, **broken)


def _check_parts(profile: BoardProfile, emulator: EmulatorSettings) -> None:
    """Refuse parts that the board does not have."""
    for what, key, numbers, count in (
        ("DAC chip", "dead_dac_channels", [chip for chip, _ in emulator.dead_dac_channels], profile.dac.chips),
        ("DAC channel", "dead_dac_channels", [channel for _, channel in emulator.dead_dac_channels], CHANNELS),
        ("ADC lane", "clipping_adcs", emulator.clipping_adcs, profile.adc.count),
        ("bit line", "smu_row", [emulator.smu_row], profile.rows),
    ):
        for number in numbers:
            if not 0 <= number < count:
                raise ConfigError(
                    f"emulator.{key} names {what} {number}, but board profile {profile.name} has {count}",
                    fix=f"use 0 to {count - 1}",
                )
