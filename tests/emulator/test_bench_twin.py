"""The bench twin: what a source at a bit line's pad does to the array, and instruments that VISA reaches."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import emulate, profile

from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.emulator import emulated_backend
from firmware_bridge.emulator.array import EmulatedArray
from firmware_bridge.emulator.bench import Bench
from firmware_bridge.emulator.board import EmulatedBoard
from firmware_bridge.emulator.fabric import EmulatedFabric
from firmware_bridge.emulator.pad import PadSource, voltmeter
from firmware_bridge.emulator.twin import BenchTwin, twin_for
from firmware_bridge.emulator_settings import EmulatorSettings
from firmware_bridge.instructions import SourceLines
from firmware_bridge.remote_backend import RemoteBackend
from hil import open_session
from hil.errors import ConfigError
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

pyvisa = pytest.importorskip("pyvisa", reason="needs the extra 'lab'")
pytest.importorskip("pyvisa_py", reason="needs the extra 'lab'")
pytest.importorskip("serial", reason="needs the extra 'lab'")

QUIET = {"noise": {"enabled": False}, "telegraph": {"enabled": False}}
NO_ROWS = (np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0))
#: a row that the first mux connects, and the SMU's
ROW = 5


def columns(*cols: int) -> np.ndarray:
    found = np.zeros(16, np.bool_)
    found[list(cols)] = True
    return found


def reading(fabric: EmulatedFabric, word_lines: np.ndarray, **more: Any) -> None:
    """Put the board's analogue side into a state that a read would reach, with no mux on."""
    fabric.board.analogue.change(
        fabric.now,
        dead_s=0.0,
        settle_s=0.0,
        **{
            "source_lines": SourceLines.TIA,
            "gate_on": True,
            "gate_v": 3.3,
            "word_lines": word_lines,
            "position": np.full(fabric.board.profile.mux.count, -1),
            **more,
        },
    )
    fabric.now += 10_000


@pytest.fixture(scope="module")
def array() -> EmulatedArray:
    """White noise only: that is a figure, and draws nothing."""
    return emulate(telegraph={"enabled": False}, noise={"flicker_share": 0.0})[0].array


