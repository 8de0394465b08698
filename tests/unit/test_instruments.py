"""Instruments end with their output off, or say by name that it may still be on."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from fake_instrument import ANSWERS, IS_ON, OFF, ON, FakeInstrument, opened

from drivers.instruments.link import Link
from hil.errors import ConfigError, DeviceError, HilError, LimitError, ProtocolError, TransportError
from hil.session import Terminated, is_known_safe, note_safe


def use(instrument: Any) -> None:
    """Everything that calibration does with a source."""
    if hasattr(instrument, "source_current"):
        instrument.source_current(1e-5, compliance_v=0.5)
    else:
        instrument.set_voltage(5.0, current_limit_a=0.1)
    instrument.output_on()
    instrument.measure()
    instrument.output_off()
    instrument.output_on()
    instrument.measure()


def calls_of(role: str) -> int:
    fake = FakeInstrument(role)
    with opened(role, fake) as instrument:
        use(instrument)
    return fake.calls


def run(role: str, fake: FakeInstrument) -> BaseException | None:
    try:
        with opened(role, fake) as instrument:
            use(instrument)
    except (HilError, KeyboardInterrupt, Terminated) as error:
        return error
    return None


def last_switch(fake: FakeInstrument, role: str) -> str | None:
    return next((command for command in reversed(fake.sent) if command in (ON[role], OFF[role])), None)


def garbled(fake: FakeInstrument, kind: str) -> None:
    fake.garbage = "\x15#?,"


def overflow(fake: FakeInstrument, kind: str) -> None:
    fake.garbage = "9.9E37,9.9E37"


def gone(fake: FakeInstrument, kind: str) -> None:
    fake.is_gone = True


def silent_once(fake: FakeInstrument, kind: str) -> None:
    raise TimeoutError("VI_ERROR_TMO: Timeout expired")


def interrupted(fake: FakeInstrument, kind: str) -> None:
    signal.raise_signal(signal.SIGINT)


def terminated(fake: FakeInstrument, kind: str) -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def sigterm_raises() -> Iterator[None]:
    """SIGTERM as the command line handles it."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise Terminated(128 + number)

    before = signal.signal(signal.SIGTERM, handle)
    yield
    signal.signal(signal.SIGTERM, before)


#: what ends the block
CAUSES: dict[Any, Any] = {
    silent_once: TransportError,
    garbled: (ProtocolError, ConfigError),
    overflow: (ProtocolError, ConfigError, DeviceError),
    interrupted: KeyboardInterrupt,
    terminated: Terminated,
}


@pytest.mark.parametrize("role", ["smu", "psu"])
def test_without_a_fault_the_output_ends_off_and_the_connection_closed(role: str) -> None:
    fake = FakeInstrument(role)
    assert run(role, fake) is None
    assert not fake.is_on
    assert fake.closed
    assert fake.sent[-2:] == [OFF[role], IS_ON[role]]


@pytest.mark.parametrize("role", ["smu", "psu"])
@pytest.mark.usefixtures("sigterm_raises")
@pytest.mark.parametrize("fault", list(CAUSES), ids=lambda f: f.__name__)
def test_a_fault_at_any_call_ends_with_the_output_off(role: str, fault: Any) -> None:
    told = 0
    for at in range(calls_of(role)):
        fake = FakeInstrument(role, fault, at)
        error = run(role, fake)
        assert fake.closed, at
        switch = last_switch(fake, role)
        # None where it failed before anything was switched.
        assert switch in (OFF[role], None), at
        assert not (fake.is_on and switch), at
        assert error is None or isinstance(error, CAUSES[fault]), (at, error)
        # A fault is told, but where the output is switched off, which is tried again.
        told += error is not None
    assert told > 20


@pytest.mark.parametrize("role", ["smu", "psu"])
def test_an_instrument_that_is_gone_is_reported_as_possibly_on(role: str) -> None:
    reported = 0
    for at in range(calls_of(role)):
        fake = FakeInstrument(role, gone, at)
        error = run(role, fake)
        assert fake.closed, at
        if not any(command in (ON[role], OFF[role]) for command in fake.sent) and isinstance(error, TransportError):
            # Before it was known what it is, nothing was switched.
            assert len(fake.sent) <= len(ANSWERS[role]), at
            continue
        assert isinstance(error, DeviceError), (at, error)
        assert "MAY STILL BE ON" in error.what
        assert "FAKE::INSTR" in error.what
        assert error.fix == "switch it off by hand"
        reported += 1
    assert reported > 20


