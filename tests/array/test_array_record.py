"""What a run file says of its cells is what happened, whatever ends the process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cells import FakeCells, fail_at
from hypothesis import given, settings
from hypothesis import strategies as st
from small_arrays import new_run

from experiments.array.bench import Bench, steps
from experiments.array.history import History
from experiments.array.record import Request, pack_mask, unpack_cells
from experiments.array.settings import ReadSettings
from hil.backend import Limits, Pulse
from hil.errors import DataError, DeviceError, LimitError, UncertainError
from hil.runfile import RunFile, open_run
from hil.session import open_session

SHAPE = (4, 11)
PULSE = Pulse("set", 2.0, 1.5, 1e-6)
ALL = np.ones(SHAPE, np.bool_)

masks = st.integers(0, 2**44 - 1).map(
    lambda bits: np.array([bits >> k & 1 for k in range(44)], np.bool_).reshape(SHAPE)
)
actions = st.lists(
    st.tuples(st.sampled_from(("form", "set", "reset", "read", "zero", "wait", "failing")), masks), max_size=12
)


def same(a: History, b: History) -> None:
    """Every attribute, NaN equal to NaN."""
    assert vars(a).keys() == vars(b).keys()
    for name, value in vars(a).items():
        other = vars(b)[name]
        parts = [(value[k], other[k]) for k in value] if isinstance(value, dict) else [(value, other)]
        for left, right in parts:
            if isinstance(left, np.ndarray):
                assert left.dtype == right.dtype, name
                np.testing.assert_array_equal(left, right, err_msg=name)
            else:
                assert repr(left) == repr(right), name


def rebuilt(run_file: RunFile) -> History:
    run_file.flush()
    with open_run(run_file.path) as reader:
        return History.from_run(reader, SHAPE)


def act(bench: Bench, cells: FakeCells, action: str, mask: Any) -> None:
    if action == "wait":
        bench.wait(0.0, "test")
    elif action in ("read", "zero"):
        bench.read(mask, "test", ReadSettings(correction="none" if action == "read" else "zero"))
    elif action == "failing":
        cells.fail = fail_at(cells.calls + 1, DeviceError("broken", fix="mend it"), applied=True)
        bench.read_uncertain()
        if mask.any():
            with pytest.raises(DeviceError):
                bench.pulse(mask, PULSE, "test")
        cells.fail = lambda call, applied: None
    else:
        bench.read_uncertain()
        bench.pulse(mask, Pulse(action, 2.0, 1.5, 1e-6), "test")  # type: ignore[arg-type]


@settings(max_examples=20, deadline=None)
@given(actions, st.integers(1, 50))
def test_a_history_rebuilt_from_the_file_equals_the_one_of_the_process_that_wrote_it(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[str, Any]], cells_per_step: int
) -> None:
    cells = FakeCells(SHAPE)
    with new_run(tmp_path_factory.mktemp("run"), cells) as run_file, open_session(cells) as session:
        bench = Bench(session, run_file, cells_per_step=cells_per_step)
        for action, mask in found:
            # A read of uncertain cells must not run into the failure that is set up for a pulse.
            if action == "failing":
                bench.read_uncertain()
            act(bench, cells, action, mask)
        same(rebuilt(run_file), bench.history)


@given(masks)
def test_a_mask_comes_back_from_its_packed_rows(mask: Any) -> None:
    np.testing.assert_array_equal(unpack_cells(*pack_mask(mask), SHAPE), np.flatnonzero(mask))


@given(masks, st.integers(1, 50))
def test_steps_are_whole_rows_and_every_cell_once(mask: Any, cells_per_step: int) -> None:
    parts = list(steps(mask, cells_per_step))
    np.testing.assert_array_equal(sum((part.astype(int) for part in parts), np.zeros(SHAPE, int)), mask)
    for part in parts:
        assert 0 < part.sum() <= max(cells_per_step, mask.sum(axis=1).max())
        rows = part.any(axis=1)
        np.testing.assert_array_equal(part[rows], mask[rows])


def test_a_pulse_and_its_cells_are_in_the_file_before_it_is_applied(tmp_path: Path) -> None:
    cells = FakeCells(SHAPE)
    seen: list[tuple[int, int, int]] = []
    run_file = new_run(tmp_path, cells)

    def look(call: int, applied: bool) -> None:
        with open_run(run_file.path) as reader:
            seen.append(tuple(reader.row_count(name) for name in ("operations", "masks", "outcomes")))

    with run_file, open_session(cells) as session:
        bench = Bench(session, run_file)
        cells.fail = look
        bench.pulse(ALL, PULSE, "test")
        cells.fail = lambda call, applied: None
        with open_run(run_file.path) as reader:
            assert reader.row_count("outcomes") == 1
    assert seen == [(1, 4, 0), (1, 4, 0)]


def test_a_pulse_that_failed_leaves_its_cells_uncertain_until_they_are_read(make_bench: Callable[..., Bench]) -> None:
    cells = FakeCells(SHAPE, fail=fail_at(1, DeviceError("broken", fix="mend it"), applied=True))
    bench = make_bench(cells)
    half = ALL.copy()
    half[2:] = False
    with pytest.raises(DeviceError):
        bench.pulse(half, PULSE, "test")
    np.testing.assert_array_equal(bench.history.uncertain, half)
    with pytest.raises(UncertainError, match="22 cells"):
        bench.pulse(ALL, PULSE, "test")
    assert cells.pulsed["set"].sum() == 22
    assert bench.read_uncertain() == 22
    assert bench.read_uncertain() == 0
    bench.pulse(ALL, PULSE, "test")
    assert bench.history.pulse_count.max() == 2
    assert bench.history.done_count["set"].max() == 1


def test_a_pulse_whose_mask_is_not_wholly_in_the_file_was_never_applied(tmp_path: Path) -> None:
    cells = FakeCells(SHAPE)
    with new_run(tmp_path, cells) as run_file, open_session(cells) as session:
        bench = Bench(session, run_file)
        bench.pulse(ALL, PULSE, "test")
        rows, cols = pack_mask(ALL)
        run_file.append("masks", op=1, row=rows[:2], cols=cols[:2])
        same_but_next = rebuilt(run_file)
        assert (same_but_next.next_op, len(same_but_next.operations)) == (2, 1)
        operation = bench.history.operations[0].columns() | {"op": 1}
        run_file.append("operations", **operation)
        again = rebuilt(run_file)
    assert again.pulse_count.max() == 1
    assert not again.uncertain.any()


def test_pulses_of_earlier_sessions_count_for_the_ceiling(tmp_path: Path) -> None:
    cells = FakeCells(SHAPE)
    limits = Limits(0.5, 5.0, 5.0, 1e-2, pulses_per_cell_max=2)
    run_file = new_run(tmp_path, cells)
    with open_session(cells, limits) as session:
        bench = Bench(session, run_file)
        bench.pulse(ALL, PULSE, "test")
    run_file.close()
    with open_run(run_file.path) as reader:
        history = History.from_run(reader, SHAPE)
    with RunFile.resume(run_file.path) as again, open_session(cells, limits) as session:
        bench = Bench(session, again, history=history)
        bench.pulse(ALL, PULSE, "test")
        assert bench.pulses_left(100).max() == 0
        with pytest.raises(LimitError, match="has had 2 pulses in this run"):
            bench.pulse(ALL, PULSE, "test")
    assert cells.pulsed["set"].max() == 2


@pytest.mark.parametrize("correction", ["zero", "polarity"])
def test_a_corrected_read_is_free_of_offsets_and_keeps_what_it_used(
    make_bench: Callable[..., Bench], correction: Any
) -> None:
    cells = FakeCells(SHAPE, noise=0.0, offset_a=1e-6)
    bench = make_bench(cells)
    plain = bench.read(ALL, "test")
    np.testing.assert_allclose(plain, cells.true_s + 5e-6)
    corrected = bench.read(ALL, "test", ReadSettings(correction=correction))
    np.testing.assert_allclose(corrected, cells.true_s)
    np.testing.assert_allclose(bench.history.last_conductance_s, cells.true_s, rtol=1e-6)
    assert [operation.voltage_v for operation in bench.history.operations] == [
        0.2, 0.0 if correction == "zero" else -0.2, 0.2
    ]  # fmt: skip
    assert bench.history.n_reads.max() == 2


def test_a_read_gives_nan_outside_the_mask(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeCells(SHAPE))
    mask = np.zeros(SHAPE, np.bool_)
    mask[1, 3] = True
    assert np.argwhere(np.isfinite(bench.read(mask, "test"))).tolist() == [[1, 3]]


def test_the_request_of_a_run_comes_back_and_half_a_request_is_refused(tmp_path: Path) -> None:
    cells = FakeCells(SHAPE)
    mask = np.random.default_rng(1).random(SHAPE) < 0.5
    target_s = np.where(mask, np.float32(3e-6), np.float32(np.nan))
    columns = Request(mask, target_s).columns()
    with new_run(tmp_path, cells) as run_file:
        run_file.append("request", **{name: values[:2] for name, values in columns.items()})
        run_file.flush()
        with open_run(run_file.path) as reader, pytest.raises(DataError, match="before it began"):
            Request.from_run(reader, SHAPE)
        run_file.append("request", **{name: values[2:] for name, values in columns.items()})
        run_file.flush()
        with open_run(run_file.path) as reader:
            found = Request.from_run(reader, SHAPE)
    np.testing.assert_array_equal(found.mask, mask)
    np.testing.assert_array_equal(found.target_s, target_s)