class TestSourceAtAPad:
    """The network: `EmulatedArray.currents_with`."""

    @pytest.mark.parametrize("cols", [(3,), (3, 7, 9), tuple(range(16))])
    def test_a_sourced_current_leaves_by_the_open_columns(self, array: EmulatedArray, cols: tuple[int, ...]) -> None:
        found = array.currents_with(PadSource(ROW, "current", 4e-6, 1.0), 0.0, *NO_ROWS, columns(*cols))
        assert found.current_a.sum() == pytest.approx(4e-6, rel=1e-6)
        assert (found.current_a[list(cols)] > 0).all()
        assert not found.current_a[~columns(*cols)].any()
        assert not found.pad.in_compliance

    @pytest.mark.parametrize("cols", [(3,), (3, 7, 9), tuple(range(16))])
    def test_a_voltage_behind_a_muxs_resistance_does_what_the_mux_does(
        self, array: EmulatedArray, cols: tuple[int, ...]
    ) -> None:
        r_on_ohm = float(array.chip.r_on_ohm[0])
        source = PadSource(ROW, "voltage", 0.2, 1.0, lead_ohm=r_on_ohm)
        found = array.currents_with(source, 0.0, *NO_ROWS, columns(*cols))
        driven = array.currents(np.array([0]), np.array([ROW]), np.array([0.2]), columns(*cols))
        np.testing.assert_allclose(found.current_a, driven.current_a, rtol=1e-9)
        np.testing.assert_allclose(found.conductance_s, driven.conductance_s, rtol=1e-9)
        np.testing.assert_allclose(found.sigma_a, driven.sigma_a, rtol=1e-4)

    @pytest.mark.parametrize("cols", [(3,), (3, 7, 9)])
    def test_beside_rows_that_muxes_drive_it_is_one_row_more(self, array: EmulatedArray, cols: tuple[int, ...]) -> None:
        rows, source_v = np.array([ROW, 11, 20]), np.array([0.2, 0.15, 0.1])
        muxes = rows // 8
        source = PadSource(ROW, "voltage", 0.2, 1.0, lead_ohm=float(array.chip.r_on_ohm[0]))
        found = array.currents_with(source, 0.0, muxes[1:], rows[1:], source_v[1:], columns(*cols))
        driven = array.currents(muxes, rows, source_v, columns(*cols))
        np.testing.assert_allclose(found.current_a, driven.current_a, rtol=1e-8)
        np.testing.assert_allclose(found.conductance_s, driven.conductance_s, rtol=1e-8)
        np.testing.assert_allclose(found.sigma_a, driven.sigma_a, rtol=1e-8)

    def test_in_parallel_with_its_mux_it_halves_the_resistance(self, array: EmulatedArray) -> None:
        connected = np.array([0]), np.array([ROW]), np.array([0.2])
        source = PadSource(ROW, "voltage", 0.2, 1.0, lead_ohm=float(array.chip.r_on_ohm[0]))
        found = array.currents_with(source, 0.0, *connected, columns(2, 4))
        halved = EmulatedArray(array.chip, 0.5 * array.chip.r_on_ohm).currents(*connected, columns(2, 4))
        np.testing.assert_allclose(found.current_a, halved.current_a, rtol=1e-8)
        np.testing.assert_allclose(found.sigma_a, halved.sigma_a, rtol=1e-8)

    @pytest.mark.parametrize("others", [(), (ROW,), (11,), (ROW, 11)])
    def test_current_and_voltage_source_agree_at_the_same_point(
        self, array: EmulatedArray, others: tuple[int, ...]
    ) -> None:
        rows = np.array(others, np.intp)
        connected = rows // 8, rows, np.full(len(rows), 0.15)
        forced = array.currents_with(PadSource(ROW, "current", -3e-6, 1.0), 0.0, *connected, columns(2, 4, 6))
        held = PadSource(ROW, "voltage", forced.pad.voltage_v, 1.0)
        again = array.currents_with(held, 0.0, *connected, columns(2, 4, 6))
        assert again.pad.current_a == pytest.approx(-3e-6, rel=1e-9)
        np.testing.assert_allclose(again.current_a, forced.current_a, rtol=1e-9)

    def test_a_meter_draws_nothing_and_reads_behind_the_mux(self, array: EmulatedArray) -> None:
        connected = np.array([0]), np.array([ROW]), np.array([0.2])
        metered = array.currents_with(voltmeter(ROW), 0.0, *connected, columns(2, 4))
        alone = array.currents(*connected, columns(2, 4))
        np.testing.assert_allclose(metered.current_a, alone.current_a, rtol=1e-9)
        drop_v = float(array.chip.r_on_ohm[0]) * alone.current_a.sum()
        assert metered.pad.pad_v == pytest.approx(0.2 - drop_v, rel=1e-9)

    def test_a_current_source_stops_at_its_voltage(self, array: EmulatedArray) -> None:
        found = array.currents_with(PadSource(ROW, "current", 1e-3, 0.3), 0.0, *NO_ROWS, columns(3))
        assert found.pad.in_compliance
        assert found.pad.voltage_v == 0.3
        held = array.currents_with(PadSource(ROW, "voltage", 0.3, 1.0), 0.0, *NO_ROWS, columns(3))
        np.testing.assert_allclose(found.current_a, held.current_a)

    def test_a_voltage_source_stops_at_its_current(self, array: EmulatedArray) -> None:
        found = array.currents_with(PadSource(ROW, "voltage", -0.4, 1e-6), 0.0, *NO_ROWS, columns(3))
        assert found.pad.in_compliance
        assert found.current_a[3] == pytest.approx(-1e-6, rel=1e-9)

    def test_with_no_column_open_nothing_flows(self, array: EmulatedArray) -> None:
        found = array.currents_with(PadSource(ROW, "current", -1e-6, 0.3), 0.0, *NO_ROWS, columns())
        assert found.pad.in_compliance
        assert found.pad.voltage_v == -0.3
        assert abs(found.pad.current_a) < 1e-11
        assert not found.current_a.any()

    def test_with_no_column_open_a_connected_mux_takes_it_all(self, array: EmulatedArray) -> None:
        connected = np.array([0]), np.array([ROW]), np.array([0.1])
        point = array.currents_with(PadSource(ROW, "current", 1e-5, 1.0, lead_ohm=0.0), 0.0, *connected, columns()).pad
        assert point.voltage_v == pytest.approx(0.1 + 1e-5 * float(array.chip.r_on_ohm[0]))

    def test_a_forced_current_has_the_noise_of_its_source_only(self, array: EmulatedArray) -> None:
        forced = PadSource(ROW, "current", 4e-6, 1.0, noise_a=1e-12)
        assert array.currents_with(forced, 0.0, *NO_ROWS, columns(3)).sigma_a[3] == pytest.approx(1e-12)
        held = PadSource(ROW, "voltage", 0.2, 1.0)
        assert array.currents_with(held, 0.0, *NO_ROWS, columns(3)).sigma_a[3] > 1e-9


