"""The safety session: limits before anything reaches a backend, zero bias and close at every exit."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hil.backend import BackendInfo, Capabilities, CrossbarBackend, Limits, Pulse, PulseReport, RowInput, Telemetry
from hil.bench_access import BenchAccess
from hil.errors import CapabilityError, DeviceError, LimitError, TransportError
from hil.session import Session, Terminated, describe, open_session, tighten
from hil.spikes import PackedSpikes
from hil.tile import Tile, differential_tile

SHAPE = (8, 8)
BOARD = Limits(v_read_max_v=0.5, v_pulse_max_v=5.0, v_gate_max_v=4.0, pulse_width_max_s=1e-3, pulses_per_cell_max=5)
TILE = differential_tile(4, 2)
ALL = np.ones(SHAPE, np.bool_)
PULSE = Pulse("form", voltage_v=3.0, v_gate_v=1.5, width_s=1e-6)


class MockBackend(CrossbarBackend, BenchAccess):
    """Records every call; raises at the calls whose index is in `fails`, or whose name is in `always`."""

    def __init__(
        self, fails: frozenset[int] = frozenset(), always: frozenset[str] = frozenset(), **capable: Any
    ) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.fails, self.always = fails, always
        self.capabilities = Capabilities(frozenset({"form", "set"}), **{"analogue_rows": True, **capable})

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def _call(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, arguments))
        if len(self.calls) - 1 in self.fails or name in self.always:
            raise TransportError(f"link broke in {name}", fix="plug it in")

    @property
    def info(self) -> BackendInfo:
        return BackendInfo("mock", SHAPE, {}, self.capabilities, BOARD)

    def open(self) -> None:
        self._call("open")

    def close(self) -> None:
        self._call("close")

    def make_safe(self) -> None:
        self._call("make_safe")

    def vmm(
        self, x: RowInput, tile: Tile, v_read_v: float, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        self._call("vmm", x, tile, v_read_v)
        return np.zeros((len(x), tile.n_outputs), np.float32)

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        self._call("read", mask, v_read_v, n_average)
        return np.zeros(int(mask.sum()))

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        self._call("pulse", mask, pulse)
        return PulseReport(int(mask.sum()), pulse, pulse)

    def telemetry(self) -> Telemetry:
        self._call("telemetry")
        return Telemetry()

    def hold_row(self, row: int, voltage_v: float) -> None:
        self._call("hold_row", row, voltage_v)

    def sense(
        self,
        cols: NDArray[np.intp],
        *,
        n_average: int = 1,
        row: int | None = None,
        v_read_v: float = 0.0,
        settle_s: float | None = None,
    ) -> NDArray[np.float64]:
        self._call("sense", cols.tolist(), n_average, row, v_read_v, settle_s)
        return np.zeros(len(cols))


def bits(n: int = 3) -> NDArray[np.uint8]:
    return np.ones((n, TILE.n_rows), np.uint8)


def use(session: Session) -> None:
    """One call of every kind."""
    session.vmm(bits(), TILE, 0.2)
    session.read(ALL, 0.2, n_average=2)
    session.pulse(ALL, PULSE)
    session.telemetry()


def assert_safe(backend: MockBackend) -> None:
    assert backend.names[-2:] == ["make_safe", "close"]


@pytest.fixture(autouse=True)
def _handlers_given_back() -> Any:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


class TestEnd:
    def test_return(self) -> None:
        backend = MockBackend()
        with open_session(backend) as session:
            use(session)
        assert backend.names == ["open", "vmm", "read", "pulse", "telemetry", "make_safe", "close"]

    @pytest.mark.parametrize(
        "error", [ValueError("x"), LimitError("x", fix="y"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()]
    )
    def test_exception(self, error: BaseException) -> None:
        backend = MockBackend()
        with pytest.raises(type(error)) as caught, open_session(backend):
            raise error
        assert caught.value is error
        assert backend.names == ["open", "make_safe", "close"]

    @pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
    def test_signal(self, number: signal.Signals, kind: type[BaseException]) -> None:
        backend = MockBackend()
        with pytest.raises(kind) as caught, open_session(backend):
            signal.raise_signal(number)
        assert_safe(backend)
        if isinstance(caught.value, Terminated):
            assert caught.value.code == 128 + signal.SIGTERM

    def test_fault_at_every_call(self) -> None:
        """Whatever call fails, `make_safe` is called afterwards and then `close`."""
        n_calls = 7
        for index in range(n_calls):
            backend = MockBackend(frozenset({index}))
            with (
                pytest.raises(TransportError) if index != 5 else nullcontext(),
                open_session(backend) as session,
            ):
                use(session)
            assert "make_safe" in backend.names[index:] or index == n_calls - 1
            assert backend.names[-1] == "close"
            assert "close" not in backend.names[:-1]

    def test_fault_at_every_two_calls(self) -> None:
        for first in range(5):
            for second in range(first + 1, first + 4):
                backend = MockBackend(frozenset({first, second}))
                with pytest.raises(TransportError), open_session(backend) as session:
                    use(session)
                tail = backend.names[first + 1 :]
                assert tail in (["make_safe", "close"], ["make_safe", "make_safe", "close"])

    def test_make_safe_is_tried_again(self) -> None:
        for n_failures in (1, 2):
            backend = MockBackend(frozenset(range(1, 1 + n_failures)))
            with open_session(backend):
                pass
            assert backend.names == ["open", *["make_safe"] * (n_failures + 1), "close"]

    def test_make_safe_never_works(self) -> None:
        backend = MockBackend(always=frozenset({"make_safe"}))
        words = r"MAY STILL BE UNDER BIAS.*3 times.*link broke in make_safe.*supply off"
        with pytest.raises(DeviceError, match=words) as caught, open_session(backend):
            pass
        assert backend.names == ["open", "make_safe", "make_safe", "make_safe", "close"]
        assert "before that" not in str(caught.value)

    @pytest.mark.parametrize("error", [ValueError("lost"), KeyboardInterrupt()])
    def test_neither_close_nor_the_first_error_hides_that(self, error: BaseException) -> None:
        backend = MockBackend(always=frozenset({"make_safe", "close"}))
        words = f"UNDER BIAS.*before that: {type(error).__name__}: "
        with pytest.raises(DeviceError, match=words) as caught, open_session(backend):
            raise error
        assert backend.names[-1] == "close"
        assert isinstance(caught.value.__cause__, TransportError)

    def test_open_fails(self) -> None:
        backend = MockBackend(frozenset({0}))
        with pytest.raises(TransportError, match="link broke in open"), open_session(backend):
            pytest.fail("the block must not run")
        assert backend.names == ["open", "make_safe", "close"]

    def test_open_and_make_safe_fail(self) -> None:
        backend = MockBackend(always=frozenset({"open", "make_safe"}))
        with pytest.raises(DeviceError, match=r"UNDER BIAS.*before that: link broke in open"), open_session(backend):
            pytest.fail("the block must not run")
        assert backend.names == ["open", "make_safe", "make_safe", "make_safe", "close"]

    def test_close_fails(self) -> None:
        backend = MockBackend(always=frozenset({"close"}))
        with pytest.raises(TransportError, match="link broke in close"), open_session(backend):
            pass
        assert_safe(backend)

    def test_sessions_inside_one_another(self) -> None:
        outer, inner = MockBackend(), MockBackend()
        with pytest.raises(KeyboardInterrupt), open_session(outer), open_session(inner):
            signal.raise_signal(signal.SIGINT)
        assert_safe(outer)
        assert_safe(inner)

    def test_not_in_the_main_thread(self) -> None:
        backend, seen = MockBackend(), list[Any]()

        def work() -> None:
            seen.append(signal.getsignal(signal.SIGINT))
            with suppress(ValueError), open_session(backend) as session:
                seen.append(signal.getsignal(signal.SIGINT))
                use(session)
                raise ValueError

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(5)
        assert seen[0] is seen[1]
        assert_safe(backend)

    def test_describe(self) -> None:
        assert describe(LimitError("a", fix="b")) == "a. Fix: b."
        assert describe(ValueError("a")) == "ValueError: a"


class SlowSafe(MockBackend):
    """Something happens while the array is being made safe."""

    def __init__(self, during: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self.during = during

    def make_safe(self) -> None:
        super().make_safe()
        self.during()
        self.calls.append(("made safe", ()))


class TestSecondSignal:
    """A signal on the way to zero bias is noted, and acted on when the array is safe."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_during_make_safe(self, number: signal.Signals) -> None:
        backend = SlowSafe(lambda: signal.raise_signal(number))
        with pytest.raises(KeyboardInterrupt), open_session(backend):
            signal.raise_signal(signal.SIGINT)
        assert backend.names == ["open", "make_safe", "made safe", "close"]

    @pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
    def test_first_signal_during_make_safe_still_counts(
        self, number: signal.Signals, kind: type[BaseException]
    ) -> None:
        backend = SlowSafe(lambda: signal.raise_signal(number))
        with pytest.raises(kind), open_session(backend):
            pass
        assert backend.names == ["open", "make_safe", "made safe", "close"]
        backend = SlowSafe(lambda: signal.raise_signal(number))
        with pytest.raises(kind) as caught, open_session(backend):
            raise ValueError("first")
        assert isinstance(caught.value.__cause__, ValueError)

    @pytest.mark.parametrize("first", [None, ValueError("x"), KeyboardInterrupt()], ids=["return", "error", "signal"])
    def test_at_every_line(self, first: BaseException | None) -> None:
        """Ctrl-C at every line that runs between entering and leaving; in real runs these gaps are microseconds."""
        before = sys.gettrace()
        index = 0
        while True:
            index += 1
            backend, seen, inside = MockBackend(), 0, list[bool]()

            def trace(frame: FrameType, event: str, argument: object, stop: int = index) -> Any:
                nonlocal seen
                seen += 1
                if seen == stop:
                    signal.raise_signal(signal.SIGINT)
                return trace

            try:
                sys.settrace(trace)
                with open_session(backend):
                    inside.append(True)
                    if first is not None:
                        raise first
            except (KeyboardInterrupt, ValueError):
                pass
            finally:
                sys.settrace(before)
            if "open" in backend.names:
                assert backend.names == ["open", "make_safe", "close"], index
            else:
                assert "vmm" not in backend.names
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, index
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, index
            if seen < index:
                break
        assert index > 100

    @pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)]
    )
    def test_real_signals(self, spawn: Any, number: signal.Signals, code: int) -> None:
        process = spawn("-c", PROGRAM)
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
        assert process.stdout.readline() == "making safe\n"
        for _ in range(2):
            process.send_signal(number)
            time.sleep(0.05)
        output, _ = process.communicate(timeout=20)
        assert output == "made safe\nclosed\n"
        assert process.returncode == code


