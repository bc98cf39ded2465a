"""Networks of other packages through the whole pipeline: exact sums on any input, and their own stems everywhere."""

from __future__ import annotations

import numpy as np
import packaged_networks as networks
import pytest
import signals
import soundfile
from harness.studio import Studio, sound_of

from tsbs_daw.core.errors import UsageError

RATES = {"48 kHz": 48_000, "96 kHz": 96_000}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """Small, untrained, and of six stems."""
    network = networks.build("htdemucs", networks.TINY["htdemucs"])
    return str(networks.saved(network, tmp_path_factory.mktemp("model") / "six.safetensors"))


def write(kind: str, studio: Studio):
    rate = RATES.get(kind, 44_100)
    stereo = signals.mixture(signals.song(1.2, rate))
    sounds = {
        "mono": stereo[:1],
        "5.1": np.concatenate([stereo, 0.5 * stereo[::-1], 0.2 * stereo]),
        "clipped": np.clip(8 * stereo, -1, 1),
        "silent": np.zeros_like(stereo),
    }
    audio = sounds.get(kind, stereo)
    if kind == "mp3":
        path = studio.root / "song.mp3"
        soundfile.write(path, audio.T, rate, format="MP3")
        return path
    return signals.write_file(studio.root / "song.wav", audio, rate)


@pytest.mark.parametrize("kind", ["mono", "stereo", "5.1", "48 kHz", "96 kHz", "clipped", "silent", "mp3"])
def test_six_stems_sum_to_the_source_whatever_it_is(tmp_path, model, kind):
    studio = Studio(tmp_path)
    path = write(kind, studio)
    result = studio.run(path, model=model)
    assert [stem.name for stem in result.stems] == networks.SIX
    source = sound_of(path)
    total = sum(sound_of(stem.path).astype(np.float64) for stem in result.stems)
    assert total.shape == source.shape
    left_out = np.sqrt(np.mean((total - source) ** 2))
    assert left_out <= 1e-5 * np.sqrt(np.mean(source.astype(np.float64) ** 2))
    project = result.session.read_text(encoding="utf-8")
    assert all(stem in project for stem in networks.SIX)


def test_the_manifest_names_the_model_and_a_second_preset_finds_the_stems_again(tmp_path, model):
    studio = Studio(tmp_path)
    path = studio.song()
    first = studio.manifest(studio.run(path, model=model))
    assert [stem["name"] for stem in first["stems"]] == networks.SIX
    guitar = studio.preset("outputs:\n  - name: strings\n    from: [guitar, piano]\n")
    studio.run(path, model=model, preset=guitar)
    assert "separating" not in studio.phrases


def test_only_the_stems_that_are_asked_for_are_written(tmp_path, model):
    studio = Studio(tmp_path)
    result = studio.run(studio.song(), model=model, delivery={"stems": ["guitar", "piano"]})
    assert {stem.name for stem in result.stems} == {"guitar", "piano"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stage": "mask"}, "no mask stage; leave out --stage"),
        ({"delivery": {"stems": ["strings"]}}, "strings"),
    ],
)
def test_what_this_network_cannot_do_is_one_sentence(tmp_path, model, changes, said):
    studio = Studio(tmp_path)
    with pytest.raises(UsageError, match=said):
        studio.run(studio.song(), model=model, **changes)
