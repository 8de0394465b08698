"""How a pen moves when it writes a letter: from a shape to points with times.

Between two corners the pen starts and stops with the least jerk (Flash, Hogan 1985,
doi:10.1523/JNEUROSCI.05-07-01688.1985) and slows down in curves by the two-thirds power law, which is bounded on
straight parts (Lacquaniti, Terzuolo, Viviani 1983, doi:10.1016/0001-6918(83)90027-6). Longer runs are written faster,
so that time grows with the root of length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from experiments.datasets.letter_shapes import SHAPES

#: distance of neighbouring points of a path, in heights of the unit square
_STEP = 0.02
# duration of a run as long as the unit square is high: a small letter then takes 0.67 s on the mean, as at the 90
# characters per minute of Willett et al. 2021 (doi:10.1038/s41586-021-03506-2)
_RUN_TIME_S = 0.36
#: radius of the curve below which the pen slows down, in heights of the unit square
_SLOW_RADIUS = 0.15
_FINE = 400


@dataclass(frozen=True)
class PenPath:
    """The movement of a pen tip through one letter, including where it is in the air.

    Attributes:
        points: float64, shape (n, 2): x to the right, y upwards, in the unit square.
        time_s: float64, shape (n,): when the pen is there, rising from 0.
        down: bool, shape (n - 1,): whether the pen touches the paper from one point to the next.
        stroke: float64, shape (n,): number of the stroke; rises from one to the next while the pen is in the air.
    """

    points: NDArray[np.float64]
    time_s: NDArray[np.float64]
    down: NDArray[np.bool_]
    stroke: NDArray[np.float64]


@lru_cache
def letter_paths(case: str) -> tuple[PenPath, ...]:
    """The paths of the 26 letters, "small" or "capital"."""
    return tuple(_path(shape) for shape in SHAPES[case])


def _path(shape: str) -> PenPath:
    points, times_s, down, stroke = [np.zeros((0, 2))], [np.zeros(0)], [np.zeros(0, bool)], [np.zeros(0)]
    now_s = 0.0
    for run, first_stroke, last_stroke in _runs(shape):
        is_down = first_stroke == last_stroke
        position, time_s = _moved(run)
        skip = 1 if now_s > 0.0 else 0  # a run begins where the one before it ends
        points.append(position[skip:])
        times_s.append(now_s + time_s[skip:])
        down.append(np.full(len(position) - 1, is_down))
        stroke.append(np.linspace(first_stroke, last_stroke, len(position))[skip:])
        now_s += float(time_s[-1])
    return PenPath(np.concatenate(points), np.concatenate(times_s), np.concatenate(down), np.concatenate(stroke))


def _runs(shape: str) -> list[tuple[NDArray[np.float64], int, int]]:
    """Each run as its points and the numbers of the strokes it begins and ends in; they differ in the air."""
    runs: list[tuple[NDArray[np.float64], int, int]] = []
    end: NDArray[np.float64] | None = None
    for number, text in enumerate(shape.split("/")):
        for place, part in enumerate(text.split("|")):
            points = np.array([[float(value) for value in point.split(",")] for point in part.split()]) / 100.0
            if end is not None and place > 0:
                points = np.concatenate([end[None], points])
            elif end is not None:
                runs.append((np.stack([end, points[0]]), number - 1, number))
            runs.append((points, number, number))
            end = points[-1]
    return runs


def _moved(knots: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points at equal distances on the smooth curve through `knots`, and when the pen is at each."""
    # knots weighted by the root of their distance keep the curve free of loops where distances differ
    u = np.concatenate([[0.0], np.cumsum(np.sqrt(np.linalg.norm(np.diff(knots, axis=0), axis=1)))])
    fine = CubicSpline(u, knots, bc_type="natural")(np.linspace(0.0, u[-1], _FINE))
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    length = along[-1]
    at = np.linspace(0.0, length, max(4, round(length / _STEP) + 1))
    points = np.stack([np.interp(at, along, fine[:, axis]) for axis in (0, 1)], axis=1)
    heading = np.unwrap(np.arctan2(*np.diff(points, axis=0).T[::-1]))
    curvature = np.gradient(heading, at[1])
    slowness = (1.0 + (curvature * _SLOW_RADIUS) ** 2) ** (1.0 / 6.0)
    progress = np.concatenate([[0.0], np.cumsum(slowness)]) / slowness.sum()
    return points, _RUN_TIME_S * np.sqrt(length) * _minimum_jerk_time(progress)


def _minimum_jerk_time(progress: NDArray[np.float64]) -> NDArray[np.float64]:
    """When, in units of the whole time, a minimum-jerk movement has come to `progress`, both 0..1."""
    t = np.linspace(0.0, 1.0, _FINE)
    return np.interp(progress, t**3 * (10.0 - 15.0 * t + 6.0 * t**2), t)
