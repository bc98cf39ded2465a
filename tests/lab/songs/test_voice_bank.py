"""Voice banks: made once with the vocoder, sung from without it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf
from spoken_pack import write_pack

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.__main__ import main
from tsbs_daw.lab.songs import compose, dsp, render, voice_bank
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE
from tsbs_daw.lab.songs.material import open_material
from tsbs_daw.lab.songs.performances import KINDS, perform
from tsbs_daw.lab.songs.speakers import Speakers
from tsbs_daw.lab.songs.voice_bank import MOST_SHIFT, cast_voices, make_bank, open_bank, phrases_of, play_bank

needs_world = pytest.mark.skipif(not dsp.has_pyworld(), reason="pyworld is not installed")


def _write_bank(folder, takes=4):
    """A bank of tones, one phrase a bar."""
    folder.mkdir()
    rows = []
    for number in range(takes):
        sound = np.zeros(8 * SAMPLE_RATE, dtype=np.float32)
        for bar in range(4):
            time_s = np.arange(int(1.4 * SAMPLE_RATE)) / SAMPLE_RATE
            tone = 0.3 * np.sin(2 * np.pi * 220 * time_s) * np.sin(np.pi * time_s / 1.4)
            sound[2 * bar * SAMPLE_RATE : 2 * bar * SAMPLE_RATE + len(tone)] = tone
        name = f"{number:04d}__sung.ogg"
        sf.write(folder / name, sound, SAMPLE_RATE, format="OGG", subtype="VORBIS")
        rows.append(
            {
                "path": name,
                "source": "voice-bank",
                "stem": "vocals",
                "kind": "sung",
                "speaker": "one",
                "seconds": 8.0,
                "tempo_bpm": 120.0,
                "bar_beats": 4,
                "tonic": number,
                "mode": "minor",
                "number": number,
                "phrases": phrases_of(sound),
                "notes": [],
                "drawn": "sung",
                "recordings": [],
            }
        )
    (folder / "index.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture
def bank(tmp_path, monkeypatch):
    monkeypatch.setattr(voice_bank, "BANK_SHARE", 1.0)
    return open_bank(open_material(_write_bank(tmp_path / "bank"), licensed=False))


def _vocals(score):
    return [part for part in score.parts if part.stem == "vocals"]


def test_phrases_are_what_lies_between_pauses(bank):
    assert len(bank.recordings[0].row["phrases"]) == 4
    for bar, (start_s, end_s) in enumerate(bank.recordings[0].row["phrases"]):
        assert start_s == pytest.approx(2 * bar, abs=0.1)
        assert end_s == pytest.approx(2 * bar + 1.4, abs=0.15)


def test_phrases_lie_on_the_beat_and_do_not_overlap(bank):
    for seed in range(1000, 1010):
        score = cast_voices(compose(seed, 20.0, complete=True), bank)
        for part in _vocals(score):
            assert all(abs(clip.semitones) <= MOST_SHIFT + 0.15 for clip in part.events)
            ends = [clip.beat + clip.beats for clip in part.events]
            assert all(clip.beat > end - 0.2 for clip, end in zip(part.events[1:], ends, strict=False))


def test_a_take_in_the_songs_tempo_stays_on_its_beats(bank):
    score = replace(compose(1000, 20.0, style="pop", complete=True), tempo_bpm=120.0)
    lead = next(part for part in _vocals(cast_voices(score, bank)) if part.name == "lead")
    for clip in lead.events:
        if clip.semitones == 0:
            assert abs(clip.beat / 4 - round(clip.beat / 4)) < 0.05


def test_the_same_song_is_sung_the_same_and_audibly(bank):
    score = cast_voices(compose(1001, 10.0, complete=True), bank)
    first, second = render(score, voices=bank), render(score, voices=bank)
    assert np.array_equal(first["vocals"], second["vocals"])
    assert np.isfinite(first["vocals"]).all()
    assert np.max(np.abs(first["vocals"])) > 0.01
    plain = _vocals(score)[0]
    voice = play_bank(plain, score, 10 * SAMPLE_RATE, bank)
    assert np.max(np.abs(np.diff(voice))) < 0.05  # no click where a phrase begins or ends


def test_a_song_without_vocals_stays_without(bank):
    score = compose(1000, 10.0)
    silent = replace(score, parts=tuple(part for part in score.parts if part.stem != "vocals"))
    assert cast_voices(silent, bank) is silent


def test_a_missing_take_is_left_out_and_a_damaged_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(voice_bank, "BANK_SHARE", 1.0)
    folder = _write_bank(tmp_path / "bank", takes=2)
    (folder / "0000__sung.ogg").unlink()
    (folder / "0001__sung.ogg").write_bytes(b"OggS" + bytes(100))
    bank = open_bank(open_material(folder, licensed=False))
    score = cast_voices(compose(1001, 10.0, complete=True), bank)
    assert {clip.path for part in _vocals(score) for clip in part.events} == {"0001__sung.ogg"}
    with pytest.raises(UsageError, match=r"0001__sung.ogg"):
        render(score, voices=bank)


def test_a_folder_without_takes_is_refused(tmp_path):
    pack = write_pack(tmp_path / "pack", 1)
    with pytest.raises(UsageError, match="holds no voice bank"):
        open_bank(open_material(pack))


def test_singing_without_pyworld_says_what_to_install(tmp_path, monkeypatch, capsys):
    dsp._pyworld.cache_clear()
    monkeypatch.setattr(dsp.importlib.util, "find_spec", lambda name: None)
    pack = write_pack(tmp_path / "pack", 1)
    assert main(["voices", str(tmp_path / "bank"), "--material", str(pack), "--minutes", "0.1"]) == UsageError.exit_code
    assert "install tsbs-daw[train]" in capsys.readouterr().err
    dsp._pyworld.cache_clear()


@needs_world
def test_a_bank_is_made_again_alike_and_goes_on_where_it_stopped(tmp_path):
    pack = write_pack(tmp_path / "pack")
    make_bank(tmp_path / "short", pack, 0.15, 3, tmp_path / "cache")
    rows = make_bank(tmp_path / "short", pack, 0.5, 3, tmp_path / "cache")
    whole = make_bank(tmp_path / "whole", pack, 0.5, 3, tmp_path / "cache")
    assert [row["path"] for row in rows] == [row["path"] for row in whole]
    for row in whole:
        assert row["stem"] == "vocals"
        assert row["recordings"]
        assert row["phrases"]
        audio, rate = sf.read(tmp_path / "whole" / row["path"])
        assert rate == SAMPLE_RATE
        assert audio.ndim == 1
        assert 0.05 < np.max(np.abs(audio)) <= 1.0
        assert 3000 < row["bytes"] / row["seconds"] < 14000
        assert np.array_equal(audio, sf.read(tmp_path / "short" / row["path"])[0])


@needs_world
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_performs_with_speech_alone(kind, tmp_path_factory, spoken):
    done = perform(kind, spoken, 7)
    assert np.isfinite(done.audio).all()
    assert np.max(np.abs(done.audio)) > 0.01
    assert done.recordings


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    return Speakers(open_material(write_pack(folder)), tmp_path_factory.mktemp("cache"))


def test_a_pack_without_speech_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no speech"):
        Speakers(open_material(_write_bank(tmp_path / "bank", 1), licensed=False))
