"""Shapes of letters, the movement of the pen, and what differs from one example to the next."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.datasets import elastic, handwriting
from experiments.datasets.handwriting import Hand
from experiments.datasets.letter_drawing import BOX_PX, drawn
from experiments.datasets.strokes import PenPath, letter_paths

CASES = ("small", "capital")
STILL = Hand(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
O, I, T = 14, 8, 19  # noqa: E741


@pytest.mark.parametrize("case", CASES)
def test_every_letter_is_in_the_unit_square_and_takes_about_as_long_as_real_ones(case: str) -> None:
    paths = letter_paths(case)
    assert len(paths) == 26
    for path in paths:
        assert -0.02 <= path.points.min() <= path.points.max() <= 1.02
        assert path.time_s[0] == 0.0
        assert (np.diff(path.time_s) > 0).all()
        assert 0.2 < path.time_s[-1] < 1.5
        assert len(path.points) == len(path.time_s) == len(path.stroke) == len(path.down) + 1
    whole_s = np.mean([path.time_s[-1] for path in paths])
    assert whole_s == pytest.approx(60 / 90, abs=0.02) if case == "small" else whole_s < 1.0


def test_the_pen_never_jumps() -> None:
    for path in (*letter_paths("small"), *letter_paths("capital")):
        assert np.linalg.norm(np.diff(path.points, axis=0), axis=1).max() < 0.04


def test_strokes_are_counted_and_the_pen_is_in_the_air_between_them() -> None:
    small = letter_paths("small")
    assert [int(small[letter].stroke[-1]) + 1 for letter in (O, I, T)] == [1, 2, 2]
    assert small[O].down.all()
    in_air = ~small[T].down
    assert 0 < in_air.sum() < len(in_air) / 2
    assert (small[T].stroke[:-1][in_air] < 1).all()
    # a stroke is a whole number, and rises only in the air
    assert (np.diff(small[T].stroke)[small[T].down] == 0).all()


def test_the_pen_rests_at_corners_and_is_slow_in_curves() -> None:
    paths = letter_paths("small")

    def speed(path: PenPath) -> np.ndarray:
        return np.linalg.norm(np.diff(path.points, axis=0), axis=1) / np.diff(path.time_s)

    v = paths[21]
    corner = int(v.points[:, 1].argmin())
    assert speed(v)[corner - 1 : corner + 1].max() < 0.5 * speed(v).max()
    # half of an l's length is straight, the rest is not: the first half takes less than half of the time
    stem = paths[11]
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(stem.points, axis=0), axis=1))])
    assert np.interp(length[-1] / 2, length, stem.time_s) < 0.495 * stem.time_s[-1]


def test_a_hand_without_differences_writes_the_shape() -> None:
    path = letter_paths("capital")[4]
    rng = np.random.default_rng(0)
    made = handwriting.written(path, path.points, STILL, rng, handwriting.slopes(STILL, rng, 3))
    np.testing.assert_allclose(made, np.broadcast_to(path.points, made.shape), atol=1e-12)


def test_each_part_of_a_hand_does_what_its_name_says() -> None:
    path = letter_paths("capital")[19]  # T: a post, then a bar
    rng = np.random.default_rng(1)

    def made(**amounts: float) -> np.ndarray:
        hand = Hand(**{**vars(STILL), **amounts})
        return handwriting.written(path, path.points, hand, rng, handwriting.slopes(hand, rng, 400))

    top, foot = 0, int(path.points[:, 1].argmin())
    slanted = made(slant=0.2)
    assert (slanted[:, top, 0] - slanted[:, foot, 0]).std() == pytest.approx(0.2 * 0.7, rel=0.15)
    np.testing.assert_allclose(slanted[:, :, 1], np.broadcast_to(path.points[:, 1], slanted.shape[:2]), atol=1e-12)
    turned = made(turn_rad=0.1)
    np.testing.assert_allclose(np.linalg.norm(turned[:, top] - turned[:, foot], axis=1), 0.7, rtol=1e-9)
    wide = made(stretch=0.2)
    aspect = np.log(np.ptp(wide[..., 0], axis=1) / np.ptp(wide[..., 1], axis=1))
    assert aspect.std() == pytest.approx(0.2, rel=0.15)
    moved = made(stroke_shift=0.05) - path.points
    post, bar = path.stroke == 0, path.stroke == 1
    np.testing.assert_allclose(np.ptp(moved[:, post], axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.ptp(moved[:, bar], axis=1), 0.0, atol=1e-12)
    assert (moved[:, top] - moved[:, -1]).std() == pytest.approx(0.05 * np.sqrt(2), rel=0.15)
    assert np.linalg.norm(np.diff(moved, axis=1), axis=2).max() < 0.1


def test_elastic_shift_has_its_strength_and_reach() -> None:
    line = np.stack([np.linspace(0.1, 0.9, 41), np.full(41, 0.43)], axis=1)
    shift = elastic.shifted(np.tile(line, (3000, 1, 1)), np.random.default_rng(2), amount=0.05, reach=0.2) - line
    np.testing.assert_allclose(shift.std(axis=0), 0.05, rtol=0.06)
    assert np.abs(shift.mean(axis=0)).max() < 0.005
    alike = [np.corrcoef(shift[:, 0, 0], shift[:, at, 0])[0, 1] for at in (2, 10, 40)]
    assert alike[0] > 0.95
    assert 0.4 < alike[1] < 0.9
    assert abs(alike[2]) < 0.1
    assert abs(np.corrcoef(shift[:, 20, 0], shift[:, 20, 1])[0, 1]) < 0.06


def test_pictures_are_upright_centred_framed_and_as_thick_as_the_pen() -> None:
    path = letter_paths("capital")[11]  # L
    points = np.stack([path.points, 3.0 * path.points + 5.0])
    thin, thick = (drawn(points, path.down, np.full(2, px)).astype(float) for px in (2.0, 3.5))
    np.testing.assert_allclose(thin[0], thin[1], atol=1.0)
    rows, cols = np.nonzero(thin[0] > 127)
    assert rows.max() - rows.min() == pytest.approx(BOX_PX + 2.0, abs=1)
    assert abs(rows.mean() - 13.5) > 1.0  # an L is heavy at its foot
    assert (rows.min() + rows.max()) / 2 == pytest.approx(13.5, abs=0.51)
    assert (cols.min() + cols.max()) / 2 == pytest.approx(13.5, abs=0.51)
    assert thin[0][20:].sum() > 2 * thin[0][:8].sum()
    for picture, px in ((thin[0], 2.0), (thick[0], 3.5)):
        assert picture[10].sum() / 255.0 == pytest.approx(px, rel=0.25)


def test_the_pen_leaves_no_mark_in_the_air() -> None:
    path = letter_paths("small")[I]
    picture = drawn(path.points[None], path.down, np.array([2.0]))[0]
    marked = (picture > 127).any(axis=1)
    between = np.flatnonzero(~marked[np.flatnonzero(marked)[0] : np.flatnonzero(marked)[-1]])
    assert len(between) >= 1  # the dot stands apart
