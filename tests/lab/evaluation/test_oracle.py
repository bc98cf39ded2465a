from __future__ import annotations

import numpy as np
from signals import noise, song

from tsbs_daw.lab.evaluation.evaluate import ideal_ratio_mask, usdr


def test_a_stem_alone_is_the_mixture():
    stem = noise(20_000)
    assert np.allclose(ideal_ratio_mask(stem[None], stem)[0], stem, atol=1e-5)


def test_the_oracle_s_stems_sum_to_the_mixture_and_are_better_than_it():
    targets = np.stack(list(song(2.0).values()))
    mixture = targets.sum(axis=0)
    estimates = ideal_ratio_mask(targets, mixture)
    assert estimates.shape == targets.shape
    assert np.allclose(estimates.sum(axis=0), mixture, atol=1e-4)
    for target, estimate in zip(targets, estimates, strict=True):
        assert usdr(target, estimate) > usdr(target, mixture) + 3


def test_a_very_short_song_keeps_its_length():
    targets = np.stack([noise(300, seed=1), noise(300, seed=2)])
    assert ideal_ratio_mask(targets, targets.sum(axis=0)).shape == targets.shape
