"""A job's quality and its models: exact sums on any input, what counts as the same, and what the manifest states."""

from __future__ import annotations

import json

import numpy as np
import packaged_networks as networks
import pytest
import signals
from harness.studio import Studio, sound_of

from tsbs_daw.core.errors import UnknownModel, UsageError

SILENCE_DB = -100


@pytest.fixture
def studio(tmp_path) -> Studio:
    return Studio(tmp_path)


def stems_of(result) -> dict[str, np.ndarray]:
    return {stem.name: sound_of(stem.path) for stem in result.stems}


def source(studio: Studio, kind: str):
    if kind == "silent":
        return signals.write_file(studio.root / "song.wav", np.zeros((2, 40_000), np.float32), 44_100)
    rate, channels = {"mono": (44_100, 1), "stereo": (44_100, 2), "5.1": (44_100, 6), "96 kHz": (96_000, 2)}[kind]
    return studio.song(sample_rate=rate, channels=channels, duration_s=1.2345)


@pytest.mark.parametrize("quality", ["fast", "best"])
@pytest.mark.parametrize("kind", ["mono", "stereo", "5.1", "96 kHz", "silent"])
def test_the_stems_of_every_quality_sum_to_the_source(studio, quality, kind):
    path = source(studio, kind)
    result = studio.run(path, delivery={"quality": quality})
    mixture = sound_of(path)
    left_out = mixture - np.sum(list(stems_of(result).values()), axis=0, dtype=np.float64)
    assert left_out.shape == mixture.shape
    assert np.square(left_out).sum() <= 1e-10 * np.square(mixture, dtype=np.float64).sum()
    assert studio.manifest(result)["quality"] == quality


@pytest.mark.parametrize("kind", ["htdemucs", "bs-roformer", "mel-band-roformer"])
def test_best_works_for_the_networks_of_other_packages(studio, kind):
    model = str(networks.saved(networks.build(kind, networks.TINY[kind]), studio.root / "model.safetensors"))
    path = studio.song(sample_rate=48_000)
    result = studio.run(path, model=model, delivery={"quality": "best"})
    total = np.sum(list(stems_of(result).values()), axis=0, dtype=np.float64)
    np.testing.assert_allclose(total, sound_of(path), atol=1e-5)


def test_normal_is_what_a_job_gets_that_says_nothing_and_counts_as_the_same(studio):
    path = studio.song()
    first = studio.run(path)
    assert studio.manifest(first)["quality"] == "normal"
    assert studio.run(path, delivery={"quality": "normal"}).folder == first.folder


def test_a_run_of_a_version_that_knew_of_no_quality_is_recognised(studio):
    path = studio.song()
    first = studio.run(path)
    document = json.loads(first.manifest.read_text())
    del document["quality"]
    first.manifest.write_text(json.dumps(document))
    assert studio.run(path).folder == first.folder


def test_each_quality_is_separated_by_itself_and_found_again(studio):
    path = studio.song(duration_s=4.0)
    results = {}
    for quality in ("fast", "normal", "best"):
        results[quality] = studio.run(path, delivery={"quality": quality})
        assert "separate" in studio.manifest(results[quality])["timings_s"], f"{quality} is another's in the cache"
    assert len({result.folder for result in results.values()}) == 3
    sounds = {quality: stems_of(result)["vocals"] for quality, result in results.items()}
    assert not any(np.array_equal(sounds["normal"], sounds[other]) for other in ("fast", "best"))
    again = studio.run(path, delivery={"quality": "best", "residual": "drop"})
    assert "separate" not in studio.manifest(again)["timings_s"], "the stems were cached"


def test_a_preset_can_ask_for_a_quality_and_a_job_for_another(studio):
    preset = studio.preset("outputs: []\ndelivery: {quality: best}\n")
    path = studio.song()
    assert studio.manifest(studio.run(path, preset=preset))["quality"] == "best"
    other = studio.run(path, preset=preset, delivery={"quality": "fast"})
    assert studio.manifest(other)["quality"] == "fast"


def test_two_models_are_averaged_and_the_manifest_names_both(studio):
    paths = []
    for name, seed in (("one", 1), ("two", 2)):
        network = networks.build("htdemucs", networks.TINY["htdemucs"], seed)
        paths.append(str(networks.saved(network, studio.root / f"{name}.safetensors")))
    song = studio.song()
    alone = [stems_of(studio.run(song, model=path, delivery={"residual": "drop"})) for path in paths]
    result = studio.run(song, model=",".join(paths), delivery={"residual": "drop"})
    for stem, audio in stems_of(result).items():
        np.testing.assert_allclose(audio, (alone[0][stem] + alone[1][stem]) / 2, atol=1e-6)
    manifest = studio.manifest(result)
    assert manifest["model"]["name"] == ",".join(paths)
    assert result.folder not in {studio.run(song, model=path, delivery={"residual": "drop"}).folder for path in paths}


def test_models_that_cannot_be_averaged_are_one_sentence(studio):
    six = str(networks.saved(networks.build("htdemucs", networks.TINY["htdemucs"]), studio.root / "six.safetensors"))
    with pytest.raises(UsageError, match=r"^The models default and six cannot be averaged: .* Choose models of the"):
        studio.run(studio.song(), model=f"default,{six}")
    with pytest.raises(UnknownModel, match="There is no model 'defualt'; did you mean 'default'"):
        studio.run(studio.song(), model="default,defualt")


def test_a_comma_in_a_file_s_name_separates_nothing(studio):
    network = networks.build("htdemucs", networks.TINY["htdemucs"])
    path = networks.saved(network, studio.root / "one, two.safetensors")
    assert studio.manifest(studio.run(studio.song(), model=str(path)))["model"]["name"] == str(path)
