"""`--quality`: what each step is, and that none of them changes anything but the stems' quality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tsbs_daw.core.errors import JobCancelled, UsageError
from tsbs_daw.network import TINY, TwoStageSeparator
from tsbs_daw.network.seam import SeparationNetwork
from tsbs_daw.presets.rules import QUALITIES as NAMES
from tsbs_daw.separation import Separator
from tsbs_daw.separation.separator import QUALITIES, Ensemble, Steps

CPU = torch.device("cpu")
SMALL = replace(TINY, feature_dim=16, mask_blocks=1, map_blocks=1, headdim=16, chunk_s=0.5)


class Shaped(SeparationNetwork):
    """Each stem is a function of the mixture, sample by sample."""

    def __init__(self, *functions, **changes):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.functions, self.config = functions, replace(SMALL, **changes)

    def estimate(self, mixture, stage="full"):
        return torch.stack([function(mixture) for function in self.functions], 1)


def two_stems(*functions, stems=("vocals", "other"), **changes) -> Separator:
    return Separator(Shaped(*functions, stems=stems, **changes), CPU)


def noise(samples: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((channels, samples)) * 0.1).astype(np.float32)


def stacked(separator: Separator, audio: np.ndarray, rate: int = 44100, **options) -> np.ndarray:
    return np.stack(list(separator.separate(audio, rate, **options).values()))


@pytest.fixture
def with_steps(monkeypatch):
    """Make a quality of some steps."""

    def make(**steps) -> str:
        monkeypatch.setitem(QUALITIES, "tried", Steps(**steps))
        return "tried"

    return make


@pytest.fixture(scope="module")
def real_network() -> Separator:
    torch.manual_seed(0)
    return Separator(TwoStageSeparator(SMALL), CPU)


def test_every_name_that_is_accepted_has_its_steps():
    assert tuple(QUALITIES) == NAMES and QUALITIES["normal"] == Steps()


def test_normal_quality_is_what_comes_out_without_a_word(real_network):
    audio = noise(60_000)
    np.testing.assert_array_equal(stacked(real_network, audio, quality="normal"), stacked(real_network, audio))


@pytest.mark.parametrize("quality", NAMES)
def test_every_quality_gives_the_source_s_length_at_any_rate(real_network, quality):
    for samples, rate, channels in [(1, 44100, 1), (22_050, 44100, 2), (30_001, 96000, 6), (70_003, 48000, 2)]:
        found = stacked(real_network, noise(samples, channels), rate, quality=quality)
        assert found.shape == (4, channels, samples) and np.isfinite(found).all()


@pytest.mark.parametrize("quality", NAMES)
def test_silence_stays_digital_silence(real_network, quality):
    assert not stacked(real_network, np.zeros((2, 60_000), np.float32), quality=quality).any()


@pytest.mark.parametrize("quality", NAMES)
def test_blocks_do_not_matter(real_network, quality):
    audio = noise(70_001)
    blocks = np.array_split(audio, 13, axis=1)
    streamed = np.concatenate(list(real_network.stream(blocks, 44100, quality=quality)), axis=-1)
    np.testing.assert_allclose(streamed, stacked(real_network, audio, quality=quality), atol=1e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("samples", [1, 5000, 22_050, 90_001])
def test_an_overlap_changes_nothing_for_a_network_that_does_not_care(with_steps, overlap, samples):
    separator, audio = two_stems(lambda x: 0.3 * x, lambda x: 0.7 * x), noise(samples)
    found = stacked(separator, audio, quality=with_steps(overlap=overlap))
    np.testing.assert_allclose(found, np.stack([0.3 * audio, 0.7 * audio]), atol=1e-6)


def test_fast_computes_fewer_chunks(real_network):
    def chunks(quality: str) -> int:
        asked: list[int] = []
        submit = real_network.batcher.submit
        real_network.batcher.submit = lambda audio, stage: asked.append(len(audio)) or submit(audio, stage)
        try:
            real_network.separate(noise(220_000), 44100, quality=quality)
        finally:
            del real_network.batcher.submit
        return sum(asked)

    assert chunks("fast") < chunks("normal") == chunks("best")


def test_a_mask_gives_what_the_network_leaves_out_to_who_sounds_there(with_steps):
    """The network gives both stems too quietly; as shares of the mixture they are right."""
    separator, audio = two_stems(lambda x: 0.1 * x, lambda x: 0.3 * x), noise(60_000)
    found = stacked(separator, audio, quality=with_steps(mask=True))
    np.testing.assert_allclose(found, np.stack([0.25 * audio, 0.75 * audio]), atol=1e-5)


@pytest.mark.parametrize(("rate", "channels"), [(44100, 1), (44100, 2), (48000, 6), (96000, 2)])
def test_best_sums_to_what_the_network_hears(real_network, rate, channels):
    """A tone well below the band's end, so that the way to the network's rate and back takes nothing away."""
    seconds = np.arange(90_001) / rate
    audio = np.stack([0.2 * np.sin(2 * np.pi * 440 * seconds + side) for side in range(channels)]).astype(np.float32)
    total = stacked(real_network, audio, rate, quality="best").sum(0)
    middle = slice(4000, -4000)
    np.testing.assert_allclose(total[:, middle], audio[:, middle], atol=1e-4)


def test_an_unknown_quality_is_one_sentence(real_network):
    with pytest.raises(UsageError, match=r"^There is no quality 'bets'; did you mean 'best'\?$"):
        real_network.separate(noise(10), 44100, quality="bets")
    with pytest.raises(UsageError, match="choose from fast, normal, best"):
        real_network.separate(noise(10), 44100, quality="9")


@pytest.mark.parametrize("quality", NAMES)
def test_every_quality_can_be_cancelled(real_network, quality):
    with pytest.raises(JobCancelled):
        real_network.separate(noise(60_000), 44100, quality=quality, cancelled=lambda: True)


# ---- ensembles


def test_an_ensemble_is_the_mean_whatever_chunks_its_members_see():
    long = two_stems(lambda x: 0.2 * x, lambda x: 0.8 * x, chunk_s=1.3)
    short = two_stems(lambda x: 0.4 * x, lambda x: 0.6 * x, stems=("vocals", "other"))
    audio = noise(200_001)
    found = Ensemble([long, short, short]).separate(audio, 44100)
    np.testing.assert_allclose(found["vocals"], audio / 3, atol=1e-6)
    np.testing.assert_allclose(found["other"], audio * 2 / 3, atol=1e-6)


def test_members_may_give_the_stems_in_another_order():
    one = two_stems(lambda x: 0.2 * x, lambda x: 0.8 * x)
    other = two_stems(lambda x: 0.8 * x, lambda x: 0.2 * x, stems=("other", "vocals"))
    audio = noise(60_000)
    found = Ensemble([one, other]).separate(audio, 48000)
    assert list(found) == ["vocals", "other"]
    np.testing.assert_allclose(found["vocals"], one.separate(audio, 48000)["vocals"], atol=1e-6)


@pytest.mark.parametrize("quality", NAMES)
def test_an_ensemble_of_one_model_twice_is_the_model(real_network, quality):
    audio = noise(60_000)
    twice = Ensemble([real_network, real_network])
    np.testing.assert_allclose(
        stacked(twice, audio, quality=quality), stacked(real_network, audio, quality=quality), atol=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"stems": ("vocals", "drums")},
            r"gives vocals, other, and .* gives vocals, drums\. Choose models of the",
        ),
        ({"sample_rate": 48000}, r"works at 44100 Hz, and .* at 48000 Hz\. Choose models of the same sample rate\."),
    ],
)
def test_models_of_other_stems_or_rates_are_refused_in_one_sentence(changes, said):
    members = [two_stems(torch.abs, torch.abs), two_stems(torch.abs, torch.abs, **changes)]
    with pytest.raises(UsageError, match=rf"^The models .* cannot be averaged: .*{said}"):
        Ensemble(members)
