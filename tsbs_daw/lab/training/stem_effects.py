"""What a mixing desk does to a stem, at random: equaliser, saturation, compressor, reverb, pitch, codec (pedalboard).

The level is put back afterwards: how loud a stem is belongs to the gain, not to the effects.
"""

from __future__ import annotations

import numpy as np
import pedalboard

from tsbs_daw.core.errors import EffectError
from tsbs_daw.lab.training.recipe import EffectPart

_DRAWS = 24  # more than all effects together use
_MAX_GAIN = 8.0  # when the level is put back; a codec may leave almost nothing of a faint stem


def apply_effects(audio: np.ndarray, sample_rate: int, settings: EffectPart, rng: np.random.Generator) -> np.ndarray:
    """(channels, samples) -> the same shape, float32. Takes the same number of draws whatever is applied.

    Raises EffectError when an effect returns NaN or infinity.
    """
    draws = iter(rng.random(_DRAWS).tolist())
    chances = {name: next(draws) for name in type(settings).model_fields}
    values = {name: [next(draws) for _ in range(3)] for name in chances}
    chosen = [name for name in _ORDER if chances[name] < getattr(settings, name)]
    if not chosen or not audio.any():
        return audio
    board = pedalboard.Pedalboard([plugin for name in chosen for plugin in _ORDER[name](*values[name])])
    result = board(np.ascontiguousarray(audio), sample_rate)
    if not np.isfinite(result).all():
        raise EffectError(f"augmentation by {', '.join(chosen)} gave NaN or infinity; leave it out of the recipe")
    result = _fit(result, audio.shape[-1])
    gain = np.sqrt(np.mean(audio**2) / (np.mean(result**2) + 1e-12))
    return result * np.float32(min(gain, _MAX_GAIN))


def _fit(audio: np.ndarray, samples: int) -> np.ndarray:
    missing = samples - audio.shape[-1]
    return np.pad(audio, ((0, 0), (0, missing))) if missing > 0 else audio[:, :samples]


def _between(low: float, high: float, draw: float) -> float:
    return low + (high - low) * draw


def _equaliser(a: float, b: float, c: float) -> list:
    return [
        pedalboard.PeakFilter(cutoff_frequency_hz=80.0 * 100.0**a, gain_db=_between(-8, 8, b), q=0.7),
        pedalboard.HighShelfFilter(cutoff_frequency_hz=5000.0, gain_db=_between(-6, 6, c)),
    ]


def _saturation(a: float, _b: float, _c: float) -> list:
    return [pedalboard.Distortion(drive_db=_between(2, 14, a))]


def _compressor(a: float, b: float, c: float) -> list:
    return [
        pedalboard.Compressor(
            threshold_db=_between(-35, -12, a),
            ratio=_between(2, 8, b),
            attack_ms=_between(1, 30, c),
            release_ms=120.0,
        )
    ]


def _reverb(a: float, b: float, c: float) -> list:
    wet = _between(0.05, 0.35, b)
    return [pedalboard.Reverb(room_size=_between(0.1, 0.9, a), wet_level=wet, dry_level=1.0 - wet, damping=c)]


def _pitch(a: float, _b: float, _c: float) -> list:
    return [pedalboard.PitchShift(semitones=_between(-2, 2, a))]


def _codec(a: float, _b: float, _c: float) -> list:
    return [pedalboard.MP3Compressor(vbr_quality=_between(1, 8, a))]


# In the order of a desk: tone first, then dynamics, then space, and what happens to the finished sound last.
_ORDER = {
    "equaliser": _equaliser,
    "saturation": _saturation,
    "compressor": _compressor,
    "reverb": _reverb,
    "pitch": _pitch,
    "codec": _codec,
}
