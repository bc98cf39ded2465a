"""Vowels and consonants as targets for the formant voice.

Formants of vowels are averages of a male tract in Hz (a textbook table); a singer's tract length scales them.
"""

from __future__ import annotations

from dataclasses import dataclass

VOWEL_HZ = {
    "ah": (730, 1150, 2500),
    "ae": (680, 1700, 2450),
    "eh": (550, 1800, 2500),
    "ee": (290, 2250, 3000),
    "ih": (400, 1950, 2550),
    "oh": (470, 880, 2450),
    "oo": (320, 850, 2300),
    "uh": (600, 1180, 2450),
    "aw": (600, 900, 2450),
    "er": (480, 1330, 1700),
}


@dataclass(frozen=True)
class Consonant:
    """Levels are 0..1; a formant of 0 means that of the vowel."""

    duration_s: float
    voiced: float
    formants_hz: tuple[float, float, float] = (0, 0, 0)
    breath: float = 0.0
    noise: float = 0.0
    noise_hz: tuple[float, float] = (0, 0)  # band
    burst: bool = False  # silence first, then the noise as a short burst
    nasal: bool = False


CONSONANTS = {
    "s": Consonant(0.11, 0.0, noise=0.55, noise_hz=(4800, 10500)),
    "z": Consonant(0.08, 0.35, noise=0.3, noise_hz=(4800, 10000)),
    "sh": Consonant(0.11, 0.0, noise=0.6, noise_hz=(2200, 6500)),
    "f": Consonant(0.09, 0.0, noise=0.16, noise_hz=(1500, 12000)),
    "v": Consonant(0.06, 0.4, (300, 1100, 2300), noise=0.07, noise_hz=(1500, 10000)),
    "th": Consonant(0.09, 0.0, noise=0.12, noise_hz=(3500, 12000)),
    "dh": Consonant(0.05, 0.4, (300, 1400, 2500), noise=0.05, noise_hz=(3000, 10000)),
    "h": Consonant(0.07, 0.0, breath=0.6),
    "p": Consonant(0.085, 0.0, (300, 800, 2200), noise=0.4, noise_hz=(400, 2500), burst=True, breath=0.35),
    "t": Consonant(0.085, 0.0, (320, 1750, 2700), noise=0.6, noise_hz=(3200, 9500), burst=True, breath=0.3),
    "k": Consonant(0.095, 0.0, (300, 1900, 2400), noise=0.5, noise_hz=(1400, 4200), burst=True, breath=0.35),
    "b": Consonant(0.06, 0.12, (250, 800, 2200), noise=0.25, noise_hz=(300, 2000), burst=True),
    "d": Consonant(0.06, 0.12, (280, 1750, 2700), noise=0.35, noise_hz=(2800, 8000), burst=True),
    "g": Consonant(0.065, 0.12, (260, 1900, 2400), noise=0.3, noise_hz=(1300, 4000), burst=True),
    "ch": Consonant(0.12, 0.0, (300, 1900, 2700), noise=0.6, noise_hz=(2300, 7000), burst=True, breath=0.1),
    "j": Consonant(0.09, 0.15, (300, 1900, 2700), noise=0.35, noise_hz=(2300, 6500), burst=True),
    "m": Consonant(0.075, 0.55, (250, 1000, 2200), nasal=True),
    "n": Consonant(0.07, 0.55, (250, 1500, 2500), nasal=True),
    "ng": Consonant(0.08, 0.5, (260, 2000, 2600), nasal=True),
    "l": Consonant(0.06, 0.65, (340, 1050, 2700)),
    "r": Consonant(0.065, 0.7, (340, 1150, 1600)),
    "w": Consonant(0.065, 0.65, (300, 680, 2200)),
    "y": Consonant(0.06, 0.65, (280, 2200, 2950)),
}