class TestBoard:
    """A source at the pad of an emulated board."""

    @pytest.mark.parametrize("level_a", [3e-6, 8e-6])
    def test_a_sourced_current_shows_up_at_the_converter_of_the_open_column(self, level_a: float) -> None:
        _, fabric, _ = emulate(**QUIET, tia={"gain_sigma": 0.0}, adc={"gain_sigma": 0.0})
        board = fabric.board
        position, lane = 4, 1
        col = int(board.profile.column_of(position, lane))
        codes: list[np.ndarray] = []
        for level in (0.0, level_a):
            reading(fabric, columns(col))
            fabric.connect_source(PadSource(ROW, "current", level, 5.0))
            holds = fabric.now + 20_000 + np.arange(200) * 100
            input_v = board.analogue.sample(np.full(200, position), holds, board.noise)
            codes.append(board.adcs.convert(input_v, np.arange(2), board.noise).mean(axis=0))
        lsb_a = 2 * 0.9 / 2**14 / 20e3
        fell = (codes[0] - codes[1]) * lsb_a
        assert fell[lane] == pytest.approx(level_a, abs=0.3 * lsb_a)
        assert abs(fell[1 - lane]) < 0.3 * lsb_a

    def test_cells_that_an_instrument_drives_are_under_bias(self) -> None:
        board, fabric, _ = emulate(**QUIET)
        reading(fabric, columns(3))
        assert not board.analogue.bias_v().any()
        fabric.connect_source(PadSource(ROW, "voltage", 0.7, 1e-3, lead_ohm=0.0))
        assert board.peak_bias_v == pytest.approx(0.7)
        assert board.analogue.bias_v()[ROW, 3] == pytest.approx(0.7)
        assert np.count_nonzero(board.analogue.bias_v()) == 1
        fabric.connect_source(None)
        assert not board.analogue.bias_v().any()

    def test_a_row_that_two_drive_is_under_the_bias_of_its_pad(self) -> None:
        board, fabric, _ = emulate(**QUIET)
        fabric.connect_source(PadSource(ROW, "voltage", 0.1, 1.0, lead_ohm=0.0))
        reading(fabric, columns(3), position=np.array([ROW, -1, -1]), row_v=np.full(3, 2.1))
        assert board.analogue.bias_v()[ROW, 3] == pytest.approx(0.1)
        assert board.analogue.peak_bias_v() == pytest.approx(0.1)

    def test_the_watchdog_closes_the_columns_but_not_the_instrument(self) -> None:
        board, fabric, _ = emulate(**QUIET)
        source = PadSource(ROW, "current", 1e-6, 0.5)
        reading(fabric, columns(3))
        fabric.connect_source(source)
        fabric._make_safe()
        assert board.analogue.inputs.source == source
        assert board.is_safe
        assert board.analogue.pad is not None
        assert board.analogue.pad.in_compliance

    def test_an_instrument_outlives_the_boards_supply(self) -> None:
        board, fabric, _ = emulate(**QUIET)
        fabric.connect_source(source := PadSource(ROW, "current", 1e-6, 0.5))
        board.power_down()
        assert board.analogue.inputs.source == source

    def test_a_pulse_reaches_the_cells_that_an_instrument_holds(self) -> None:
        board, fabric, _ = emulate(**QUIET)
        before_s = board.array.chip.conductance_s.copy()
        reading(fabric, columns(3), source_lines=SourceLines.GROUND, gate_on=False)
        fabric.connect_source(PadSource(ROW, "voltage", 1.4, 1e-2))
        board.analogue.pulse(1e-6)
        changed = board.array.chip.conductance_s != before_s
        assert changed[ROW, 3]
        assert changed.sum() == 1

    def test_the_multimeter_reads_what_the_dac_gives(self) -> None:
        board, fabric, _ = emulate(**QUIET)
        bench = Bench(fabric, row=ROW)
        levels_v = np.array([1.7, 1.8, 1.9])
        position = np.full(3, -1)
        position[0] = ROW % 8
        reading(fabric, columns(), gate_on=False, row_v=levels_v, position=position)
        assert bench.pad_v() == pytest.approx(1.7, abs=1e-12)
        assert bench.pad_ohm() == pytest.approx(float(board.array.chip.r_on_ohm[0]), rel=1e-6)

    def test_an_open_pad_has_no_resistance(self) -> None:
        _, fabric, _ = emulate(**QUIET)
        reading(fabric, columns())
        assert Bench(fabric, row=ROW).pad_ohm() is None

    def test_the_power_supply_feeds_the_dacs_if_it_is_wired_so(self) -> None:
        board, fabric, _ = emulate(**QUIET)
        bench = Bench(fabric, feeds_dacs=True)
        dac = board.dacs[0]
        assert dac.vdd_v == 0.0
        bench.supply(5.25, 1.0)
        assert dac.vdd_v == 5.25
        dac.frame(0x08_8000 if dac.width == 24 else 0, 24)
        level_v = dac.outputs_v[0]
        assert level_v > 1.0
        bench.supply(4.7, 1.0)
        assert not dac.outputs_v.any(), "the reference has no headroom"
        assert board.analogue.inputs.row_v[0] == 0.0, "and the array sees it at once"
        bench.disconnect()
        assert dac.outputs_v[0] == level_v

    def test_a_supply_at_its_current_limit_sags(self) -> None:
        _, fabric, _ = emulate(**QUIET)
        point = Bench(fabric, feeds_dacs=True).supply(5.0, 1e-3)
        assert point.limited
        assert point.voltage_v < 1.0
        assert point.current_a == 1e-3

    def test_a_supply_that_is_not_wired_does_nothing(self) -> None:
        board, fabric, _ = emulate(**QUIET)
        Bench(fabric).supply(1.0, 1.0)
        assert board.dacs[0].vdd_v == 5.25


