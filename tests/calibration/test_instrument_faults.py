"""Instruments that fail during a whole procedure: a named error, outputs off, the array safe, finished parts kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from boards import INDEPENDENT, as_toml

from calibration import run, tia
from calibration.run import Wishes, tables
from experiments.calibration.run import Job, execute, start
from firmware_bridge.emulator import emulated_backend
from firmware_bridge.emulator.twin import BenchTwin, twin_for
from firmware_bridge.emulator_settings import EmulatorSettings
from hil.calibration_file import Calibration
from hil.errors import CapabilityError, ConfigError, DeviceError, HilError, ProtocolError, TransportError
from hil.runfile import RunFile, open_run
from sim_backend.settings import SimSettings

pytest.importorskip("pyvisa_py", reason="needs the extra 'lab'")

import drivers.instruments.scpi as scpi
from drivers.instruments import open_instrument

#: bit line that the instruments are on
PAD_ROW = 3
#: which instrument measures which part
PART = {"smu": "tia", "dmm": "dac"}
#: opening an instrument takes fewer messages than this
OPENED = 12

Fault = Callable[[BenchTwin, str, int], None]


def disconnect(twin: BenchTwin, role: str, when: int) -> None:
    twin.ports[role].disconnect_after = when


def garble(twin: BenchTwin, role: str, when: int) -> None:
    twin.ports[role].garble_after = when


def fall_silent(twin: BenchTwin, role: str, when: int) -> None:
    port, left = twin.ports[role], iter(range(when))

    def handle(line: str, handle: Callable[[str], str | None] = port.instrument.handle) -> str | None:
        port.silent = port.silent or next(left, None) is None
        return None if port.silent else handle(line)

    port.instrument.handle = handle  # type: ignore[method-assign]


def refuse_commands(twin: BenchTwin, role: str, when: int) -> None:
    """From now on it takes none that changes anything."""
    instrument, left = twin.ports[role].instrument, iter(range(when))

    def handle(line: str, handle: Callable[[str], str | None] = instrument.handle) -> str | None:
        # What switches off is taken.
        instrument.refuse_commands = int(next(left, None) is None and "OFF" not in line)
        return handle(line)

    instrument.handle = handle  # type: ignore[method-assign]


@dataclass
class Ended:
    """How a run with a fault ended.

    Attributes:
        error: that ended it.
        output: of the source-measure unit, when the bench was taken away.
        run: its file.
        calibration: as it lies in its file.
        is_safe: of the board.
    """

    error: BaseException | None
    output: bool
    run: Any
    calibration: Calibration
    is_safe: bool

    @property
    def parts(self) -> list[str]:
        return list(self.calibration.parts)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a profile and a calibration file with part zero."""
    folder = tmp_path_factory.mktemp("instruments")
    (folder / "board.toml").write_text(as_toml(INDEPENDENT))
    _measure(folder, "zero", None, None)
    return folder


