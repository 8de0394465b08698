"""Instruments through pyvisa-py: sockets that refuse, break and babble, a serial port, and what `hil doctor` says."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from fake_instrument import ANSWERS, FakeInstrument

import drivers.instruments
from drivers.instruments import open_instrument, open_link
from drivers.instruments.visa import LIBRARY_VARIABLE
from hil.checks import Finding
from hil.cli import doctor
from hil.errors import ConfigError, DeviceError, ProtocolError, TransportError

#: replies of a peer: what it sends back for a line, or None to hang up
Replies = Callable[[str], "bytes | None"]


def talk(read: Callable[[], bytes], write: Callable[[bytes], Any], replies: Replies) -> None:
    pending = b""
    while data := read():
        pending += data
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            reply = replies(line.decode().strip())
            if reply is None:
                return
            write(reply)


@contextmanager
def instrument_at_a_socket(replies: Replies) -> Iterator[str]:
    """Its resource."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with closing(peer):
                talk(lambda: peer.recv(4096), peer.sendall, replies)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"TCPIP::127.0.0.1::{server.getsockname()[1]}::SOCKET"
        thread.join(10)
        assert not thread.is_alive()


def smu_replies(change: Callable[[str, bytes], bytes | None] = lambda line, reply: reply) -> Replies:
    """Answers of an SMU, with a change."""
    fake = FakeInstrument("smu")

    def reply(line: str) -> bytes | None:
        fake.write(line)
        return change(line, fake.read().encode() if "?" in line else b"")

    return reply


def measure(resource: str) -> None:
    with open_instrument("smu", resource, timeout_s=0.5) as smu:
        smu.source_current(1e-5, compliance_v=0.5)
        smu.output_on()
        smu.measure()


def test_an_instrument_behind_a_socket_measures() -> None:
    heard: list[str] = []

    def hear(line: str, reply: bytes) -> bytes:
        heard.append(line)
        return reply

    with instrument_at_a_socket(smu_replies(hear)) as resource:
        measure(resource)
    assert heard[-2:] == ["OUTPUT OFF", "OUTPUT?"]


def test_a_refused_connection_names_the_resource() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(TransportError, match=f"the smu at TCPIP::127.0.0.1::{port}::SOCKET.*refused"):
        measure(f"TCPIP::127.0.0.1::{port}::SOCKET")


def test_an_instrument_that_hangs_up_while_it_measures_may_still_be_on() -> None:
    with instrument_at_a_socket(smu_replies(lambda line, reply: None if "READ?" in line else reply)) as resource:
        with pytest.raises(DeviceError, match=r"THE SMU MAY STILL BE ON.*before that: ") as caught:
            measure(resource)
        assert isinstance(caught.value.__cause__, TransportError)


def test_a_measurement_that_is_not_answered_ends_with_the_output_off() -> None:
    heard: list[str] = []

    def mute(line: str, reply: bytes) -> bytes:
        heard.append(line)
        return b"" if "READ?" in line else reply

    with (
        instrument_at_a_socket(smu_replies(mute)) as resource,
        pytest.raises(TransportError, match=r"no answer from the smu at TCPIP"),
    ):
        measure(resource)
    assert heard[-2:] == ["OUTPUT OFF", "OUTPUT?"]


@pytest.mark.parametrize("babble", [b"\xff\xfe\xfd\n", b"garbage\n", b"1e-5\n", b"9.9E37,9.9E37\n"])
def test_a_garbled_measurement_ends_with_the_output_off(babble: bytes) -> None:
    heard: list[str] = []

    def garble(line: str, reply: bytes) -> bytes:
        heard.append(line)
        return babble if "READ?" in line else reply

    with (
        instrument_at_a_socket(smu_replies(garble)) as resource,
        pytest.raises(ProtocolError, match="the smu at TCPIP"),
    ):
        measure(resource)
    assert heard[-2:] == ["OUTPUT OFF", "OUTPUT?"]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")
def test_an_instrument_behind_a_serial_port_answers() -> None:
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    answers = {question: answer.encode() + b"\r\n" for question, answer in ANSWERS["smu"].items()}
    thread = threading.Thread(
        target=talk,
        args=(lambda: os.read(ours, 100), lambda data: os.write(ours, data), lambda line: answers.get(line)),
        daemon=True,
    )
    thread.start()
    link = open_link(f"ASRL{name}::INSTR", "the smu", timeout_s=2.0)
    try:
        assert link.ask("*IDN?") == ANSWERS["smu"]["*IDN?"]
        link.write("hang up")
    finally:
        thread.join(10)
        link.close()
        os.close(ours)
        os.close(theirs)


def test_a_visa_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, "/nowhere/libvisa.so")
    with pytest.raises(ConfigError, match=rf"'/nowhere/libvisa.so' cannot be loaded.*{LIBRARY_VARIABLE}"):
        open_link("GPIB0::1::INSTR", "the smu")


def doctors_findings(monkeypatch: pytest.MonkeyPatch, found: Callable[[], Any]) -> list[Finding]:
    monkeypatch.setattr(drivers.instruments, "discover", found)
    return doctor.examine_instruments()


def test_doctor_says_how_to_use_what_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = ANSWERS["smu"]["*IDN?"]
    found = [drivers.instruments.Found("USB0::1::INSTR", identity), drivers.instruments.Found("ASRL1::INSTR", "")]
    smu, unknown = doctors_findings(monkeypatch, lambda: found)
    assert smu == ("works", "instrument USB0::1::INSTR", identity, "use it with --instrument smu=USB0::1::INSTR")
    assert unknown == ("works", "instrument ASRL1::INSTR", "not asked, or silent", "")


def test_doctor_says_that_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = doctors_findings(monkeypatch, lambda: [])
    assert (finding.state, finding.what) == ("works", "instruments")
    assert "plain socket" in finding.detail


@pytest.mark.parametrize("error", [TransportError("VISA is down", fix="repair it"), RuntimeError("VISA is down")])
def test_doctor_survives_visa(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail() -> Any:
        raise error

    (finding,) = doctors_findings(monkeypatch, fail)
    assert finding.state == "missing"
    assert "VISA is down" in finding.detail


def test_doctor_names_the_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "pymeasure" else "1.0")
    (finding,) = doctor.examine_instruments()
    assert finding == ("missing", "instruments", "no package pymeasure", 'pip install "crossbar-hil[lab]"')