# Instruments over VISA

Open = Callable[[str], Any]


@pytest.fixture
def manager() -> Iterator[Any]:
    found = pyvisa.ResourceManager("@py")
    yield found
    found.close()


def _twin(seed: int = 17, **settings: Any) -> BenchTwin:
    emulator = {"smu_row": ROW, **settings}
    sim = SimSettings.model_validate({"rows": 24, "cols": 16, "mux": {"width": 8}, **QUIET})
    fabric = EmulatedFabric(EmulatedBoard(profile(), sim, seed, EmulatorSettings(**emulator)))
    return BenchTwin(fabric, serial=True)


@pytest.fixture
def twin() -> Iterator[BenchTwin]:
    with _twin() as found:
        yield found


@pytest.fixture
def connect(manager: Any, twin: BenchTwin) -> Open:
    return lambda role: _connect(manager, twin, role)


def _connect(manager: Any, twin: BenchTwin, role: str) -> Any:
    return manager.open_resource(
        twin.resources[role], read_termination="\n", write_termination="\n", timeout=5000, open_timeout=2000
    )


def source_current(smu: Any, level_a: float, compliance_v: float) -> None:
    for command in (
        ":SOUR:FUNC CURR",
        f":SOUR:CURR:VLIM {compliance_v:g}",
        ':SENS:FUNC "VOLT"',
        f":SOUR:CURR:LEV {level_a:g}",
        "OUTPUT ON",
    ):
        smu.write(command)


