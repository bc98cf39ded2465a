"""What a preset's `delivery:` makes of a song's folder: formats, names, level, tags, sessions, the analysis."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rpp
import signals
import soundfile
from harness.studio import STEMS, Studio, sound_of, stem_of

from tsbs_daw.analysis import analyse
from tsbs_daw.audio.dsp import Levels, Meter
from tsbs_daw.audio.read import probe
from tsbs_daw.audio.tags import Tags, read_tags, write_tags
from tsbs_daw.contracts.job import Job, Result
from tsbs_daw.core.errors import JobCancelled, JobFormatError, NoSpaceLeft, UsageError
from tsbs_daw.pipeline import deliver
from tsbs_daw.pipeline.run import FULL_SHARES

NAMES = "{artist} - {title} [{bpm} BPM {camelot}] {stem}"

# What a song of 3 s at 180 BPM in three is found to be: the first bar begins with the second beat.
ANALYSIS = {
    "schema": 1,
    "duration_s": 3.0,
    "tempo": {"bpm": 180.0, "confidence": 0.9, "doubtful": False, "changes": [{"at_s": 0.25, "bpm": 180.0}]},
    "beats": {
        "times_s": [0.25 + n / 3 for n in range(8)],
        "confidence": 0.9,
        "downbeats_s": [0.25 + (1 + 3 * n) / 3 for n in range(2)],
        "beats_per_bar": 3,
        "meter_confidence": 0.9,
        "meter_doubtful": False,
    },
    "key": {"tonic": "A", "mode": "minor", "camelot": "8A", "confidence": 0.8, "doubtful": False},
    "loudness": {"integrated_lufs": -20.0, "range_lu": 3.0, "true_peak_db": -3.0},
    "intro_s": 0.25,
    "sections": [
        {"start_s": 0.0, "end_s": 1.5, "label": "A", "confidence": 0.5},
        {"start_s": 1.5, "end_s": 3.0, "label": "B", "confidence": 0.5},
    ],
    "notes": ["The bass is very quiet."],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """The same few songs are taken apart once: what becomes of their stems is the subject."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def studio(tmp_path, cache) -> Studio:
    shutil.rmtree(cache / "analyses", ignore_errors=True)
    return Studio(tmp_path, cache)


@pytest.fixture
def analysed(monkeypatch):
    """The analysis finds what it is told to: the musical facts are another test's."""

    def tell(**changes) -> dict:
        answer = json.dumps({"result": {**ANALYSIS, **changes}})
        code = f"import json, sys; plan = json.loads(sys.stdin.readline()); open(plan['answer'], 'w').write({answer!r})"
        monkeypatch.setattr(analyse, "COMMAND", (sys.executable, "-c", code))
        return {**ANALYSIS, **changes}

    return tell


def levels_of(audio: np.ndarray, sample_rate: int = 44100) -> Levels:
    meter = Meter(sample_rate, audio.shape[0])
    meter.add(audio)
    return meter.levels()


def tracks_of(result: Result) -> dict[str, object]:
    project = rpp.loads(result.session.read_text(encoding="utf-8"))
    return {track.find("NAME")[1]: track for track in project.findall("TRACK")}


def files_in(result: Result) -> set[str]:
    return {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("form", "ending", "subtype"),
    [
        ("wav24", ".wav", "PCM_24"),
        ("flac24", ".flac", "PCM_24"),
        ("aiff16", ".aiff", "PCM_16"),
        ("mp3", ".mp3", "MPEG_LAYER_III"),
    ],
)
def test_every_file_has_the_format_that_was_asked_for(studio, form, ending, subtype):
    path = studio.song()
    plain = studio.run(path)
    result = studio.run(path, delivery={"format": form})
    assert files_in(result) == {f"{stem}{ending}" for stem in STEMS} | {"song.RPP", "manifest.json"}
    assert {stem.name for stem in result.stems} == STEMS
    for stem in STEMS:
        info = soundfile.info(result.folder / f"{stem}{ending}")
        assert (info.samplerate, info.frames, info.subtype) == (44100, 44100, subtype)
        if form != "mp3":
            np.testing.assert_allclose(stem_of(result, stem), stem_of(plain, stem), atol=1e-4)
    manifest = studio.manifest(result)
    assert (manifest["format"], manifest["gain_db"], manifest["warnings"]) == (form, 0.0, [])
    assert "separate" not in manifest["timings_s"]
    assert studio.progress == sorted(studio.progress) and studio.progress[-1] <= 1


