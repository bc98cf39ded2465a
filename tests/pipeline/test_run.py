"""A job from the file to the folder: stems, session, manifest; what is reused, and what a bad song leaves behind."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import rpp
import signals
import soundfile
from harness.studio import STEMS, Studio, sound_of

from tsbs_daw.audio.read import probe
from tsbs_daw.contracts.job import Result, State
from tsbs_daw.core.errors import EffectError, JobCancelled, NonFiniteAudio, PresetError, UnreadableAudio, UsageError

OUTPUTS = """
description: A test preset.
outputs:
  - name: vocals
    from: [vocals]
    color: "#112233"
    chain:
      - Gain: {gain_db: -6}
  - name: instrumental
    from: [drums, bass, other]
"""


@pytest.fixture
def studio(tmp_path) -> Studio:
    return Studio(tmp_path)


def audio_of(result: Result, name: str) -> np.ndarray:
    return sound_of(result.folder / f"{name}.wav")


@pytest.mark.parametrize("sample_rate", [44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_song_becomes_a_folder_of_stems_with_a_session(studio, sample_rate, channels):
    path = studio.song(sample_rate=sample_rate, duration_s=1.2345, channels=channels)
    result = studio.run(path)
    assert result.state is State.DONE and result.folder == studio.out / "song"
    names = {file.name for file in result.folder.iterdir()}
    assert names == {f"{stem}.wav" for stem in STEMS} | {"song.RPP", "manifest.json"}
    samples = soundfile.info(path).frames
    for stem in result.stems:
        info = soundfile.info(stem.path)
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (sample_rate, channels, samples, "FLOAT")
    assert [entry.name for entry in studio.out.iterdir()] == ["song"], "nothing temporary is left"
    assert studio.progress == sorted(studio.progress) and studio.progress[-1] == pytest.approx(1)


def test_the_manifest_says_what_was_done_and_measured(studio):
    result = studio.run(studio.song(), delivery={"residual": "drop"})
    manifest = studio.manifest(result)
    assert manifest["schema"] == 1 and manifest["model"]["name"] == "default" and manifest["stage"] == "full"
    stems = np.sum([audio_of(result, stem) for stem in STEMS], axis=0, dtype=np.float64)
    mixture = signals.mixture(signals.song(1.0))
    residual_db = 10 * np.log10(np.square(mixture - stems).sum() / np.square(mixture, dtype=np.float64).sum())
    assert manifest["residual_db"] == pytest.approx(residual_db, abs=0.01)
    for entry in manifest["stems"]:
        peak_db = 20 * np.log10(np.abs(audio_of(result, entry["name"])).max())
        assert entry["sample_peak_db"] == pytest.approx(peak_db, abs=0.01)
    assert {"decode", "separate", "write", "total"} <= set(manifest["timings_s"])


def test_the_manifest_of_a_watched_song_names_the_file_that_was_dropped(studio):
    result = studio.run(studio.song(), deliver={"watched": "/music/drop/song.wav"})
    assert studio.manifest(result)["source"]["path"] == "/music/drop/song.wav"


@pytest.mark.parametrize("request_fields", [{}, {"null": True}, {"delivery": {"residual": "share"}}])
@pytest.mark.parametrize(("sample_rate", "channels"), [(44100, 1), (48000, 2), (96000, 2), (44100, 6)])
def test_the_stems_sum_to_the_source(studio, request_fields, sample_rate, channels):
    path = studio.song(sample_rate=sample_rate, duration_s=1.2345, channels=channels)
    result = studio.run(path, **request_fields)
    mixture = sound_of(path)
    left_out = mixture - np.sum([audio_of(result, stem) for stem in STEMS], axis=0, dtype=np.float64)
    assert left_out.shape == mixture.shape
    assert np.square(left_out).sum() < 1e-10 * np.square(mixture, dtype=np.float64).sum()
    manifest = studio.manifest(result)
    assert manifest["residual_db"] < -100 and manifest["residual"] == "share"


def test_the_residual_can_be_a_stem_of_its_own(studio):
    path = studio.song()
    dropped = studio.run(path, delivery={"residual": "drop"})
    result = studio.run(path, delivery={"residual": "separate"})
    assert [stem.name for stem in result.stems][-1] == "residual"
    for stem in STEMS:
        np.testing.assert_array_equal(audio_of(result, stem), audio_of(dropped, stem))
    total = np.sum([audio_of(result, stem.name) for stem in result.stems], axis=0, dtype=np.float64)
    np.testing.assert_allclose(total, sound_of(path), atol=1e-6)
    manifest = studio.manifest(result)
    assert manifest["residual"] == "separate" and manifest["residual_db"] == studio.manifest(dropped)["residual_db"]


def test_a_run_of_a_version_that_knew_of_no_residual_is_recognised(studio):
    path = studio.song()
    first = studio.run(path)
    manifest = first.folder / "manifest.json"
    document = json.loads(manifest.read_text())
    del document["residual"]
    decisive = {
        "source": document["source"]["sha256"], "model": document["model"]["sha256"],
        "preset": document["preset"]["sha256"], "stage": "full", "null": False, "salvage": False, "portion": [0, None],
    }  # fmt: skip
    assert document["identity"] == hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    manifest.write_text(json.dumps(document))
    assert studio.run(path).folder == first.folder
    assert studio.run(path, delivery={"residual": "share"}).folder != first.folder


def test_only_the_stems_that_are_asked_for_are_written(studio):
    path = studio.song()
    every = studio.run(path)
    result = studio.run(path, delivery={"stems": ["vocals"]})
    assert [stem.name for stem in result.stems] == ["vocals"]
    assert {file.name for file in result.folder.iterdir()} == {"vocals.wav", "song.RPP", "manifest.json"}
    np.testing.assert_array_equal(audio_of(result, "vocals"), audio_of(every, "vocals"))
    project = rpp.loads(result.session.read_text(encoding="utf-8"))
    assert [track.find("NAME")[1] for track in project.findall("TRACK")] == ["song", "vocals"]
    assert "separate" not in studio.manifest(result)["timings_s"], "the stems were cached"


@pytest.mark.parametrize(
    ("stems", "names"),
    [
        (["vocals", "rest"], ["vocals", "no_vocals"]),
        (["rest", "drums", "vocals"], ["drums", "vocals", "rest"]),
    ],
)
def test_the_rest_is_the_sum_of_the_stems_that_are_not_named(studio, stems, names):
    path = studio.song()
    result = studio.run(path, delivery={"stems": stems})
    assert [stem.name for stem in result.stems] == names
    total = np.sum([audio_of(result, name) for name in names], axis=0, dtype=np.float64)
    np.testing.assert_allclose(total, sound_of(path), atol=1e-6)


def test_a_preset_may_write_its_outputs_alone(studio, tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text(OUTPUTS + "delivery: {stems: []}\n")
    result = studio.run(studio.song(), preset=str(preset))
    assert [(stem.name, stem.kind) for stem in result.stems] == [("vocals", "output"), ("instrumental", "output")]


@pytest.mark.parametrize(
    ("stems", "words"),
    [
        (["vocal"], "no stem 'vocal'; did you mean 'vocals'"),
        (["guitar"], "it provides"),
        (["rest"], "name at least one"),
        (["vocals", "drums", "bass", "other", "rest"], "name at least one stem, but not all"),
    ],
)
def test_stems_that_the_model_does_not_have_are_refused(studio, stems, words):
    with pytest.raises(UsageError, match=words):
        studio.run(studio.song(), delivery={"stems": stems})
    assert not studio.out.exists() or not list(studio.out.iterdir())


def test_the_mask_stage_alone_sums_to_the_source_by_itself(studio):
    assert studio.manifest(studio.run(studio.song(), stage="mask"))["residual_db"] < -90


def test_an_equal_run_is_recognised_and_another_gets_its_own_folder(studio):
    path = studio.song()
    first = studio.run(path)
    before = {file: file.stat().st_mtime_ns for file in first.folder.iterdir()}
    again = studio.run(path)
    assert again.folder == first.folder and {f: f.stat().st_mtime_ns for f in again.folder.iterdir()} == before
    assert [stem.name for stem in again.stems] == [stem.name for stem in first.stems]
    other = studio.run(path, null=True)
    assert other.folder != first.folder and {f: f.stat().st_mtime_ns for f in first.folder.iterdir()} == before


def test_another_preset_runs_the_effects_only(studio):
    path = studio.song()
    dry = studio.run(path)
    processed = studio.run(path, preset=studio.preset(OUTPUTS))
    assert "separate" in studio.manifest(dry)["timings_s"]
    assert "separate" not in studio.manifest(processed)["timings_s"]
    assert processed.folder.name == "song (test preset)"


def test_outputs_are_mixed_and_processed_and_dry_stems_kept_muted(studio):
    result = studio.run(studio.song(), preset=studio.preset(OUTPUTS))
    stems = {stem.name: stem for stem in result.stems}
    assert set(stems) == {"vocals", "instrumental", "vocals (dry)", "drums", "bass", "other"}
    assert {name for name, stem in stems.items() if not stem.muted} == {"vocals", "instrumental"}
    assert stems["vocals"].color == "#112233"
    gained = audio_of(result, "vocals (dry)") * 10 ** (-6 / 20)
    np.testing.assert_allclose(audio_of(result, "vocals"), gained, atol=1e-6)
    mixed = sum(audio_of(result, stem) for stem in ("drums", "bass", "other"))
    np.testing.assert_allclose(audio_of(result, "instrumental"), mixed, atol=1e-6)


def test_the_session_has_a_track_for_every_file(studio):
    result = studio.run(studio.song(), preset=studio.preset(OUTPUTS))
    project = rpp.loads(result.session.read_text(encoding="utf-8"))
    tracks = project.findall("TRACK")
    assert len(tracks) == 1 + len(result.stems)
    files = [item.find("SOURCE").find("FILE")[1] for track in tracks for item in track.findall("ITEM")]
    assert all((result.folder / file).is_file() for file in files) and len(files) == len(result.stems)


def test_a_portion_keeps_its_place_in_the_session(studio):
    audio = signals.mixture(signals.song(2.0))
    path = studio.root / "take.wav"
    path.write_bytes(signals.wav_bytes(audio, before=signals.bext(1000)))
    result = studio.run(path, portion={"start_samples": 20000, "length_samples": 30001})
    assert result.samples == 30001 and result.time_reference_samples == 21000
    info = probe(result.folder / "bass.wav")
    assert info.samples == 30001 and info.time_reference_samples == 21000


def test_cancelling_leaves_nothing_behind(studio):
    with pytest.raises(JobCancelled):
        studio.run(studio.song(duration_s=9), cancelled=lambda: True)
    assert not studio.out.exists() or not any(studio.out.iterdir())
    assert not any((studio.root / "cache" / "stems").iterdir())


def bad_song(studio: Studio, kind: str) -> Path:
    path = studio.root / "bad.wav"
    if kind == "nan":
        audio = signals.noise(50_000)
        audio[1, 40_000] = np.nan
        signals.write_file(path, audio)
    elif kind == "html":
        path.write_text("<html>404</html>")
    return path


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [("nan", NonFiniteAudio, "40000"), ("html", UnreadableAudio, "bad.wav"), ("missing", UnreadableAudio, "bad.wav")],
)
def test_a_bad_song_ends_in_one_sentence_and_no_folder(studio, kind, error, says):
    with pytest.raises(error, match=says):
        studio.run(bad_song(studio, kind))
    assert not studio.out.exists() or not any(studio.out.iterdir())
    assert not (studio.root / "cache" / "stems").exists() or not any((studio.root / "cache" / "stems").iterdir())


def test_a_preset_for_stems_that_the_model_does_not_give_is_refused_before_any_work(studio):
    text = OUTPUTS.replace("from: [vocals]", "from: [kazoo]")
    with pytest.raises(PresetError, match="kazoo"):
        studio.run(studio.song(), preset=studio.preset(text))
    assert not studio.progress or studio.progress[-1] == 0


def test_an_effect_that_fails_removes_the_folder(studio, monkeypatch):
    from tsbs_daw.effects.chain import OutputRenderer

    monkeypatch.setattr(OutputRenderer, "process", lambda *_, **__: (_ for _ in ()).throw(EffectError("It broke.")))
    with pytest.raises(EffectError):
        studio.run(studio.song(), preset=studio.preset(OUTPUTS))
    assert not any(studio.out.iterdir())


def test_a_damaged_cache_is_computed_again(studio):
    path = studio.song()
    studio.run(path)
    (stem,) = (studio.root / "cache" / "stems").glob("*/bass.wav")
    stem.write_bytes(stem.read_bytes()[:5000])
    assert "separate" in studio.manifest(studio.run(path, null=True))["timings_s"]


def test_songs_side_by_side_are_named_by_what_differs(studio):
    wav = studio.song("a.wav")
    signals.write_file(studio.root / "a.flac", signals.noise(44100), 44100, "FLAC", "PCM_16")
    signals.write_file(studio.root / "a.mp3", signals.noise(44100, seed=2), 44100, "MP3", "MPEG_LAYER_III")
    folders = [studio.run(path).folder.name for path in (wav, studio.root / "a.flac", studio.root / "a.mp3")]
    assert folders == ["a", "a (flac)", "a (mp3)"]
    assert studio.run(studio.root / "a.mp3").folder.name == "a (mp3)", "an equal run is recognised"
    assert studio.run(wav, preset="karaoke").folder.name == "a (karaoke)"
    assert studio.run(studio.root / "a.flac", preset="karaoke").folder.name == "a (flac) (karaoke)"
