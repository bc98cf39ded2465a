"""Guitar amplifiers: an input filter, one or two stages of drive, a loudspeaker cabinet and the room it stands in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pedalboard import Compressor, Distortion, HighpassFilter, HighShelfFilter, LowpassFilter, PeakFilter, Reverb

from tsbs_daw.lab.songs.mixing import process, rms_to


@dataclass(frozen=True)
class Amplifier:
    """Ranges that one amplifier of its kind is drawn from; levels in dB, frequencies in Hz."""

    drive_db: tuple[float, float]
    second_db: tuple[float, float]  # a pedal before it
    pedal: float  # how often there is one
    focus_db: tuple[float, float]  # mids before the drive
    top_hz: tuple[float, float]  # where the cabinet ends
    room: float


AMPLIFIERS = {
    "clean": Amplifier((0.0, 6.0), (4.0, 10.0), 0.1, (-3.0, 3.0), (4500.0, 8000.0), 0.25),
    "crunch": Amplifier((12.0, 24.0), (6.0, 14.0), 0.3, (0.0, 5.0), (4200.0, 6000.0), 0.2),
    "lead": Amplifier((24.0, 34.0), (8.0, 18.0), 0.6, (2.0, 8.0), (3800.0, 5500.0), 0.2),
    "metal": Amplifier((32.0, 42.0), (6.0, 12.0), 0.7, (-2.0, 6.0), (4000.0, 6000.0), 0.08),
}


def amplify(direct: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A direct signal (2, samples) through an amplifier of a kind; silence stays silence."""
    amp = AMPLIFIERS[kind]
    chain: list = [
        HighpassFilter(_u(rng, (60, 140))),
        PeakFilter(_u(rng, (600, 1200)), _u(rng, amp.focus_db), 0.7),
    ]
    if rng.random() < amp.pedal:
        chain += [Distortion(_u(rng, amp.second_db)), LowpassFilter(_u(rng, (3500, 9000)))]
    chain += [Distortion(_u(rng, amp.drive_db)), PeakFilter(_u(rng, (350, 900)), _u(rng, (-8, 3)), 0.8)]
    top = _u(rng, amp.top_hz)
    chain += [  # the cabinet: a bump where the box resonates, a presence peak, and a steep end
        HighpassFilter(_u(rng, (60, 95))),
        PeakFilter(_u(rng, (100, 160)), _u(rng, (1, 5)), 1.2),
        PeakFilter(_u(rng, (1900, 3400)), _u(rng, (1, 7)), 1.1),
        *[LowpassFilter(top * factor) for factor in (1.0, 1.1, 1.25, 1.4)],
        HighShelfFilter(6000, -6.0),
    ]
    if rng.random() < 0.5:
        chain.append(Compressor(-20, _u(rng, (1.5, 3.0)), 10, 120))
    if rng.random() < 0.7:
        chain.append(Reverb(_u(rng, (0.05, 0.3)), 0.6, amp.room * _u(rng, (0.2, 1.0)), 0.9, _u(rng, (0.3, 1.0))))
    return process(rms_to(direct, -18.0), chain)


def _u(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    return float(rng.uniform(*ends))