def test_an_mp3_of_a_high_rate_is_told_of_and_lasts_as_long(studio):
    result = studio.run(studio.song(sample_rate=96000), delivery={"format": "mp3"})
    assert result.warnings == ("The MP3 files have 48000 Hz, because MP3 does not support 96000 Hz.",)
    for stem in STEMS:
        info = soundfile.info(result.folder / f"{stem}.mp3")
        assert (info.samplerate, info.frames) == (48000, 48000)


def test_the_files_are_named_and_the_stems_are_called_as_ever(studio, analysed):
    analysed()
    path = studio.song("Nina Vale - What? Now.wav")
    result = studio.run(path, delivery={"names": NAMES, "source": "copy"}, null=True)
    head = "Nina Vale - What_ Now [180.0 BPM 8A] "
    audio = {f"{head}{name}.wav" for name in (*STEMS, "source")}
    assert files_in(result) == audio | {"Nina Vale - What_ Now.RPP", "manifest.json", "analysis.json"}
    assert {stem.name: stem.path.name for stem in result.stems} == {stem: f"{head}{stem}.wav" for stem in STEMS}
    manifest = studio.manifest(result)
    assert (manifest["artist"], manifest["title"]) == ("Nina Vale", "What_ Now")
    assert set(tracks_of(result)) >= {*STEMS, "source"}
    left_out = sound_of(result.folder / f"{head}source.wav") - sum(stem_of(result, stem) for stem in STEMS)
    assert np.abs(left_out).max() < 1e-5


def test_a_doubtful_figure_is_marked_and_gives_no_grid(studio, analysed):
    told = ANALYSIS["tempo"] | {"doubtful": True}
    analysed(tempo=told, key=ANALYSIS["key"] | {"doubtful": True})
    result = studio.run(studio.song(), delivery={"names": "{bpm} {key} {stem}"})
    assert (result.folder / "~180.0 ~Am bass.wav").is_file()
    project = rpp.loads(result.session.read_text(encoding="utf-8"))
    assert project.find("TEMPO")[1] == "120"
    assert read_tags(result.folder / "~180.0 ~Am bass.wav").title == "song (bass)"


def test_the_session_has_the_grid_the_sections_and_groups(studio, analysed):
    analysed()
    result = studio.run(studio.song(duration_s=3), delivery={"analysis": True, "sessions": ["rpp", "dawproject"]})
    assert result.session.name == "song.RPP" and (result.folder / "song.dawproject").is_file()
    project = rpp.loads(result.session.read_text(encoding="utf-8"))
    assert float(project.find("TEMPO")[1]) == pytest.approx(180) and project.find("TEMPO")[2] == "3"
    markers = {marker[3]: float(marker[2]) for marker in project.findall("MARKER")}
    assert markers["B"] == 1.5 and markers["A"] == 0.0
    assert {"drums", "vocals", "music"} <= set(tracks_of(result))
    assert studio.manifest(result)["sessions"] == ["song.RPP", "song.dawproject"]
    assert studio.manifest(result)["warnings"] == ["The bass is very quiet."]
    assert json.loads((result.folder / "analysis.json").read_text())["tempo"]["bpm"] == 180
    assert studio.phrases[-2:] == ["writing", "analysing"]


@pytest.mark.parametrize("delivery", [{}, {"embed": False}])
def test_a_dawproject_carries_its_audio_unless_it_is_told_not_to(studio, delivery):
    result = studio.run(studio.song(), delivery={"sessions": ["dawproject"], **delivery})
    with zipfile.ZipFile(result.session) as archive:
        audio = [name for name in archive.namelist() if name.endswith(".wav")]
    assert len(audio) == (4 if not delivery else 0)


def test_another_name_needs_no_second_hearing(studio, analysed, monkeypatch):
    analysed()
    path = studio.song()
    first = studio.run(path, delivery={"analysis": True})
    monkeypatch.setattr(analyse, "COMMAND", (sys.executable, "-c", "import os; os.abort()"))
    second = studio.run(path, delivery={"names": "{bpm} {stem}"})
    assert "180.0 bass.wav" in files_in(second) and "separate" not in studio.manifest(second)["timings_s"]
    assert (first.folder / "analysis.json").read_bytes() == (second.folder / "analysis.json").read_bytes()
    other = studio.run(path, delivery={"names": "{bpm} {stem}", "residual": "drop"})
    assert "analysis could not be made" in other.warnings[0]


def test_markers_may_stand_for_bars_or_not_be_there(studio, analysed):
    analysed()
    path = studio.song(duration_s=3)
    for kind, count in (("bars", 2), ("none", 0)):
        result = studio.run(path, delivery={"analysis": True, "markers": kind})
        project = rpp.loads(result.session.read_text(encoding="utf-8"))
        names = [marker[3] for marker in project.findall("MARKER") if marker[3].startswith("bar ")]
        assert len(names) == count


