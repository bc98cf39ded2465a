from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tsbs_daw.core.errors import DeviceError, JobCancelled
from tsbs_daw.network import TINY, TwoStageSeparator
from tsbs_daw.network.seam import SeparationNetwork
from tsbs_daw.separation import Separator
from tsbs_daw.separation.devices import choose_device

CPU = torch.device("cpu")
SMALL = replace(TINY, feature_dim=16, mask_blocks=1, map_blocks=1, headdim=16, chunk_s=0.5)


def network() -> TwoStageSeparator:
    torch.manual_seed(0)
    return TwoStageSeparator(SMALL)


@pytest.fixture(scope="module")
def separator() -> Separator:
    return Separator(network(), CPU)


class PassThrough(SeparationNetwork):
    """A network that answers each stem with the mixture itself."""

    config = SMALL

    def estimate(self, mixture, stage="full"):
        return mixture[:, None].expand(-1, len(SMALL.stems), -1, -1)


def tone(samples: int, sample_rate: int, channels: int = 2) -> np.ndarray:
    """Well inside the band of every rate, so that resampling has nothing to take away."""
    time = np.arange(samples) / sample_rate
    return np.stack([np.sin(2 * np.pi * 440 * time + channel) for channel in range(channels)]).astype(np.float32) * 0.3


@pytest.mark.parametrize("sample_rate", [22050, 44100, 48000, 96000])
@pytest.mark.parametrize("samples", [1, 1000, 22050, 100_003])
def test_stems_have_the_source_s_length_at_any_rate(sample_rate, samples):
    found = Separator(PassThrough(), CPU).separate(tone(samples, sample_rate), sample_rate)
    assert list(found) == list(SMALL.stems)
    assert {stem.shape for stem in found.values()} == {(2, samples)}


@pytest.mark.parametrize("sample_rate", [44100, 48000, 96000])
def test_stems_are_aligned_to_the_sample(sample_rate):
    mixture = tone(100_003, sample_rate)
    found = Separator(PassThrough(), CPU).separate(mixture, sample_rate)["bass"]
    middle = slice(2000, -2000)  # resampling rings at a hard start and end
    assert np.abs(found - mixture)[:, middle].max() < 1e-4


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_number_of_channels(separator, channels):
    found = separator.separate(tone(30_000, 44100, channels), 44100)
    assert all(stem.shape == (channels, 30_000) and np.isfinite(stem).all() for stem in found.values())


@pytest.mark.parametrize("sample_rate", [44100, 48000])
def test_a_stream_gives_what_memory_gives(separator, sample_rate):
    mixture = np.random.default_rng(0).standard_normal((2, 70_001)).astype(np.float32) * 0.1
    blocks = np.array_split(mixture, 13, axis=1)
    streamed = np.concatenate(list(separator.stream(blocks, sample_rate)), axis=-1)
    whole = np.stack(list(separator.separate(mixture, sample_rate).values()))
    np.testing.assert_array_equal(streamed, whole)


def test_batches_give_what_single_chunks_give(separator):
    mixture = np.random.default_rng(1).standard_normal((2, 90_000)).astype(np.float32) * 0.1
    batched = Separator(network(), CPU, batch_size=3).separate(mixture, 44100)
    for stem, audio in separator.separate(mixture, 44100).items():
        np.testing.assert_allclose(batched[stem], audio, rtol=0, atol=1e-5)


def test_silence_in_gives_silence_out(separator):
    found = separator.separate(np.zeros((2, 50_000), np.float32), 44100)
    assert not any(stem.any() for stem in found.values())


def test_the_mask_stage_alone_sums_to_the_mixture(separator):
    mixture = np.random.default_rng(2).standard_normal((2, 60_000)).astype(np.float32) * 0.1
    found = separator.separate(mixture, 44100, stage="mask")
    np.testing.assert_allclose(sum(found.values()), mixture, rtol=0, atol=1e-5)


def test_progress_ends_at_the_last_sample_and_never_falls(separator):
    seen: list[int] = []
    separator.separate(tone(70_000, 48000), 48000, progress=seen.append)
    assert seen[-1] == 70_000 and seen == sorted(seen)


def test_cancelling_stops_before_the_next_batch(separator):
    seen: list[int] = []
    with pytest.raises(JobCancelled):
        separator.separate(tone(200_000, 44100), 44100, progress=seen.append, cancelled=lambda: len(seen) >= 1)
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["cuda:99", "toaster"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(DeviceError, match=name):
        choose_device(name)
