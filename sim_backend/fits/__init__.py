"""Fit routines: measured rows in, parameters of the simulator's own models out.

One module per model. Each has `load(path)`, which reads a documented text layout, and `fit(rows, seed=0)`, which
returns a `Fit`. Importing this package imports none of them.
"""

from __future__ import annotations

#: name of a model -> module with its `load` and `fit`
MODELS = {
    "forming": "sim_backend.fits.forming",
    "set": "sim_backend.fits.set",
    "reset": "sim_backend.fits.reset",
    "cycling": "sim_backend.fits.cycling",
    "relaxation": "sim_backend.fits.relaxation",
    "noise": "sim_backend.fits.noise",
    "retention": "sim_backend.fits.retention",
}