def test_one_gain_takes_the_song_to_its_loudness(studio):
    path = studio.song(duration_s=2)
    plain = studio.run(path)
    before = levels_of(sound_of(path))
    target = round(before.loudness_lufs - 5, 1)
    result = studio.run(path, delivery={"loudness_lufs": target, "source": "copy"})
    manifest = studio.manifest(result)
    assert manifest["gain_db"] == pytest.approx(target - before.loudness_lufs, abs=0.01)
    factor = 10 ** (manifest["gain_db"] / 20)
    for stem in STEMS:
        np.testing.assert_allclose(stem_of(result, stem), stem_of(plain, stem) * factor, atol=1e-6)
    source = sound_of(result.folder / "source.wav")
    np.testing.assert_allclose(source, sound_of(path) * factor, atol=1e-6)
    assert levels_of(source).loudness_lufs == pytest.approx(target, abs=0.05)
    for entry in manifest["stems"]:
        assert entry["true_peak_db"] == pytest.approx(
            levels_of(sound_of(result.folder / entry["file"])).true_peak_db, abs=0.02
        )
    assert manifest["residual_db"] == studio.manifest(plain)["residual_db"] and manifest["warnings"] == []


def test_no_true_peak_passes_minus_one_db_and_the_rest_is_said(studio):
    result = studio.run(studio.song(duration_s=2), delivery={"loudness_lufs": -5, "format": "wav24", "source": "copy"})
    files = [sound_of(path) for path in result.folder.glob("*.wav")]
    together = sum(stem_of(result, stem) for stem in STEMS)
    loudest = max(levels_of(audio).true_peak_db for audio in (*files, together))
    assert loudest == pytest.approx(-1.0, abs=0.02)
    assert any("missed by" in warning for warning in studio.manifest(result)["warnings"])


def test_integers_do_not_cut_off_what_lies_beyond_full_scale(studio):
    audio = signals.mixture(signals.song(1.0))
    loud = signals.write_file(studio.root / "loud.wav", audio * (2.5 / np.abs(audio).max()))
    result = studio.run(loud, delivery={"format": "wav16"}, null=True)
    manifest = studio.manifest(result)
    assert manifest["gain_db"] < -6 and any("lower" in warning for warning in manifest["warnings"])
    assert max(np.abs(stem_of(result, stem)).max() for stem in STEMS) < 1
    total = sum(stem_of(result, stem) for stem in STEMS)
    np.testing.assert_allclose(total, sound_of(loud) * 10 ** (manifest["gain_db"] / 20), atol=1e-3)


def test_tags_and_cover_are_carried_over(studio):
    path = studio.root / "a1.flac"
    signals.write_file(path, signals.mixture(signals.song(1.0)), container="FLAC", subtype="PCM_24")
    cover = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
    tags = Tags(artist="Björk Ünï", title="Дорога", album="Album", genre="House", cover=cover, cover_mime="image/png")
    write_tags(path, tags)
    result = studio.run(path, delivery={"names": "{artist} - {title} {stem}", "format": "aiff24"})
    found = read_tags(result.folder / "Björk Ünï - Дорога bass.aiff")
    assert (found.artist, found.title, found.album, found.cover) == ("Björk Ünï", "Дорога (bass)", "Album", cover)
    manifest = studio.manifest(result)
    assert (manifest["artist"], manifest["title"]) == ("Björk Ünï", "Дорога")


def test_the_source_is_a_muted_track_beside_the_stems_and_no_stem(studio):
    path = studio.song()
    result = studio.run(path, delivery={"source": "copy"})
    assert {stem.name for stem in result.stems} == STEMS
    (entry,) = (entry for entry in studio.manifest(result)["stems"] if entry["kind"] == "source")
    assert entry["muted"] and entry["file"] == "source.wav"
    track = tracks_of(result)["source"]
    assert track.find("MUTESOLO")[1] == "1" and track.find("ITEM").find("SOURCE").find("FILE")[1] == "source.wav"
    np.testing.assert_allclose(sound_of(result.folder / "source.wav"), sound_of(path), atol=1e-6)


def test_the_source_may_stay_where_it_is_but_not_as_a_portion(studio):
    path = studio.song()
    result = studio.run(path, delivery={"source": "reference"})
    assert files_in(result) == {f"{stem}.wav" for stem in STEMS} | {"song.RPP", "manifest.json"}
    file = tracks_of(result)["source"].find("ITEM").find("SOURCE").find("FILE")[1]
    assert Path(file) == path or (result.folder / file).resolve() == path.resolve()
    portion = studio.run(path, delivery={"source": "reference"}, portion={"start_samples": 100})
    assert "source" not in tracks_of(portion)