def measured(smu: Any) -> tuple[float, float]:
    source, sensed = smu.query(':READ? "defbuffer1", SOUR, READ').split(",")
    return float(source), float(sensed)


def errors(instrument: Any) -> list[int]:
    found: list[int] = []
    while number := int(instrument.query("SYST:ERR?").split(",")[0]):
        found.append(number)
    return found


class TestOverVisa:
    @pytest.mark.parametrize("role", ["smu", "smu-serial"])
    def test_a_current_through_a_cell_reads_as_its_resistance(self, twin: BenchTwin, connect: Open, role: str) -> None:
        with connect(role) as smu:
            assert "MODEL 2450" in smu.query("*IDN?")
            reading(twin.fabric, columns(3))
            source_current(smu, 2e-6, 1.0)
            level_a, voltage_v = measured(smu)
            assert errors(smu) == []
        array = twin.fabric.board.array
        cell_s = array.currents(np.array([0]), np.array([ROW]), np.array([0.2]), columns(3)).current_a[3] / 0.2
        assert level_a == pytest.approx(2e-6, rel=1e-3)
        # The mux is part of what it reads, and not of what the SMU drives.
        cell_ohm = 1 / cell_s - float(array.chip.r_on_ohm[0])
        assert voltage_v / level_a == pytest.approx(cell_ohm, rel=1e-3)

    def test_both_ports_lead_to_one_instrument(self, connect: Open) -> None:
        with connect("smu") as one, connect("smu-serial") as other:
            one.write(":SOUR:CURR:LEV 3e-6")
            one.query("*OPC?")
            assert float(other.query(":SOUR:CURR:LEV?")) == pytest.approx(3e-6)

    def test_compliance_is_told(self, twin: BenchTwin, connect: Open) -> None:
        with connect("smu") as smu:
            reading(twin.fabric, columns())
            source_current(smu, 1e-6, 0.3)
            assert smu.query(":SOUR:CURR:VLIM:TRIP?") == "1"
            assert measured(smu)[1] == pytest.approx(0.3, abs=1e-3)
            reading(twin.fabric, columns(3))
            assert smu.query(":SOUR:CURR:VLIM:TRIP?") == "0"

    def test_output_off_and_reset_take_the_source_off(self, twin: BenchTwin, connect: Open) -> None:
        with connect("smu") as smu:
            for off in ("OUTPUT OFF", "*RST", ":SOUR:FUNC VOLT"):
                source_current(smu, 1e-6, 0.3)
                assert smu.query("OUTPUT?") == "1"
                assert twin.fabric.board.analogue.inputs.source is not None
                smu.write(off)
                assert smu.query("OUTP?") == "0"
                assert twin.fabric.board.analogue.inputs.source is None

    def test_nothing_is_measured_with_the_output_off(self, connect: Open) -> None:
        with connect("smu") as smu:
            smu.write(":READ?")
            assert errors(smu) == [-221]

    def test_the_multimeter_reads_pad_and_channels(self, twin: BenchTwin, connect: Open) -> None:
        reading(twin.fabric, columns(), gate_on=False, row_v=np.array([1.7, 1.8, 1.9]), position=np.array([5, -1, -1]))
        for dac in twin.fabric.board.dacs:
            dac.frame(0x0A_4000, 24)
        with connect("dmm") as dmm:
            assert float(dmm.query(":READ?")) == pytest.approx(1.7, abs=1e-4)
            for command in (":ROUT:OPEN:ALL", ':SENS:FUNC "VOLT:DC", (@3)', ":ROUT:CLOS (@3)"):
                dmm.write(command)
            assert float(dmm.query(":READ?")) == pytest.approx(twin.fabric.board.dacs[0].outputs_v[2], abs=1e-4)
            dmm.write(":ROUT:CLOS (@4)")
            assert errors(dmm) == [-222], "the board has three channels"
            dmm.write(":ROUT:OPEN:ALL")
            dmm.write(':SENS:FUNC "FRES"')
            r_on_ohm = float(twin.fabric.board.array.chip.r_on_ohm[0])
            assert float(dmm.query(":READ?")) == pytest.approx(r_on_ohm, rel=1e-3)

    def test_the_power_supply_feeds_the_dacs(self, manager: Any) -> None:
        with _twin(psu_feeds_dacs=True) as twin:
            dac = twin.fabric.board.dacs[0]
            assert dac.vdd_v == 0.0
            with _connect(manager, twin, "psu") as psu:
                for command in ("CURR 0.1, (@1)", "VOLT 5.25, (@1)", "OUTPut 1, (@1)"):
                    psu.write(command)
                assert psu.query("OUTPut? (@1)") == "1"
                assert dac.vdd_v == pytest.approx(5.25, abs=2e-3)
                assert float(psu.query("MEASure:VOLTage? (@1)")) == pytest.approx(5.25, abs=2e-3)
                assert psu.query("STAT:QUES:INST:ISUM1:COND?") == "2"
                psu.write("CURR 0.001, (@1)")
                assert psu.query("STAT:QUES:INST:ISUM1:COND?") == "1"
                psu.write("OUTPut 0, (@1)")
                assert psu.query("STAT:QUES:INST:ISUM1:COND?") == "0"
                assert dac.vdd_v == 0.0

    def test_readings_repeat_with_the_seed(self, manager: Any) -> None:
        found = []
        for seed in (1, 1, 2):
            with _twin(seed) as twin, _connect(manager, twin, "smu") as smu:
                reading(twin.fabric, columns())
                source_current(smu, 1e-6, 0.3)
                found.append([measured(smu)[1] for _ in range(5)])
        assert found[0] == found[1]
        assert found[0] != found[2]
        assert len(set(found[0])) == 5

    def test_a_board_that_runs_programs_and_an_instrument_take_turns(self, manager: Any) -> None:
        _, fabric, backend = emulate(**QUIET)
        mask = np.zeros((24, 16), np.bool_)
        mask[3:5] = True
        with BenchTwin(fabric) as twin, open_session(backend) as session, _connect(manager, twin, "smu") as smu:
            quiet_a = session.read(mask, 0.2, n_average=20)
            stop = threading.Event()

            def ask() -> None:
                for compliance_v in itertools.cycle((0.1, 0.2)):
                    source_current(smu, 1e-6, compliance_v)
                    measured(smu)
                    smu.write("OUTPUT OFF")
                    if stop.is_set():
                        return

            thread = threading.Thread(target=ask)
            thread.start()
            try:
                # The SMU is at row 0, which these reads do not connect: their own cells show what they showed.
                busy_a = [session.read(mask, 0.2, n_average=20) for _ in range(10)]
            finally:
                stop.set()
                thread.join()
            assert errors(smu) == []
        own = np.median(np.abs(np.array(busy_a) - quiet_a), axis=0)
        assert own.max() < 0.5 * quiet_a.mean()