def lose(fake: FakeInstrument, error: BaseException) -> None:
    """An error ends the block when the instrument is gone already."""
    with opened("smu", fake):
        fake.is_gone = True
        raise error


def test_the_error_that_came_first_is_kept() -> None:
    first = RuntimeError("cells on fire")
    with pytest.raises(DeviceError, match=r"THE SMU MAY STILL BE ON.*before that: RuntimeError: cells") as caught:
        lose(FakeInstrument("smu"), first)
    assert caught.value.__cause__ is first


def test_that_the_array_is_safe_is_not_forgotten() -> None:
    stop = KeyboardInterrupt()
    note_safe(stop)
    with pytest.raises(DeviceError) as caught:
        lose(FakeInstrument("smu"), stop)
    assert is_known_safe(caught.value)


def test_one_that_says_it_is_on_after_it_was_switched_off_is_reported() -> None:
    fake = FakeInstrument("smu")
    context = opened("smu", fake)
    instrument = context.__enter__()
    fake.write = lambda message: fake._queue.append("1") if message == "OUTPUT?" else fake.sent.append(message)  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match="THE SMU MAY STILL BE ON") as caught:
        instrument.close()
    assert fake.sent.count("OUTPUT OFF") >= 3
    assert caught.value.fix == "switch it off by hand"
    instrument.close()
    context.__exit__(None, None, None)


def test_an_answer_that_nobody_read_is_not_taken_for_the_state_of_the_output() -> None:
    fake = FakeInstrument("smu")
    with opened("smu", fake) as smu:
        smu.source_current(1e-5, compliance_v=0.5)
        smu.output_on()
        # Interrupted between question and answer; the answer "0" would pass for "output off".
        fake.write(":SOUR:CURR:VLIM:TRIP?")
        smu._link._unread = 1
        before = fake.write

        def refuses_to_go_off_once(message: str) -> None:
            fake.write = before  # type: ignore[method-assign]
            fake.sent.append(message)

        fake.write = refuses_to_go_off_once  # type: ignore[method-assign]
        smu.output_off()
        assert not fake.is_on


def test_an_unread_answer_that_is_no_text_does_not_hide_the_next_one() -> None:
    fake = FakeInstrument("smu")
    link = Link(fake, "the smu")
    link.write("*LANG?")
    read = fake.read

    def babble() -> str:
        fake.read = read  # type: ignore[method-assign]
        return read().encode("utf-16").decode("ascii")

    fake.read = babble  # type: ignore[method-assign]
    assert link.ask("*IDN?") == ANSWERS["smu"]["*IDN?"]


def test_ctrl_c_waits_until_the_output_is_off() -> None:
    fake = FakeInstrument("smu", lambda fake, kind: signal.raise_signal(signal.SIGINT), at=calls_of("smu") - 2)
    with pytest.raises(KeyboardInterrupt), opened("smu", fake) as smu:
        use(smu)
    assert not fake.is_on
    assert fake.sent[-2:] == ["OUTPUT OFF", "OUTPUT?"]


def test_signal_handlers_are_as_before() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    run("smu", FakeInstrument("smu"))
    run("smu", FakeInstrument("smu", gone, 20))
    assert [signal.getsignal(number) for number in numbers] == before


def test_an_output_needs_a_limit() -> None:
    fake = FakeInstrument("smu")
    with opened("smu", fake) as smu, pytest.raises(LimitError, match="no limit yet"):
        smu.output_on()
    assert "OUTPUT ON" not in fake.sent


@pytest.mark.parametrize("role", ["smu", "psu"])
def test_a_limit_that_was_refused_takes_the_earlier_one_with_it(role: str) -> None:
    fake = FakeInstrument(role)
    with opened(role, fake) as source:
        use(source)
        source.output_off()
        no_error, fake.answers["SYST:ERR?"] = fake.answers["SYST:ERR?"], '-222,"Data out of range"'
        with pytest.raises(DeviceError, match="Data out of range"):
            use(source)
        fake.answers["SYST:ERR?"] = no_error
        with pytest.raises(LimitError, match="no limit yet"):
            source.output_on()


