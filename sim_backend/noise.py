"""Read noise: each cell's conductance differs a little at every read.

Source: multiplicative Gaussian of 2 % per read in ESGNN, DEPLM and PRIME, which use the same macro. Valid for formed
cells at read voltage.

The 2 % are the whole noise of a normal cell. A share of its variance is flicker noise (`flicker`), which two reads
close in time have in common; the rest is white. A few cells have telegraph noise on top (`telegraph`), and noisy ones
(`faults`) a multiple of the normal noise. A VMM takes all of it as white: its cells are read once, and what the noise
of a cell has in common with the next VMM is neglected there. Single reads follow the processes in time.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim_backend.settings import NoiseSettings


@dataclass(frozen=True)
class WhiteReadNoise:
    """Multiplicative Gaussian noise.

    Attributes:
        relative: sigma of the conductance over the conductance.
    """

    relative: float

    @classmethod
    def from_settings(cls, settings: NoiseSettings) -> WhiteReadNoise:
        return cls(settings.relative if settings.enabled else 0.0)