def test_places_in_the_session_and_in_the_file_agree(studio):
    path = studio.root / "take.wav"
    path.write_bytes(signals.wav_bytes(signals.mixture(signals.song(2.0)), before=signals.bext(1000)))
    portion = {"start_samples": 20000, "length_samples": 30001}
    result = studio.run(path, portion=portion, delivery={"format": "wav24"})
    info = probe(result.folder / "bass.wav")
    assert (info.samples, info.time_reference_samples, result.time_reference_samples) == (30001, 21000, 21000)


@pytest.mark.parametrize("sessions", [(), ("dawproject",), ("dawproject", "rpp")])
def test_the_first_session_is_the_one_that_the_result_names(studio, sessions):
    result = studio.run(studio.song(), delivery={"sessions": sessions})
    endings = {"rpp": "RPP", "dawproject": "dawproject"}
    assert [path.suffix[1:] for path in [result.session] if path] == [endings[session] for session in sessions[:1]]
    assert files_in(result) == {f"{stem}.wav" for stem in STEMS} | {"manifest.json"} | {
        f"song.{endings[session]}" for session in sessions
    }


def test_an_analysis_that_fails_costs_no_stems(studio, monkeypatch):
    monkeypatch.setattr(analyse, "COMMAND", (sys.executable, "-c", "import os; os.abort()"))
    result = studio.run(studio.song(), delivery={"names": NAMES, "loops": [4]})
    assert files_in(result) == {f"song {stem}.wav" for stem in STEMS} | {"song.RPP", "manifest.json"}
    manifest = studio.manifest(result)
    assert manifest["analysis"] is None and "analysis could not be made" in manifest["warnings"][0]
    assert result.warnings == tuple(manifest["warnings"])


def test_an_analysis_that_failed_is_tried_again_without_separating_again(studio, monkeypatch):
    delivery, path = {"names": NAMES, "format": "wav24"}, studio.song()
    with monkeypatch.context() as broken:
        broken.setattr(analyse, "COMMAND", (sys.executable, "-c", "import os; os.abort()"))
        first, second = studio.run(path, delivery=delivery), studio.run(path, delivery=delivery)
    assert first.folder == second.folder and studio.manifest(second)["analysis"] is None
    answer = json.dumps({"result": ANALYSIS})
    code = f"import json, sys; plan = json.loads(sys.stdin.readline()); open(plan['answer'], 'w').write({answer!r})"
    monkeypatch.setattr(analyse, "COMMAND", (sys.executable, "-c", code))
    third = studio.run(path, delivery=delivery)
    assert third.folder == first.folder and "song [180.0 BPM 8A] bass.wav" in files_in(third)
    assert "separate" not in studio.manifest(third)["timings_s"]
    assert [entry.name for entry in studio.out.iterdir()] == [first.folder.name]


@pytest.mark.parametrize("share", [FULL_SHARES["analyse"][0], FULL_SHARES["write"][0] + 0.01])
def test_cancelling_late_leaves_nothing_behind(studio, analysed, share):
    analysed()
    path = studio.song()
    studio.run(path, song="first")
    with pytest.raises(JobCancelled):
        studio.run(path, lambda: studio.progress[-1] >= share, delivery={"names": "{bpm} {stem}", "format": "wav24"})
    assert [entry.name for entry in studio.out.iterdir()] == ["first"]


def test_a_preset_says_what_is_delivered_and_the_request_has_the_last_word(studio):
    preset = studio.preset('outputs: []\ndelivery:\n  format: flac16\n  names: "{title} {stem}"\n')
    path = studio.song()
    result = studio.run(path, preset=preset)
    assert "song bass.flac" in files_in(result)
    changed = studio.run(path, preset=preset, delivery={"format": "wav16"})
    assert "song bass.wav" in files_in(changed) and changed.folder != result.folder
    assert studio.run(path, preset=preset).folder == result.folder
    assert studio.run(path, preset=preset, delivery={"format": "wav16"}).folder == changed.folder


def test_outputs_and_their_stems_lie_in_one_group(studio):
    outputs = """
outputs:
  - {name: voice up, from: vocals}
  - {name: backing, from: [drums, bass, other]}
delivery: {source: copy}
"""
    result = studio.run(studio.song(), preset=studio.preset(outputs))
    project = rpp.loads(result.session.read_text(encoding="utf-8"))
    order = [track.find("NAME")[1] for track in project.findall("TRACK")]
    assert order == [
        "song", "vocals", "voice up", "vocals", "mixes", "backing", "drums", "drums",
        "music", "bass", "other", "source",
    ]  # fmt: skip
    assert {stem.name for stem in result.stems if stem.muted} == STEMS


