"""The sounds of the spoken digits: what each asks of the vocal tract, in a table.

Formants are for a typical adult man; a voice scales and shifts them (voice.py). All values are approximate. Steady
vowels: about the means of men in G. E. Peterson and H. L. Barney, "Control methods used in a study of the vowels", J.
Acoust. Soc. Am. 24, 175 (1952), doi:10.1121/1.1906875. Formants and bandwidths of consonants: after D. H. Klatt,
"Software for a cascade/parallel formant synthesizer", J. Acoust. Soc. Am. 67, 971 (1980), doi:10.1121/1.383940.
Gliding vowels, durations, levels and spectra of frication: general phonetics, adjusted against recordings of people
(docs/explanation/synthetic-voices.md says which and how).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hiss:
    """Noise made at a narrow place in the mouth.

    Attributes:
        spectrum: points (frequency in Hz, level in dB), straight lines between them; 0 dB is the strongest part.
        level_db: rms of the noise, relative to the loudest part of the word's voiced sound.
    """

    spectrum: tuple[tuple[float, float], ...]
    level_db: float


@dataclass(frozen=True)
class Sound:
    """One stretch of speech with a target of its own.

    Attributes:
        formants_hz: first three resonances of the tract.
        duration_s: at an average rate.
        to_hz: resonances at the end, for a diphthong; None for a steady sound.
        bandwidths_hz: of the three resonances.
        voicing: amplitude of the glottal pulses, 1 for a vowel.
        breath: amplitude of noise at the glottis, 1 for strong aspiration.
        nasality: 0 for a closed velum, 1 for a nasal consonant.
        hiss: noise of frication or of a burst, if any.
        is_vowel: whether accents move it and rate stretches it in full.
    """

    formants_hz: tuple[float, float, float]
    duration_s: float
    to_hz: tuple[float, float, float] | None = None
    bandwidths_hz: tuple[float, float, float] = (60.0, 90.0, 150.0)
    voicing: float = 1.0
    breath: float = 0.0
    nasality: float = 0.0
    hiss: Hiss | None = None
    is_vowel: bool = False


_S = ((0.0, -45.0), (1200.0, -40.0), (2500.0, -25.0), (3400.0, -10.0), (4500.0, -2.0), (5500.0, 0.0), (8000.0, -5.0))
_F = ((0.0, -18.0), (700.0, -9.0), (1500.0, -5.0), (4000.0, -4.0), (8000.0, 0.0))
_TH = ((0.0, -25.0), (1000.0, -14.0), (2500.0, -7.0), (5500.0, 0.0), (8000.0, -2.0))
_T = ((0.0, -28.0), (1500.0, -14.0), (2800.0, -4.0), (4000.0, 0.0), (6000.0, -4.0), (8000.0, -9.0))
_K = ((0.0, -30.0), (1200.0, -15.0), (1900.0, 0.0), (2600.0, -5.0), (4000.0, -11.0), (8000.0, -18.0))
#: resonances of a tract that ends in an open glottis are wide
_S_WIDTHS, _TH_WIDTHS = (200.0, 80.0, 200.0), (200.0, 90.0, 200.0)
_T_WIDTHS, _K_WIDTHS = (300.0, 120.0, 250.0), (250.0, 160.0, 330.0)

SOUNDS: dict[str, Sound] = {
    # vowels
    "iy": Sound((300, 1750, 2350), 0.220, to_hz=(270, 2290, 3010), bandwidths_hz=(55, 100, 170), is_vowel=True),
    "ih": Sound((390, 1990, 2550), 0.110, is_vowel=True),
    "eh": Sound((530, 1840, 2480), 0.120, is_vowel=True),
    "ah": Sound((620, 980, 2390), 0.170, to_hz=(620, 1350, 2450), bandwidths_hz=(80, 90, 150), is_vowel=True),
    "ao": Sound((570, 840, 2410), 0.190, bandwidths_hz=(80, 90, 130), is_vowel=True),
    "uw": Sound((320, 1450, 2350), 0.230, to_hz=(300, 920, 2240), bandwidths_hz=(65, 110, 140), is_vowel=True),
    "ax": Sound((500, 1400, 2390), 0.075, voicing=0.8, is_vowel=True),
    "ir": Sound((330, 2050, 2600), 0.110, is_vowel=True),
    # diphthongs
    "ay": Sound((720, 1150, 2500), 0.250, to_hz=(430, 1900, 2550), bandwidths_hz=(80, 90, 150), is_vowel=True),
    "ay_n": Sound((700, 1330, 2500), 0.250, to_hz=(470, 1900, 2550), bandwidths_hz=(80, 90, 150), is_vowel=True),
    "ey": Sound((480, 1800, 2520), 0.210, to_hz=(320, 2180, 2750), is_vowel=True),
    "ow": Sound((540, 1080, 2350), 0.250, to_hz=(390, 860, 2300), bandwidths_hz=(75, 80, 110), is_vowel=True),
    # glides and nasals
    "w": Sound((290, 610, 2150), 0.080, bandwidths_hz=(50, 80, 120), voicing=0.6),
    "r": Sound((330, 1150, 1500), 0.070, bandwidths_hz=(70, 100, 120), voicing=0.7),
    "er": Sound((460, 1350, 1700), 0.140, bandwidths_hz=(70, 100, 120), voicing=0.75),
    "n": Sound((350, 1340, 2470), 0.085, bandwidths_hz=(60, 300, 300), voicing=0.5, nasality=1.0),
    "n_end": Sound((350, 1340, 2470), 0.120, bandwidths_hz=(60, 300, 300), voicing=0.45, nasality=1.0),
    # fricatives
    "s": Sound((320, 1390, 2530), 0.130, bandwidths_hz=_S_WIDTHS, voicing=0.0, breath=0.05, hiss=Hiss(_S, -11.0)),
    "s_end": Sound((320, 1390, 2530), 0.150, bandwidths_hz=_S_WIDTHS, voicing=0.0, hiss=Hiss(_S, -14.0)),
    "z": Sound((240, 1390, 2530), 0.100, bandwidths_hz=(70, 60, 180), voicing=0.3, hiss=Hiss(_S, -17.0)),
    "f": Sound((340, 1100, 2080), 0.095, bandwidths_hz=(200, 120, 150), voicing=0.0, breath=0.05, hiss=Hiss(_F, -27.0)),
    "th": Sound((320, 1290, 2540), 0.085, bandwidths_hz=_TH_WIDTHS, voicing=0.0, breath=0.05, hiss=Hiss(_TH, -29.0)),
    "v": Sound((220, 1100, 2080), 0.065, bandwidths_hz=(60, 90, 120), voicing=0.4, hiss=Hiss(_F, -33.0)),
    "v_end": Sound((220, 1100, 2080), 0.090, bandwidths_hz=(60, 90, 120), voicing=0.25, hiss=Hiss(_F, -30.0)),
    # stops: closure, burst, breath
    "t_hold": Sound((400, 1700, 2600), 0.070, bandwidths_hz=_T_WIDTHS, voicing=0.0),
    "t_burst": Sound((400, 1700, 2600), 0.015, bandwidths_hz=_T_WIDTHS, voicing=0.0, hiss=Hiss(_T, -7.0)),
    "t_breath": Sound((400, 1700, 2600), 0.045, bandwidths_hz=_T_WIDTHS, voicing=0.0, breath=0.6, hiss=Hiss(_T, -18.0)),
    "t_last": Sound((400, 1700, 2600), 0.025, bandwidths_hz=_T_WIDTHS, voicing=0.0, breath=0.1, hiss=Hiss(_T, -19.0)),
    "k_hold": Sound((300, 1990, 2850), 0.060, bandwidths_hz=_K_WIDTHS, voicing=0.0),
    "k_burst": Sound((300, 1990, 2850), 0.020, bandwidths_hz=_K_WIDTHS, voicing=0.0, breath=0.1, hiss=Hiss(_K, -15.0)),
}  # fmt: skip

#: label -> its sounds; label 10 is "oh", the other name of 0
WORDS: tuple[tuple[str, ...], ...] = (
    ("z", "ir", "r", "ow"),
    ("w", "ah", "n_end"),
    ("t_burst", "t_breath", "uw"),
    ("th", "r", "iy"),
    ("f", "ao", "er"),
    ("f", "ay", "v_end"),
    ("s", "ih", "k_hold", "k_burst", "s_end"),
    ("s", "eh", "v", "ax", "n_end"),
    ("ey", "t_hold", "t_last"),
    ("n", "ay_n", "n_end"),
    ("ow",),
)
WORD_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "oh")