PROGRAM = """
import time
from hil.backend import BackendInfo, Capabilities, CrossbarBackend, Limits
from hil.session import open_session

class Slow(CrossbarBackend):
    info = BackendInfo("slow", (8, 8), {}, Capabilities(), Limits(1.0, 1.0, 1.0, 1.0, 1))
    open = telemetry = read = vmm = pulse = lambda self: None
    def make_safe(self):
        print("making safe", flush=True)
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            time.sleep(0.01)
        print("made safe", flush=True)
    def close(self):
        print("closed", flush=True)

with open_session(Slow()):
    print("running", flush=True)
    time.sleep(60)
"""


class TestLimits:
    @pytest.mark.parametrize("field", [item.name for item in dataclasses.fields(Limits)])
    def test_above_the_board(self, field: str) -> None:
        for value in (getattr(BOARD, field) * 1.001 + 1e-9, float("nan"), float("inf"), -1):
            backend = MockBackend()
            words = rf"limit {field} = .* is outside 0 to .*Fix: set {field} to at most"
            with pytest.raises(LimitError, match=words):
                open_session(backend, dataclasses.replace(BOARD, **{field: value}))
            assert backend.calls == []

    def test_equal_and_tighter_limits(self) -> None:
        tight = Limits(0.1, 1.0, 1.0, 1e-6, 1)
        assert tighten(BOARD, None) is BOARD
        assert tighten(BOARD, BOARD) is BOARD
        assert tighten(BOARD, tight) is tight
        with open_session(backend := MockBackend(), tight) as session:
            assert session.info == dataclasses.replace(backend.info, limits=tight)
            with pytest.raises(LimitError, match=r"0\.2 V is outside 0 to 0\.1 V"):
                session.vmm(bits(), TILE, 0.2)
        assert backend.names == ["open", "make_safe", "close"]

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda s: s.vmm(bits(), TILE, 0.51), r"read voltage 0\.51 V is outside 0 to 0\.5 V"),
            (lambda s: s.vmm(bits(), TILE, -0.1), "read voltage"),
            (lambda s: s.vmm(bits(), TILE, float("nan")), "read voltage nan"),
            (lambda s: s.vmm(bits(), differential_tile(9, 2), 0.2), "tile row 8 is outside"),
            (lambda s: s.vmm(bits(), differential_tile(4, 5), 0.2), "tile column 9 is outside"),
            (lambda s: s.vmm(np.ones((3, 5)), TILE, 0.2), r"shape \(3, 5\), the tile has 4 rows"),
            (lambda s: s.vmm(np.ones(4), TILE, 0.2), r"shape \(4,\), the tile has 4 rows"),
            (lambda s: s.vmm(PackedSpikes.pack(np.ones((3, 5))), TILE, 0.2), r"shape \(3, 5\), the tile has 4"),
            (lambda s: s.vmm(PackedSpikes(np.zeros((3, 2), np.uint64), 4), TILE, 0.2), "packed row input has words"),
            (lambda s: s.vmm(PackedSpikes(np.zeros((3, 1), np.int64), 4), TILE, 0.2), "packed row input has words"),  # type: ignore[arg-type]
            (lambda s: s.vmm(PackedSpikes(np.zeros(3, np.uint64), 4), TILE, 0.2), "the tile has 4 rows"),
            (lambda s: s.vmm(PackedSpikes(np.full((3, 1), 16, np.uint64), 4), TILE, 0.2), "at or above its 4 rows"),
            (lambda s: s.vmm(np.full((1, 4), 1.01), TILE, 0.2), r"levels run from 1\.01 to 1\.01, outside 0 to 1"),
            (lambda s: s.vmm(np.array([[0, 0, 0, -1e-9]]), TILE, 0.2), "outside 0 to 1"),
            (lambda s: s.vmm(np.array([[0, 0, 0, np.nan]]), TILE, 0.2), "outside 0 to 1"),
            (lambda s: s.vmm(np.full((1, 4), 2, np.uint8), TILE, 0.2), "outside 0 to 1"),
            (lambda s: s.vmm(np.full((1, 4), -1), TILE, 0.2), "outside 0 to 1"),
            (lambda s: s.vmm(np.ones((1, 4), complex), TILE, 0.2), "row input has type complex128"),
            (lambda s: s.read(ALL, 0.6), r"read voltage 0\.6 V"),
            (lambda s: s.read(ALL, 0.2, n_average=0), "n_average = 0 is not a whole number"),
            (lambda s: s.read(ALL[:4], 0.2), r"cell mask has shape \(4, 8\).*bool array of shape \(8, 8\)"),
            (lambda s: s.read(ALL.astype(np.uint8), 0.2), "cell mask .* type uint8"),
            (lambda s: s.pulse(ALL.T[:3], PULSE), "cell mask has shape"),
            (lambda s: s.pulse(ALL, dataclasses.replace(PULSE, voltage_v=5.1)), r"pulse voltage 5\.1 V is outside"),
            (lambda s: s.pulse(ALL, dataclasses.replace(PULSE, voltage_v=-3.0)), "pulse voltage -3 V"),
            (lambda s: s.pulse(ALL, dataclasses.replace(PULSE, v_gate_v=4.1)), r"gate voltage 4\.1 V is outside"),
            (lambda s: s.pulse(ALL, dataclasses.replace(PULSE, width_s=2e-3)), r"width 0\.002 s is outside"),
            (lambda s: s.pulse(ALL, dataclasses.replace(PULSE, width_s=0.0)), "width 0 s"),
            (lambda s: s.pulse(ALL, dataclasses.replace(PULSE, width_s=float("nan"))), "width nan s"),
        ],
    )  # fmt: skip
    def test_refused_before_the_backend(self, call: Callable[[Session], Any], message: str) -> None:
        with open_session(backend := MockBackend()) as session:
            with pytest.raises(LimitError, match=message) as caught:
                call(session)
            assert caught.value.fix
        assert backend.names == ["open", "make_safe", "close"]

    def test_capabilities(self) -> None:
        with open_session(backend := MockBackend(analogue_rows=False)) as session:
            with pytest.raises(CapabilityError, match="'mock' drives rows on or off only"):
                session.vmm(np.full((1, 4), 0.5), TILE, 0.2)
            with pytest.raises(CapabilityError, match="'mock' takes NumPy arrays and packed spikes, not Tensor"):
                session.vmm(torch.ones(1, 4), TILE, 0.2)  # type: ignore[arg-type]
            with pytest.raises(CapabilityError, match=r"has no 'reset' pulse; it has: \['form', 'set'\]"):
                session.pulse(ALL, dataclasses.replace(PULSE, kind="reset"))
        assert backend.names == ["open", "make_safe", "close"]
        with open_session(backend := MockBackend(tensors=True)) as session:
            session.vmm(torch.ones(1, 4), TILE, 0.2)  # type: ignore[arg-type]
        assert "vmm" in backend.names

    @pytest.mark.parametrize(
        "x",
        [
            bits(),
            bits().astype(np.bool_),
            bits().astype(np.float32),
            bits() * 0.5,
            np.zeros((0, 4)),
            PackedSpikes.pack(bits()),
        ],
    )
    def test_what_is_allowed_arrives_unchanged(self, x: RowInput) -> None:
        with open_session(backend := MockBackend()) as session:
            session.vmm(x, TILE, 0.5)
        name, (got, tile, v_read_v) = backend.calls[1]
        assert (name, tile, v_read_v) == ("vmm", TILE, 0.5)
        assert got is x

    def test_pulses_are_counted_per_cell(self) -> None:
        one = np.zeros(SHAPE, np.bool_)
        one[2, 3] = True
        with open_session(backend := MockBackend()) as session:
            for _ in range(BOARD.pulses_per_cell_max):
                session.pulse(one, PULSE)
            for mask in (one, ALL):
                with pytest.raises(LimitError, match="a cell of the mask has had 5 pulses"):
                    session.pulse(mask, PULSE)
            session.pulse(~one, PULSE)
            session.pulse(np.zeros(SHAPE, np.bool_), PULSE)
        assert backend.names.count("pulse") == BOARD.pulses_per_cell_max + 2

    def test_pulses_are_counted_before_they_are_applied(self) -> None:
        backend = MockBackend(always=frozenset({"pulse"}))
        with open_session(backend) as session:
            for _ in range(BOARD.pulses_per_cell_max):
                with pytest.raises(TransportError):
                    session.pulse(ALL, PULSE)
            with pytest.raises(LimitError, match="5 pulses"):
                session.pulse(ALL, PULSE)
        assert backend.names.count("pulse") == BOARD.pulses_per_cell_max

    def test_a_refused_pulse_is_not_counted(self) -> None:
        with open_session(MockBackend()) as session:
            for _ in range(10):
                with pytest.raises(LimitError):
                    session.pulse(ALL, dataclasses.replace(PULSE, voltage_v=9.0))
            session.pulse(ALL, PULSE)

    @given(st.data())
    def test_nothing_above_a_limit_reaches_a_backend(self, data: st.DataObject) -> None:
        number = st.one_of(st.floats(), st.floats(0, 1), st.floats(0, 6), st.sampled_from([0.0, 0.5, 5.0, 4.0, 1e-3]))
        tight = Limits(
            *(data.draw(st.floats(0, ceiling)) for ceiling in dataclasses.astuple(BOARD)[:4]),
            pulses_per_cell_max=data.draw(st.integers(0, BOARD.pulses_per_cell_max)),
        )  # fmt: skip
        backend = MockBackend()
        with open_session(backend, tight) as session:
            for _ in range(data.draw(st.integers(1, 8))):
                kind = data.draw(st.sampled_from(["vmm", "read", "pulse"]))
                with suppress(LimitError):
                    if kind == "vmm":
                        session.vmm(np.full((1, 4), data.draw(number)), TILE, data.draw(number))
                    elif kind == "read":
                        session.read(ALL, data.draw(number), n_average=data.draw(st.integers(-1, 2)))
                    else:
                        session.pulse(ALL, Pulse("set", data.draw(number), data.draw(number), data.draw(number)))
        pulses = 0
        for name, arguments in backend.calls:
            if name == "vmm":
                x, _, v_read_v = arguments
                assert 0 <= x.min() <= x.max() <= 1
                assert 0 <= v_read_v <= tight.v_read_max_v
            elif name == "read":
                assert 0 <= arguments[1] <= tight.v_read_max_v
                assert arguments[2] >= 1
            elif name == "pulse":
                pulses += 1
                pulse = arguments[1]
                assert 0 <= pulse.voltage_v <= tight.v_pulse_max_v
                assert 0 <= pulse.v_gate_v <= tight.v_gate_max_v
                assert 0 < pulse.width_s <= tight.pulse_width_max_s
        assert pulses <= tight.pulses_per_cell_max
        assert_safe(backend)