def test_loops_lie_beside_the_stems_and_lengths_that_the_song_does_not_have_are_said(studio, analysed):
    analysed()
    result = studio.run(studio.song(duration_s=3), delivery={"loops": [1, 8], "format": "wav24"})
    manifest = studio.manifest(result)
    loops = [other["file"] for other in manifest["others"] if other["kind"] == "loop"]
    assert loops and set(loops) == {file for file in files_in(result) if file.startswith("loops/")}
    assert "loops/song [180.0 BPM 8A] drums 1 bar 001.wav" in loops
    assert ["loops of 8 bars" in warning for warning in manifest["warnings"]] == [False, True]
    drums, loop = stem_of(result, "drums"), sound_of(result.folder / "loops/song [180.0 BPM 8A] drums 1 bar 001.wav")
    start = round(44100 * (0.25 + 1 / 3))
    np.testing.assert_array_equal(loop, drums[:, start : start + 44100])


def test_a_stem_mp4_holds_the_song_and_its_stems(studio):
    pytest.importorskip("av", reason="the extra `media` is not installed")
    result = studio.run(studio.song("A - B.wav"), delivery={"stem_mp4": True, "loudness_lufs": -20})
    manifest = studio.manifest(result)
    assert manifest["warnings"] == [] and manifest["others"] == [{"kind": "stem.mp4", "file": "A - B.stem.mp4"}]
    assert read_tags(result.folder / "A - B.stem.mp4").artist == "A" and not (result.folder / "source.wav").exists()


def test_six_channels_make_no_stem_mp4_and_the_stems_are_there(studio):
    result = studio.run(studio.song(channels=6), delivery={"stem_mp4": True})
    (warning,) = studio.manifest(result)["warnings"]
    assert ".stem.mp4 could not be made" in warning and ".tmp-" not in warning
    assert files_in(result) == {f"{stem}.wav" for stem in STEMS} | {"song.RPP", "manifest.json"}


def test_what_cannot_be_delivered_is_refused_before_any_work(studio):
    path = studio.song()
    with pytest.raises(UsageError, match="MP3"):
        studio.run(path, delivery={"format": "mp3", "loops": [4]})
    for wrong in ({"format": "ogg"}, {"names": "{stem}/{title}"}, {"names": "x"}, {"loops": [0]}, {"colour": 1}):
        text = json.dumps({"schema": 1, "source": {"path": "/a.wav"}, "output": "/b", "delivery": wrong})
        with pytest.raises(JobFormatError, match="delivery"):
            Job.from_json(text, "job.json")


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC])
def test_beside_the_stems_only_a_full_disk_is_fatal(studio, monkeypatch, code):
    def refused(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(deliver, "write_dawproject", refused)
    path = studio.song()
    if code == errno.ENOSPC:
        with pytest.raises(NoSpaceLeft):
            studio.run(path, delivery={"sessions": ["dawproject", "rpp"]})
        assert not any(studio.out.iterdir())
    else:
        result = studio.run(path, delivery={"sessions": ["dawproject", "rpp"]})
        assert result.session.name == "song.RPP" and "DAWproject could not be made" in result.warnings[0]


def test_six_channels_that_a_format_cannot_hold_get_another(studio):
    result = studio.run(studio.song(channels=6), delivery={"format": "mp3"})
    assert soundfile.info(result.folder / "bass.wav").subtype == "PCM_24"
    manifest = studio.manifest(result)
    assert manifest["format"] == "wav24" and any("6 channels" in warning for warning in manifest["warnings"])


def test_silence_is_delivered_as_silence(studio):
    path = signals.write_file(studio.root / "nothing.wav", signals.silence(44100))
    result = studio.run(path, delivery={"loudness_lufs": -14, "format": "flac24"})
    assert studio.manifest(result)["gain_db"] == 0 and np.abs(stem_of(result, "bass")).max() < 1e-3


def test_a_manifest_of_an_earlier_version_is_still_recognised(studio):
    path = studio.song()
    result = studio.run(path)
    manifest = studio.manifest(result)
    for key in ("artist", "title", "format", "sessions", "analysis", "others"):
        del manifest[key]
    result.manifest.write_text(json.dumps(manifest), encoding="utf-8")
    again = studio.run(path)
    assert (again.folder, again.session) == (result.folder, result.session)