class TestThroughTheBackend:
    """Instruments at the pad, and the board's own view of what they do."""

    def test_each_column_senses_the_sourced_current_by_its_own_gain(self, manager: Any) -> None:
        _, fabric, backend = emulate(**QUIET, tia={"gain_sigma": 0.01}, adc={"gain_sigma": 0.0})
        cols = np.arange(16)
        with BenchTwin(fabric) as twin, open_session(backend), _connect(manager, twin, "smu") as smu:
            idle_a = backend.sense(cols, n_average=50)
            source_current(smu, 4e-6, 3.0)
            smu.query("*OPC?")
            found_a = backend.sense(cols, n_average=50)
            measured(smu)
        gain = 1.0 + fabric.board.array.chip.tias.gain_error
        lsb_a = 2 * 0.9 / 2**14 / 20e3
        np.testing.assert_allclose(idle_a, 0.0, atol=lsb_a)
        np.testing.assert_allclose(found_a, 4e-6 * gain, atol=0.6 * lsb_a)
        assert np.ptp(gain) > 0.02

    def test_an_open_column_shows_nothing_and_trips_the_source(self, manager: Any) -> None:
        with _twin(dead_columns=0.125) as twin, _connect(manager, twin, "smu") as smu:
            backend = BoardBackend(twin.fabric, profile(), name="emulator")
            with open_session(backend):
                source_current(smu, 4e-6, 3.0)
                smu.query("*OPC?")
                found_a = backend.sense(np.arange(16), n_average=20)
        dead = twin.fabric.board.array.chip.faults.open_cols
        assert dead.sum() == 2
        assert np.abs(found_a[dead]).max() < 20e-9
        assert found_a[~dead].min() > 3.9e-6

    @pytest.mark.parametrize("voltage_v", [1.6, 1.75, 2.0])
    def test_the_multimeter_reads_the_level_of_a_row_that_is_held(self, manager: Any, voltage_v: float) -> None:
        with _twin() as twin, _connect(manager, twin, "dmm") as dmm:
            backend = BoardBackend(twin.fabric, profile(), name="emulator")
            with open_session(backend):
                backend.hold_row(ROW, voltage_v)
                true_v = float(twin.fabric.board.dac_levels()["row_v"][0])  # type: ignore[index]
                assert float(dmm.query(":READ?")) == pytest.approx(true_v, abs=0.05e-3)
                assert true_v == pytest.approx(voltage_v, abs=10e-3)
                assert true_v != pytest.approx(voltage_v, abs=0.05e-3)
                for command in (':SENS:FUNC "VOLT:DC", (@1)', ":ROUT:CLOS (@1)"):
                    dmm.write(command)
                assert float(dmm.query(":READ?")) == pytest.approx(true_v, abs=0.05e-3)