class TestBenchAccess:
    COLS = np.array([0, 7])

    def test_what_passes_the_checks_reaches_the_backend_as_it_is(self) -> None:
        backend = MockBackend(bench=True)
        with open_session(backend) as session:
            session.hold_row(7, 1.6)
            session.sense(self.COLS)
            found = session.sense(self.COLS, n_average=3, row=2, v_read_v=-0.5, settle_s=2e-6)
        assert found.shape == (2,)
        assert backend.calls[1:4] == [
            ("hold_row", (7, 1.6)),
            ("sense", ([0, 7], 1, None, 0.0, None)),
            ("sense", ([0, 7], 3, 2, -0.5, 2e-6)),
        ]

    @pytest.mark.parametrize(
        "call", [lambda s: s.hold_row(0, 1.0), lambda s: s.sense(np.array([0]))], ids=["hold_row", "sense"]
    )
    def test_a_backend_without_it_is_refused_before_anything(self, call: Callable[[Session], Any]) -> None:
        backend = MockBackend()
        with pytest.raises(CapabilityError, match="backend 'mock' gives bench instruments no access"):
            call(Session(backend))
        assert not backend.calls

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (lambda s: s.hold_row(8, 1.0), "row 8 is outside 0 to 7"),
            (lambda s: s.hold_row(-1, 1.0), "row -1 is outside 0 to 7"),
            (lambda s: s.hold_row(0.5, 1.0), "a row is named by float64"),
            (lambda s: s.hold_row(0, -0.1), r"held level -0\.1 V is outside 0 to 5 V"),
            (lambda s: s.hold_row(0, 5.1), r"held level 5\.1 V"),
            (lambda s: s.hold_row(0, float("nan")), "held level nan V"),
            (lambda s: s.sense(np.array([0, 8])), "column 8 is outside 0 to 7"),
            (lambda s: s.sense(np.array([-1])), "column -1 is outside 0 to 7"),
            (lambda s: s.sense(np.zeros((1, 1), np.intp)), r"columns to sense have shape \(1, 1\)"),
            (lambda s: s.sense(np.ones(8, np.bool_)), "a column is named by bool"),
            (lambda s: s.sense(np.array([0]), row=8), "row 8 is outside 0 to 7"),
            (lambda s: s.sense(np.array([0]), row=0, v_read_v=0.6), r"read voltage 0\.6 V is outside 0 to 0\.5 V"),
            (lambda s: s.sense(np.array([0]), row=0, v_read_v=-0.6), "read voltage"),
            (lambda s: s.sense(np.array([0]), row=0, v_read_v=float("nan")), "read voltage nan V"),
            (lambda s: s.sense(np.array([0]), n_average=0), "n_average = 0"),
            (lambda s: s.sense(np.array([0]), n_average=2.0), r"n_average = 2\.0"),
            (lambda s: s.sense(np.array([0]), settle_s=-1e-9), "settling time -1e-09 s"),
            (lambda s: s.sense(np.array([0]), settle_s=0.2), r"settling time 0\.2 s is outside 0 to 0\.1 s"),
            (lambda s: s.sense(np.array([0]), settle_s=float("nan")), "settling time nan s"),
        ],
    )
    def test_what_is_outside_the_limits_never_reaches_the_backend(
        self, call: Callable[[Session], Any], text: str
    ) -> None:
        backend = MockBackend(bench=True)
        with pytest.raises(LimitError, match=text):
            call(Session(backend))
        assert not backend.calls

    def test_the_sessions_own_read_limit_counts(self) -> None:
        limits = dataclasses.replace(BOARD, v_read_max_v=0.1)
        with pytest.raises(LimitError, match=r"outside 0 to 0\.1 V"):
            Session(MockBackend(bench=True), limits).sense(self.COLS, row=0, v_read_v=0.2)
