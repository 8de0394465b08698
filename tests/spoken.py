"""Recordings in the layout of the Free Spoken Digit Dataset, of sounds that nobody spoke."""

from __future__ import annotations

import io
import tarfile
import wave
from pathlib import Path

import numpy as np

RATE_HZ = 8000


def write_spoken_digits(path: Path, *, takes: int = 7, speakers: tuple[str, ...] = ("ann", "ben")) -> None:
    """A .tar.gz of `takes` recordings of each digit and speaker; the first five are for testing, as in the real set."""
    rng = np.random.default_rng(5)
    with tarfile.open(path, "w:gz") as out:
        for digit in range(10):
            for number, speaker in enumerate(speakers):
                for take in range(takes):
                    content = _tone(200.0 * (digit + 1) * (1 + 0.05 * number), rng)
                    info = tarfile.TarInfo(f"recordings/{digit}_{speaker}_{take}.wav")
                    info.size = len(content)
                    out.addfile(info, io.BytesIO(content))


def _tone(frequency_hz: float, rng: np.random.Generator) -> bytes:
    """A tenth of a second of a tone with some noise, as a wav file."""
    t_s = np.arange(RATE_HZ // 10) / RATE_HZ
    sound = 0.4 * np.sin(2 * np.pi * frequency_hz * t_s) + 0.02 * rng.standard_normal(len(t_s))
    stream = io.BytesIO()
    with wave.open(stream, "wb") as writer:
        writer.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        writer.writeframes((32767 * np.clip(sound, -1, 1)).astype("<i2").tobytes())
    return stream.getvalue()