class TestFaults:
    """Each once at a socket; what a driver makes of it is its own matter."""

    def test_a_silent_instrument_answers_nothing_and_does_nothing(self, twin: BenchTwin, connect: Open) -> None:
        for role in ("smu", "smu-serial"):
            with connect(role) as smu:
                twin.ports[role].silent = True
                smu.timeout = 100
                with pytest.raises(pyvisa.errors.VisaIOError, match="VI_ERROR_TMO"):
                    smu.query("*IDN?")
                smu.write(":SOUR:CURR:LEV 1e-6")
        assert twin.smu.handle(":SOUR:CURR:LEV?") == "0.000000E+00"

    @pytest.mark.parametrize("role", ["smu", "smu-serial"])
    def test_a_connection_breaks_after_so_many_commands(self, twin: BenchTwin, connect: Open, role: str) -> None:
        smu = connect(role)
        twin.ports[role].disconnect_after = 2
        assert smu.query("*OPC?") == "1"
        smu.write("*CLS")
        smu.timeout = 300
        with pytest.raises((OSError, pyvisa.errors.VisaIOError)):
            smu.query("*IDN?")
        smu.close()

    def test_who_lost_the_connection_may_come_back(self, twin: BenchTwin, connect: Open) -> None:
        with connect("smu") as smu:
            source_current(smu, 1e-6, 0.3)
            assert smu.query("*OPC?") == "1"
            twin.ports["smu"].disconnect_after = 0
            smu.timeout = 300
            with pytest.raises((OSError, pyvisa.errors.VisaIOError)):
                smu.query("*IDN?")
        with connect("smu") as smu:
            assert smu.query("OUTPUT?") == "1", "a broken connection does not switch an instrument off"

    def test_one_answer_is_garbled(self, twin: BenchTwin, connect: Open) -> None:
        twin.ports["dmm"].garble_after = 1
        with connect("dmm") as dmm:
            float(dmm.query(":READ?"))
            with pytest.raises(ValueError, match="could not convert"):
                float(dmm.query(":READ?"))
            float(dmm.query(":READ?"))

    def test_nobody_is_let_in(self, twin: BenchTwin, connect: Open) -> None:
        smu = connect("smu")
        smu.timeout = 300
        twin.refuse("smu")
        with pytest.raises((OSError, pyvisa.errors.VisaIOError)):
            smu.query("*IDN?")
        smu.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(twin.resources["smu"].split("::")[2])))
        with connect("dmm") as dmm:
            assert "DMM6500" in dmm.query("*IDN?")

    def test_commands_are_refused_into_the_error_queue(self, twin: BenchTwin, connect: Open) -> None:
        twin.smu.refuse_commands = 1
        with connect("smu") as smu:
            smu.write("OUTPUT ON")
            assert errors(smu) == [-200]
            assert smu.query("OUTPUT?") == "0"
            smu.write("OUTPUT ON")
            assert smu.query("OUTPUT?") == "1"

    def test_compliance_trips_early(self, twin: BenchTwin, connect: Open) -> None:
        reading(twin.fabric, columns(3))
        with connect("smu") as smu:
            source_current(smu, 2e-6, 1.0)
            assert smu.query(":SOUR:CURR:VLIM:TRIP?") == "0"
            twin.smu.trips_at = 0.01
            assert smu.query(":SOUR:CURR:VLIM:TRIP?") == "1"
            assert measured(smu)[1] == pytest.approx(0.01, abs=1e-4)


