"""A small model learns from a small model."""

from __future__ import annotations

import shutil
from dataclasses import replace

import packaged_networks as networks
import pytest
import soundfile
import torch
from signals import RATE, song

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import CheckpointError, DatasetError, NoSpaceLeft, UnknownModel, UsageError
from tsbs_daw.lab.training import teach as module
from tsbs_daw.lab.training.teach import Lesson, find_songs, teach
from tsbs_daw.models.registry import find, resolve
from tsbs_daw.network import TINY, TwoStageSeparator, checkpoint

SMALL = replace(TINY, feature_dim=16, mask_blocks=1, map_blocks=1, headdim=16, d_state=4, chunk_s=1.0)
SHORT = ["optimiser.total_steps=3", "optimiser.batch=1", "data.segment_s=0.5", "validation.segment_s=0.5",
         "validation.excerpts=1", "validation.every_s=3600"]  # fmt: skip


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(tmp_path / "home", tmp_path / "home" / "cache", tmp_path / "home" / "models")


@pytest.fixture
def lesson(tmp_path) -> Lesson:
    """Three songs, of which one is kept back; a teacher and a smaller student."""
    for number in range(3):
        folder = tmp_path / "music" / f"album {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"song {number}.wav", sum(song(2.0, seed=number).values()).T, RATE)
    for name, config in (("teacher", replace(SMALL, mask_blocks=2)), ("student", SMALL)):
        torch.manual_seed(len(name))
        checkpoint.save(TwoStageSeparator(config), tmp_path / f"{name}.safetensors")
    teacher, student = (str(tmp_path / f"{name}.safetensors") for name in ("teacher", "student"))
    return Lesson("mine", teacher, tmp_path / "music", student, minutes=0.1, device="cpu", changes=SHORT)


def test_a_model_learns_is_measured_on_songs_kept_back_and_is_installed(lesson, settings):
    lines = []
    taught = teach(lesson, settings, report=lines.append)
    assert len(lines) == 3 and all("Separating" in line for line in lines)
    assert taught.kept_back == tuple(path.name for path in find_songs(lesson.songs)["valid"])
    assert set(taught.after_db) == set(taught.before_db) == set(SMALL.stems)
    assert taught.after_db != taught.before_db
    assert taught.seconds["teacher"] > 0 and taught.seconds["student"] > 0
    assert checkpoint.load(resolve("mine", settings)).config == SMALL
    assert find("mine", settings).state == "yours"
    assert checkpoint.read_metadata(taught.path)["taught_by"] == lesson.teacher


def test_what_is_done_is_not_done_again(lesson, settings, monkeypatch):
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    assert teach(lesson, settings, stop) is None
    assert len(list((settings.home / "taught" / "mine" / "songs").glob("*/*/song.json"))) == 2
    lines = []
    assert teach(lesson, settings, report=lines.append) is not None
    assert len(lines) == 1
    monkeypatch.setattr(module, "_separate_one", None)
    assert teach(replace(lesson, overwrite=True), settings) is not None


def test_stems_of_a_song_lie_in_one_folder_and_sum_to_it_as_the_teacher_does(lesson, settings):
    work = settings.home / "taught" / "mine"
    teach(lesson, settings)
    (kept,) = (work / "songs" / "valid").iterdir()
    assert {path.name for path in kept.iterdir()} == {*(f"{stem}.flac" for stem in SMALL.stems), "song.json"}
    assert soundfile.info(kept / "drums.flac").frames == 2 * RATE


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"name": "default"}, UnknownModel, "reserved for a known model"),
        ({"name": "a/b"}, UsageError, "cannot be a model's name"),
        ({"teacher": "nobody"}, UnknownModel, "nobody"),
    ],
)
def test_a_lesson_that_cannot_be_is_refused(lesson, settings, changes, error, words):
    with pytest.raises(error, match=words):
        teach(replace(lesson, **changes), settings)


def test_a_teacher_with_other_stems_is_refused(lesson, settings, tmp_path):
    other = replace(SMALL, stems=("speech", "music"))
    checkpoint.save(TwoStageSeparator(other), tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match=r"makes speech, music and .* makes drums, bass"):
        teach(replace(lesson, teacher=str(tmp_path / "other.safetensors")), settings)


@pytest.mark.parametrize("kind", ["htdemucs", "bs-roformer"])
def test_a_network_of_another_package_teaches(lesson, settings, tmp_path, kind):
    network = networks.build(kind, {**networks.TINY[kind], "stems": ["vocals", "bass", "drums", "other"]})
    teacher = str(networks.saved(network, tmp_path / "other.safetensors"))
    taught = teach(replace(lesson, teacher=teacher), settings)
    assert set(taught.after_db) == set(SMALL.stems)
    assert checkpoint.load(resolve("mine", settings)).config == SMALL


def test_a_network_of_six_stems_cannot_teach_four(lesson, settings, tmp_path):
    network = networks.build("htdemucs", networks.TINY["htdemucs"])
    teacher = str(networks.saved(network, tmp_path / "six.safetensors"))
    with pytest.raises(
        UsageError, match=r"makes drums, .*, guitar, piano and .* choose a --student with the teacher's"
    ):
        teach(replace(lesson, teacher=teacher), settings)


def test_a_student_of_another_package_s_network_is_refused(lesson, settings, tmp_path):
    network = networks.build("htdemucs", networks.TINY["htdemucs"])
    student = str(networks.saved(network, tmp_path / "six.safetensors"))
    with pytest.raises(CheckpointError, match="requires a TS-BSMamba2 model"):
        teach(replace(lesson, student=student), settings)


def test_too_few_songs_to_keep_any_back_are_refused(lesson, settings, tmp_path):
    shutil.rmtree(lesson.songs / "album 0")
    with pytest.raises(DatasetError, match="holds 1 songs; at least 2"):
        teach(lesson, settings)
    with pytest.raises(DatasetError, match="does not exist"):
        teach(replace(lesson, songs=tmp_path / "nowhere"), settings)


def test_a_song_that_cannot_be_read_is_named_and_left_out(lesson, settings, caplog):
    broken = lesson.songs / "album 0" / "broken 1.wav"
    broken.write_bytes(b"RIFF nothing")
    assert broken in find_songs(lesson.songs)["train"]
    assert teach(lesson, settings) is not None
    assert broken.name in caplog.text


def test_when_no_song_kept_back_can_be_read_nothing_is_trained(lesson, settings):
    (kept,) = find_songs(lesson.songs)["valid"]
    kept.write_bytes(b"RIFF nothing")
    with pytest.raises(DatasetError, match=f"kept back to measure with can be read: {kept.name}"):
        teach(lesson, settings)


def test_a_full_disk_loses_nothing_and_is_named(lesson, settings, monkeypatch):
    usage = shutil.disk_usage(settings.home.parent)
    calls = iter([usage, usage._replace(free=0)])
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: next(calls))
    with pytest.raises(NoSpaceLeft, match="is full; free some space and rerun the command"):
        teach(lesson, settings)
    assert len(list((settings.home / "taught" / "mine" / "songs").glob("*/*/song.json"))) == 1
