"""Pictures of letters by many writers, each with a slant, proportions and a pen of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from experiments.datasets import handwriting, letter_drawing
from experiments.datasets.handwriting import Hand
from experiments.datasets.letter_shapes import N_LETTERS
from experiments.datasets.strokes import letter_paths
from hil.progress import Progress, no_progress

#: how writers differ; ours, set by eye beside EMNIST and so that a linear classifier is right about four times in five
WRITERS = Hand(slant=0.2, turn_rad=0.1, stretch=0.2, stroke_shift=0.03, bend=0.06, wobble=0.02)
#: width of the pens' lines in pixels: median, and standard deviation of the logarithm
_PEN_PX, _PEN_SPREAD = 2.6, 0.2
_CASES = {"small": ("small",), "capital": ("capital",), "mixed": ("small", "capital")}
# streams of random numbers
_STYLE, _LETTER = range(2)


def write_letters(case: str, n_writers: int, *, seed: int, progress: Progress = no_progress) -> NDArray[np.uint8]:
    """Every letter once by every writer.

    Args:
        case: "small", "capital", or "mixed": every other writer writes capitals.
        n_writers: how many.
        seed: of the writers and of their letters.
        progress: told after each letter.

    Returns:
        uint8, shape (26, n_writers, 28, 28), 0 = paper.
    """
    style = np.random.default_rng([seed, _STYLE])
    matrices = handwriting.slopes(WRITERS, style, n_writers)
    pen_px = _PEN_PX * np.exp(_PEN_SPREAD * style.standard_normal(n_writers))
    cases = _CASES[case]
    out = np.empty((N_LETTERS, n_writers, letter_drawing.IMAGE_PX, letter_drawing.IMAGE_PX), np.uint8)
    for letter in range(N_LETTERS):
        rng = np.random.default_rng([seed, _LETTER, letter])
        for first, name in enumerate(cases):
            path, some = letter_paths(name)[letter], slice(first, None, len(cases))
            points = handwriting.written(path, path.points, WRITERS, rng, matrices[some])
            out[letter, some] = letter_drawing.drawn(points, path.down, pen_px[some])
        progress("drawing letters", letter + 1, N_LETTERS)
    return out
