from __future__ import annotations

import numpy as np
import pytest

from tsbs_daw.separation.streams import OverlapAdd, cut

LENGTHS = [1, 99, 100, 101, 169, 170, 171, 240, 1000]


def stream(samples: int, block: int) -> list[np.ndarray]:
    audio = np.random.default_rng(samples).standard_normal((2, samples)).astype(np.float32)
    return [audio[:, start : start + block] for start in range(0, samples, block)]


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("fade", [0, 30, 50])
@pytest.mark.parametrize("block", [1, 7, 100, 5000])
def test_what_is_cut_adds_up_again(samples, fade, block):
    blocks = stream(samples, block)
    overlap_add = OverlapAdd(fade)
    parts = [overlap_add.add(start, audio, last) for start, audio, last in cut(blocks, 100, fade)]
    np.testing.assert_allclose(np.concatenate(parts, 1), np.concatenate(blocks, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("samples", LENGTHS)
def test_a_model_of_constant_one_gives_ones(samples):
    overlap_add = OverlapAdd(30)
    parts = [
        overlap_add.add(start, np.ones_like(audio), last) for start, audio, last in cut(stream(samples, 64), 100, 30)
    ]
    whole = np.concatenate(parts, 1)
    assert whole.shape == (2, samples)
    np.testing.assert_allclose(whole, 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("samples", LENGTHS)
def test_every_chunk_is_as_long_as_the_model_was_trained_for(samples):
    chunks = list(cut(stream(samples, 64), 100, 30))
    assert [chunk.audio.shape[1] for chunk in chunks] == [min(100, samples)] * len(chunks)
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_an_empty_stream_has_no_chunks():
    assert list(cut([], 100, 30)) == []


def test_a_disagreement_between_neighbours_is_faded_and_does_not_click():
    """Chunks that answer 0 and 1 in turn: the steps between samples stay as small as the fade is long."""
    overlap_add = OverlapAdd(50)
    parts = [
        overlap_add.add(start, np.full_like(audio, number % 2), last)
        for number, (start, audio, last) in enumerate(cut(stream(1000, 64), 100, 50))
    ]
    steps = np.abs(np.diff(np.concatenate(parts, 1)))
    assert steps.max() < np.pi / 2 / 50 * 1.01
