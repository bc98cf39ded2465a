"""Augmentation of one stem's excerpt: level, channels, polarity, silence, and effects by pedalboard.

Every choice comes from the generator that is handed in, in a fixed order, so an example is a pure function of its seed.
"""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.training.recipe import AugmentPart


def augment_stem(audio: np.ndarray, sample_rate: int, settings: AugmentPart, rng: np.random.Generator) -> np.ndarray:
    """One stem (channels, samples) -> the same shape, float32."""
    # All draws are made whether or not they are used: a changed probability then leaves the other choices alone.
    silent, swap, flip = rng.random(3)
    gain_db = rng.uniform(settings.gain_min_db, settings.gain_max_db)
    if silent < settings.silence_stem:
        return np.zeros_like(audio)
    if any(getattr(settings.effects, name) > 0 for name in type(settings.effects).model_fields):
        from tsbs_daw.lab.training.stem_effects import apply_effects

        audio = apply_effects(audio, sample_rate, settings.effects, rng)
    if swap < settings.swap_channels:
        audio = audio[::-1]
    gain = 10.0 ** (gain_db / 20.0) * (-1.0 if flip < settings.flip_polarity else 1.0)
    return audio * np.float32(gain)
