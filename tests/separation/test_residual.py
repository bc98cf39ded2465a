"""Sharing the residual: exact whatever the blocks, and where the stems sound."""

from __future__ import annotations

import numpy as np
import pytest

from tsbs_daw.separation.streams import share_residual

RATE = 44100


def shared(stems: np.ndarray, residual: np.ndarray, lengths: list[int], rate: int = RATE) -> np.ndarray:
    """The stems after sharing, given in blocks of these lengths, over and over."""
    blocks, start = [], 0
    while start < residual.shape[-1]:
        end = start + lengths[len(blocks) % len(lengths)]
        blocks.append((stems[..., start:end], residual[..., start:end]))
        start = end
    return np.concatenate([done for done, _ in share_residual(blocks, rate)], axis=-1)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 0.1


@pytest.mark.parametrize("samples", [1, 100, 2048, 4096, 4097, 30000, 65536 + 7])
@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_the_stems_sum_to_the_mixture_at_every_length(samples, rate):
    stems, residual = noise(3, 2, samples), noise(2, samples, seed=1)
    done = shared(stems, residual, [65536], rate)
    assert done.shape == stems.shape and done.dtype == np.float32
    np.testing.assert_allclose(done.sum(0), stems.sum(0) + residual, atol=1e-6)


@pytest.mark.parametrize("lengths", [[1000], [65536], [1, 4096, 10000], [2048]])
def test_the_blocks_do_not_matter(lengths):
    stems, residual = noise(4, 1, 40000), noise(1, 40000, seed=1)
    np.testing.assert_allclose(shared(stems, residual, lengths), shared(stems, residual, [40000]), atol=1e-6)


def test_each_frequency_goes_to_the_stem_that_sounds_there():
    time_s = np.arange(RATE) / RATE
    low, high = (np.sin(2 * np.pi * f * time_s).astype(np.float32)[None] for f in (200.0, 5000.0))
    done = shared(np.stack([0.8 * low, 0.8 * high]), 0.2 * (low + high), [65536])
    middle = slice(RATE // 4, -RATE // 4)
    np.testing.assert_allclose(done[0, 0, middle], low[0, middle], atol=0.02)
    np.testing.assert_allclose(done[1, 0, middle], high[0, middle], atol=0.02)


def test_where_no_stem_sounds_all_get_the_same():
    residual = noise(2, 20000)
    done = shared(np.zeros((4, 2, 20000), np.float32), residual, [65536])
    np.testing.assert_allclose(done, np.broadcast_to(residual / 4, done.shape), atol=1e-6)


def test_silence_stays_digital_silence():
    assert not shared(np.zeros((4, 2, 20000), np.float32), np.zeros((2, 20000), np.float32), [65536]).any()


def test_nothing_gives_nothing():
    assert list(share_residual([], RATE)) == []