@pytest.fixture
def measure(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Measures the part of an instrument after part zero, with a fault: `measure(role, fault, when)`."""
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    # So that what is lost is soon given up.
    monkeypatch.setattr(scpi, "_OFF_PATIENCE_S", 0.05)
    step = run.Step(
        ("zero",),
        lambda bench, wishes: tia.measure(bench, tia.TiaOptions(smu_row=wishes.pad_row, n_average=4, n_levels=3)),
    )
    monkeypatch.setattr(run, "STEPS", {**run.STEPS, "tia": step})

    def measured(role: str, fault: Fault | None = None, when: int = 0) -> Ended:
        return _measure(tmp_path, PART[role], role, fault and (lambda twin: fault(twin, role, when)))

    return measured


def _measure(folder: Path, part: str, role: str | None, fault: Callable[[BenchTwin], None] | None) -> Ended:
    bench = EmulatorSettings(smu_row=PAD_ROW)
    backend = emulated_backend(str(folder / "board.toml"), SimSettings(), 7, emulator=bench)
    twins: list[BenchTwin] = []

    def connect(stack: ExitStack) -> dict[str, Any]:
        if role is None:
            return {}
        twin = twin_for(backend)
        twins.append(twin)
        stack.callback(twin.close)
        # What the unit does when nobody holds on to it any more.
        stack.callback(lambda: outputs.append(twin.smu.output))
        if fault is not None:
            fault(twin)
        return {role: stack.enter_context(open_instrument(role, twin.resources[role], timeout_s=0.1))}

    outputs: list[bool] = []
    file = folder / "board.h5"
    job = Job(
        wanted=(part,),
        everything=False,
        again=False,
        file=file,
        v_read_v=0.2,
        seed=0,
        limits=backend.info.limits,
        wishes=Wishes(pad_row=PAD_ROW),
        allow=(),
        max_age_days=30.0,
    )
    run_file: RunFile = start(folder, "calibrate", backend, {}, backend.info.identity, 0, tables(backend.info.shape))
    error: BaseException | None = None
    try:
        execute(job, backend, run_file, connect)
    except HilError as found:
        error = found
    return Ended(
        error, outputs[0] if outputs else False, open_run(run_file.path), Calibration.load(file),
        backend.fabric.board.is_safe,
    )  # fmt: skip


def assert_ended_safely(ended: Ended) -> None:
    assert ended.error is not None
    assert ended.is_safe, "the array is at zero bias"
    assert not ended.output or "THE SMU MAY STILL BE ON" in str(ended.error)
    assert ended.run.status == "failed"
    assert str(ended.error) in ended.run.cause
    assert ended.parts == ["zero"], "what was measured before is kept, and nothing of what was not finished"


@pytest.mark.parametrize("when", [1, OPENED + 15])
@pytest.mark.parametrize(
    ("fault", "errors"),
    [
        (disconnect, (TransportError, DeviceError)),
        (garble, (ProtocolError, ConfigError)),
        (fall_silent, (TransportError, DeviceError)),
        (refuse_commands, (DeviceError, CapabilityError)),
    ],
)
@pytest.mark.parametrize("role", PART)
def test_a_fault_during_a_procedure_ends_the_run_safely(
    measure: Any, role: str, fault: Fault, errors: tuple[type[Exception], ...], when: int
) -> None:
    # Every other message asks something. A scanner whose first channel is refused counts as none.
    ended = measure(role, fault, {garble: when // 2, refuse_commands: max(when, OPENED + 9)}.get(fault, when))
    assert_ended_safely(ended)
    assert isinstance(ended.error, errors)
    assert f"the {role} at TCPIP" in str(ended.error)


@pytest.mark.parametrize("role", PART)
def test_the_same_command_goes_on_once_the_instrument_works(measure: Any, role: str) -> None:
    assert_ended_safely(measure(role, disconnect, OPENED + 10))
    ended = measure(role)
    assert ended.error is None
    assert ended.parts == ["zero", PART[role]]
    assert ended.run.status == "complete"
    assert not ended.output
    assert ended.is_safe


@pytest.mark.parametrize("role", PART)
def test_an_instrument_that_lets_nobody_in_is_named(measure: Any, role: str) -> None:
    ended = measure(role, lambda twin, role, when: twin.refuse(role))
    assert_ended_safely(ended)
    assert isinstance(ended.error, TransportError)


def test_a_unit_that_its_limit_holds_back_is_an_error_and_no_calibration(measure: Any) -> None:
    def trip(twin: BenchTwin, role: str, when: int) -> None:
        twin.smu.trips_at = 1e-3

    ended = measure("smu", trip)
    assert_ended_safely(ended)
    assert isinstance(ended.error, DeviceError)
    assert "limit" in str(ended.error)
    assert "KEITHLEY" in str(ended.error)


def test_a_channel_that_the_scanner_refuses_once_is_measured_all_the_same(measure: Any) -> None:
    refused: list[str] = []

    def refuse_once(twin: BenchTwin, role: str, when: int) -> None:
        instrument = twin.dmm

        def handle(line: str, handle: Callable[[str], str | None] = instrument.handle) -> str | None:
            if line == ":ROUT:CLOS (@2)" and not refused:
                refused.append(line)
                instrument.refuse_commands = 1
            return handle(line)

        instrument.handle = handle  # type: ignore[method-assign]

    ended = measure("dmm", refuse_once)
    assert refused
    assert ended.error is None
    assert ended.calibration.parts["dac"].findings == ()
    assert ended.calibration.parts["dac"].quantities["row_gain_error"].ok.all()
