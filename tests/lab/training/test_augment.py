from __future__ import annotations

import numpy as np
import pytest
from signals import RATE, noise, silence, song

from tsbs_daw.lab.training.augment import augment_stem
from tsbs_daw.lab.training.recipe import AugmentPart, EffectPart
from tsbs_daw.lab.training.stem_effects import apply_effects

PLAIN = {"gain_min_db": 0, "gain_max_db": 0, "swap_channels": 0, "flip_polarity": 0, "silence_stem": 0}


def _augment(audio, seed=0, **changes):
    return augment_stem(audio, RATE, AugmentPart(**{**PLAIN, **changes}), np.random.default_rng(seed))


def test_without_augmentation_a_stem_is_as_it_was():
    audio = noise(100)
    assert np.array_equal(_augment(audio), audio)


def test_gain_stays_in_its_range_and_uses_it():
    audio = noise(100)
    gains = [
        20 * np.log10(_augment(audio, seed, gain_min_db=-9, gain_max_db=3)[0, 0] / audio[0, 0]) for seed in range(60)
    ]
    assert -9 <= min(gains) < -6
    assert 0 < max(gains) <= 3


def test_channels_polarity_and_silence():
    audio = noise(100)
    assert np.array_equal(_augment(audio, swap_channels=1), audio[::-1])
    assert np.array_equal(_augment(audio, flip_polarity=1), -audio)
    assert not _augment(audio, silence_stem=1).any()


def test_a_changed_probability_leaves_the_other_choices_alone():
    audio = noise(100)
    plain = _augment(audio, 4, gain_min_db=-9, gain_max_db=3)
    swapped = _augment(audio, 4, gain_min_db=-9, gain_max_db=3, swap_channels=1)
    assert np.array_equal(swapped, plain[::-1])


@pytest.mark.parametrize("name", list(EffectPart.model_fields))
def test_an_effect_changes_the_sound_and_keeps_its_level_and_length(name):
    audio = song(1.0)["vocals"]
    settings = EffectPart(**{name: 1.0})
    result = apply_effects(audio, RATE, settings, np.random.default_rng(1))
    assert result.shape == audio.shape
    assert result.dtype == np.float32
    assert not np.allclose(result, audio, atol=1e-4)
    assert np.sqrt(np.mean(result**2)) == pytest.approx(np.sqrt(np.mean(audio**2)), rel=1e-3)
    assert np.array_equal(result, apply_effects(audio, RATE, settings, np.random.default_rng(1)))


def test_effects_leave_silence_silent():
    everything = EffectPart(**dict.fromkeys(EffectPart.model_fields, 1.0))
    assert not apply_effects(silence(1000), RATE, everything, np.random.default_rng(0)).any()


def test_no_probability_no_effect():
    audio = noise(1000)
    assert apply_effects(audio, RATE, EffectPart(), np.random.default_rng(0)) is audio
