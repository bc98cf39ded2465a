"""Who plays: built-in timbres by default; training fonts and voices never meet the held-out ones."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.songs import compose, render, soundfont, speech
from tsbs_daw.lab.songs.casting import cast
from tsbs_daw.lab.songs.soundfont import write_midi

installed = bool(shutil.which("espeak-ng")) and all(soundfont.available_fonts(held_out=side) for side in (False, True))
needs_programs = pytest.mark.skipif(not installed, reason="FluidSynth, its sound fonts or espeak-ng are not installed")


def _performers(timbres):
    for seed in range(9500, 9530):
        for part in cast(compose(seed, 10.0), timbres).parts:
            yield part.timbre


def test_built_in_timbres_need_nothing_installed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    score = compose(1000, 5.0)
    assert cast(score, "builtin") is score


@pytest.mark.parametrize("timbres", ["all", "heldout"])
def test_asking_for_programs_that_are_missing_says_what_to_install(monkeypatch, timbres):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="install"):
        cast(compose(1000, 5.0), timbres)


def test_unknown_timbres_are_refused():
    with pytest.raises(UsageError, match="builtin, all, heldout"):
        cast(compose(1000, 5.0), "nice")


def test_training_and_held_out_voices_share_no_language_and_no_variant():
    def parts(voices):
        return {piece for voice in voices for piece in voice.split("+")}

    assert not parts(speech.TRAINING_VOICES) & parts(speech.HELD_OUT_VOICES)


@needs_programs
def test_training_songs_never_use_held_out_fonts_or_voices():
    timbres = list(_performers("all"))
    fonts = {timbre["font"] for timbre in timbres if timbre.get("engine") == "font"}
    speakers = {timbre["speaker"] for timbre in timbres if timbre.get("engine") == "speech"}
    assert fonts
    assert speakers
    assert not any(soundfont.FONTS[font].held_out for font in fonts)
    assert speakers <= set(speech.TRAINING_VOICES)
    assert any("engine" not in timbre for timbre in timbres)


@needs_programs
def test_held_out_songs_use_nothing_else():
    for timbre in _performers("heldout"):
        if timbre["family"] == "sweep":
            continue
        assert timbre.get("engine") in ("font", "speech")
        assert timbre["family"] == "voice" or soundfont.FONTS[timbre["font"]].held_out
        assert timbre["family"] != "voice" or timbre["speaker"] in speech.HELD_OUT_VOICES


@needs_programs
def test_songs_on_fonts_and_voices_are_the_same_every_time():
    score = cast(compose(9500, 4.0, complete=True), "heldout")
    first, second = render(score), render(score)
    for name, stem in first.items():
        assert np.array_equal(stem, second[name])
        assert np.isfinite(stem).all()
        assert stem.any(), name


@needs_programs
def test_a_font_plays_at_the_pitch_and_the_time_asked_for():
    (font, *_) = soundfont.available_fonts(held_out=False)
    audio = soundfont.play_font([(0.5, 1.4, 69, 100)], font, 73, 2 * 44100)
    assert np.max(np.abs(audio[:, : int(0.48 * 44100)])) < 1e-3
    spectrum = np.abs(np.fft.rfft(audio[0, 30_000:60_000] * np.hanning(30_000)))
    peak_hz = np.argmax(spectrum) * 44100 / 30_000
    assert min(abs(peak_hz / 440 - octave) for octave in (1, 2)) < 0.02


@needs_programs
def test_a_spoken_syllable_has_a_voiced_core_and_unvoiced_edges():
    spoken = speech.speak("en-us", (("s",), ("ah",), ("s",)))
    first, last = spoken.core
    assert np.all(spoken.voiced[first:last] == 1.0)
    assert spoken.voiced[:3].mean() < 0.5
    assert 0 < first < last < len(spoken.voiced)


def test_a_midi_file_holds_its_notes_in_order(tmp_path):
    path = tmp_path / "part.mid"
    write_midi(path, [(1.0, 2.0, 60, 90), (0.0, 1.0, 64, 80)], program=5, end_s=3.0)
    data = path.read_bytes()
    assert data[:4] == b"MThd"
    assert data[14:18] == b"MTrk"
    assert int.from_bytes(data[18:22], "big") == len(data) - 22
    assert data.index(bytes((0x90, 64, 80))) < data.index(bytes((0x80, 64, 0))) < data.index(bytes((0x90, 60, 90)))
    assert data.endswith(b"\xff\x2f\x00")