class TestLifetime:
    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors by /proc")
    def test_nothing_is_left_behind(self, manager: Any) -> None:
        threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
        twin = _twin()
        resource = twin.resources["smu"]
        smu = _connect(manager, twin, "smu")
        source_current(smu, 1e-6, 0.3)
        smu.query("*OPC?")
        twin.close()
        smu.close()
        twin.close()
        assert twin.fabric.board.analogue.inputs.source is None
        assert threading.active_count() == threads
        assert len(os.listdir("/proc/self/fd")) == descriptors
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(resource.split("::")[2])))

    def test_ports_follow_each_other_and_a_taken_one_is_named(self, twin: BenchTwin) -> None:
        taken = int(twin.resources["smu"].split("::")[2])
        _, fabric, _ = emulate(**QUIET)
        with pytest.raises(ConfigError, match=f"cannot listen at port {taken}: Address already in use"):
            BenchTwin(fabric, first_port=taken)

    def test_the_daemon_serves_it_beside_the_board(self, manager: Any, spawn: Any, tmp_path: Path) -> None:
        daemon = spawn(
            *("-c", "from hil.cli import main; main()", "serve", "--backend", "emulator", "--twin", 0),
            *("--set", "board.profile=tiny-8x8", "--listen", "tcp://127.0.0.1:0"),
            *("--state", tmp_path, "--keys", tmp_path / "keys"),
        )
        lines = [daemon.stdout.readline() for _ in range(4)]
        url = re.search(r"tcp://\S+", lines[0])
        resources = dict(re.findall(r"serving (\w+) of the bench twin at (\S+)", "".join(lines)))
        assert set(resources) == {"smu", "dmm", "psu"}
        assert url is not None
        with open_session(RemoteBackend(url[0])) as session:
            with manager.open_resource(resources["dmm"], read_termination="\n", write_termination="\n") as dmm:
                # No INH on this board: an idle row is at the common level.
                assert float(dmm.query(":READ?")) == pytest.approx(1.6, abs=10e-3)
            assert session.info.shape == (8, 8)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(10) == 128 + signal.SIGTERM, daemon.stderr.read()

    def test_only_an_emulated_board_has_a_twin(self) -> None:
        with twin_for(emulated_backend("tiny-8x8", SimSettings(), 0)) as twin:
            assert set(twin.resources) == {"smu", "dmm", "psu"}
        with pytest.raises(ConfigError, match="'sim' is none"):
            twin_for(SimBackend(SimSettings(rows=8, cols=8), seed=0))