def test_an_output_that_does_not_come_on_is_an_error() -> None:
    fake = FakeInstrument("smu")
    with opened("smu", fake) as smu:
        smu.source_current(1e-5, compliance_v=0.5)
        write = fake.write
        fake.write = lambda message: None if message == "OUTPUT ON" else write(message)  # type: ignore[method-assign]
        with pytest.raises(DeviceError, match="does not switch its output on"):
            smu.output_on()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda smu: smu.source_current(1.2, compliance_v=0.5), "current 1.2 A .* outside -1.05 to 1.05 A"),
        (lambda smu: smu.source_current(1e-5, compliance_v=0.0), "compliance 0 V .* outside 0.02 to 210 V"),
        (lambda smu: smu.source_current(1e-5, compliance_v=float("nan")), "compliance nan V"),
        (lambda smu: smu.source_current(float("nan"), compliance_v=0.5), "current nan A"),
        (lambda smu: smu.source_voltage(-211, compliance_a=1e-3), "voltage -211 V .* outside -210 to 210 V"),
        (lambda smu: smu.source_voltage(0.2, compliance_a=2.0), "compliance 2 A .* outside 1e-09 to 1.05 A"),
        (lambda smu: smu.measure(), "with its output on only"),
    ],
)
def test_what_an_smu_does_not_have_is_refused_before_it_is_sent(call: Any, message: str) -> None:
    fake = FakeInstrument("smu")
    with opened("smu", fake) as smu:
        sent = len(fake.sent)
        with pytest.raises(LimitError, match=message):
            call(smu)
        assert len(fake.sent) == sent


@pytest.mark.parametrize(("voltage_v", "current_limit_a"), [(6.1, 0.1), (-0.1, 0.1), (5.0, 5.1), (5.0, 0.0)])
def test_what_a_supply_does_not_have_is_refused_before_it_is_sent(voltage_v: float, current_limit_a: float) -> None:
    fake = FakeInstrument("psu")
    with opened("psu", fake) as psu:
        sent = len(fake.sent)
        with pytest.raises(LimitError):
            psu.set_voltage(voltage_v, current_limit_a=current_limit_a)
        assert len(fake.sent) == sent


def measure(fake: FakeInstrument) -> None:
    with opened("smu", fake) as smu:
        smu.source_current(1e-4, compliance_v=0.2)
        smu.output_on()
        smu.measure_in_control()


def test_a_compliance_trip_is_an_error_where_the_caller_cannot_use_it() -> None:
    fake = FakeInstrument("smu")
    fake.answers[":SOUR:CURR:VLIM:TRIP?"] = "1"
    with pytest.raises(DeviceError, match=r"held back by its limit at 0\.2 V and 1e-05 A"):
        measure(fake)
    assert not fake.is_on


@pytest.mark.parametrize("answer", ["", "1.0E-05", "1.0E-05,2.0E-01,3", "abc,2.0E-01", "nan,0.2", "1e-5,-9.9E37"])
def test_a_reading_that_is_none_is_named(answer: str) -> None:
    fake = FakeInstrument("smu")
    fake.answers[':READ? "defbuffer1", SOUR, READ'] = answer
    with pytest.raises(ProtocolError, match=r"the smu at FAKE::INSTR answered .* to :READ\?"):
        measure(fake)
    assert not fake.is_on


def test_an_error_queue_that_never_ends_is_an_error() -> None:
    fake = FakeInstrument("smu")
    fake.answers["SYST:ERR?"] = '-350,"Queue overflow"'
    with pytest.raises(DeviceError, match="Queue overflow"), opened("smu", fake):
        pass


SCRIPT = """
import sys, time
sys.path.insert(0, "tests")
import fake_instrument as t

class Told(t.FakeInstrument):
    def write(self, message):
        super().write(message)
        if message in ("OUTPUT ON", "OUTPUT OFF"):
            print(message, flush=True)

manager = t.opened("smu", Told("smu"))
smu = manager.__enter__()
smu.source_current(1e-5, compliance_v=0.5)
smu.output_on()
{end}
"""


def outputs(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=60)
    return out.splitlines()


def test_a_program_that_ends_without_leaving_the_block_switches_off(spawn) -> None:
    assert outputs(spawn("-c", SCRIPT.format(end="raise SystemExit(3)")))[-2:] == ["OUTPUT ON", "OUTPUT OFF"]


def test_sigterm_switches_off(spawn) -> None:
    process = spawn("-c", SCRIPT.format(end="time.sleep(60)"))
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(3)]
    assert lines[-1] == "OUTPUT ON"
    process.send_signal(signal.SIGTERM)
    assert outputs(process) == ["OUTPUT OFF"]
    assert process.returncode == 143


def test_instruments_in_a_stack_are_all_closed() -> None:
    smu, psu = FakeInstrument("smu"), FakeInstrument("psu")

    def lose_the_supply() -> None:
        with opened("smu", smu) as first, opened("psu", psu) as second:
            use(first)
            use(second)
            psu.is_gone = True

    with pytest.raises(DeviceError, match="THE POWER SUPPLY MAY STILL BE ON"):
        lose_the_supply()
    assert not smu.is_on
