"""Recorded sentences sung: on the melody's pitch, with their own vowels and consonants."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from spoken_pack import SCORE, beat, sentence

from tsbs_daw.lab.songs import dsp
from tsbs_daw.lab.songs.dsp import HOP, SAMPLE_RATE, stream
from tsbs_daw.lab.songs.recorded_voice import Delivery, revoice, sing_recorded
from tsbs_daw.lab.songs.score import Sung
from tsbs_daw.lab.songs.speakers import Voice, level_db, spoken_syllables
from tsbs_daw.lab.songs.voice import FRAME_S, random_singer

pytestmark = pytest.mark.skipif(not dsp.has_pyworld(), reason="pyworld is not installed")
PITCHES = (50, 55, 52, 57, 59, 48)
PLAIN = Delivery(evenness=0.0)


@pytest.fixture(scope="module")
def voice() -> Voice:
    audio = sentence()
    return Voice(audio, dsp.analyse_voice(audio))


def _line() -> tuple[Sung, ...]:
    return tuple(
        Sung(beat(0.5 + 0.6 * n), beat(0.55), pitch, 1.0, ("t",), ("ah",), (), phrase_start=n == 0)
        for n, pitch in enumerate(PITCHES)
    )


def _sing(voice: Voice, delivery: Delivery = PLAIN, **changes) -> np.ndarray:
    singer = replace(random_singer("baritone", "sung", stream(5, "singer")), **changes)
    syllables = spoken_syllables(voice)
    return sing_recorded(_line(), syllables, delivery, singer, SCORE, 5 * SAMPLE_RATE, stream(5, "take"), 0.0)


def test_a_sentence_has_its_syllables(voice):
    syllables = spoken_syllables(voice)
    assert 6 <= len(syllables) <= 9
    assert all(s.begin <= s.core[0] < s.core[1] <= s.end for s in syllables)
    assert all(left.end == right.begin for left, right in pairwise(syllables))


def test_the_pitch_follows_the_melody_within_thirty_cents(voice):
    f0_hz = dsp.analyse_voice(_sing(voice), 800.0).f0_hz
    for number, pitch in enumerate(PITCHES):
        first, end = (int((0.5 + 0.6 * number + edge) / FRAME_S) for edge in (0.12, 0.4))
        found = f0_hz[first:end]
        assert np.mean(found > 0) > 0.8
        cents = 1200 * np.log2(np.median(found[found > 0]) / 440) + 6900 - 100 * pitch
        assert abs(cents) < 30


def test_vowels_keep_their_formants(voice):
    sung, syllables = dsp.analyse_voice(_sing(voice), 800.0), spoken_syllables(voice)
    bins = slice(int(250 * 2048 / SAMPLE_RATE), int(4500 * 2048 / SAMPLE_RATE))
    for number in range(len(PITCHES)):
        first, end = (int((0.5 + 0.6 * number + edge) / FRAME_S) for edge in (0.1, 0.4))
        core = syllables[number].core
        here = sung.log_power[first:end, bins].mean(axis=0)
        own = voice.frames.log_power[core[0] : core[1] + 1, bins].mean(axis=0)
        others = [voice.frames.log_power[s.core[0] : s.core[1] + 1, bins].mean(axis=0) for s in syllables]
        distances = [np.std(here - other) for other in others]
        assert np.std(here - own) * 10 / np.log(10) < 5.0  # dB
        assert distances[number] < 1.3 * min(distances)  # as near as another syllable of the same vowel
        assert max(distances) > 5 * distances[number]


def test_moved_formants_lie_higher():
    log_power = np.zeros((1, 1025), dtype=np.float32)
    log_power[0, 100] = 1.0
    assert np.argmax(dsp.move_formants(log_power, 1.2)) == 120
    assert np.argmax(dsp.move_formants(log_power, 0.85)) == 85


def test_unvoiced_consonants_are_the_recorded_ones(voice):
    syllables = spoken_syllables(voice)
    hissing = [s for s in syllables if np.mean(voice.frames.f0_hz[s.begin : s.core[0]] > 0) < 0.6]
    assert hissing
    output = _sing(voice)
    found = 0
    for number, syllable in enumerate(syllables[: len(PITCHES)]):
        if syllable not in hissing:
            continue
        unvoiced = np.flatnonzero(voice.frames.f0_hz[syllable.begin : syllable.core[0]] == 0) + syllable.begin
        first, end = unvoiced[1] * HOP, unvoiced[-2] * HOP
        piece = voice.audio[first:end]
        if len(piece) < 1000 or np.std(piece) < 1e-3:
            continue
        onset = int((0.5 + 0.6 * number) * SAMPLE_RATE)
        around = output[max(onset - 15_000, 0) : onset + 2000]
        likeness = np.correlate(around, piece, "valid") / np.sum(piece**2)
        at = int(np.argmax(likeness))
        assert likeness[at] == pytest.approx(1.0, abs=0.25)
        low, high = np.abs(np.fft.rfft(piece)), np.abs(np.fft.rfft(around[at : at + len(piece)] / likeness[at]))
        assert np.sqrt(np.mean((low - high) ** 2) / np.mean(low**2)) < 0.3
        found += 1
    assert found


def test_a_whisper_has_no_pitch_and_the_same_words(voice):
    output = _sing(voice, Delivery(whisper=True))
    assert np.mean(dsp.analyse_voice(output).f0_hz > 0) < 0.05
    assert np.max(np.abs(output)) > 0.01


def test_a_rap_keeps_the_length_of_spoken_vowels(voice):
    sung, rapped = _sing(voice), _sing(voice, Delivery(rap=True))
    assert np.mean(np.abs(rapped) > 0.01) < 0.8 * np.mean(np.abs(sung) > 0.01)


def test_joins_do_not_click(voice):
    output = _sing(voice)

    def sharpest(signal):
        return np.max(np.abs(np.diff(signal, 2)))

    loudness = np.max(np.abs(output)) / np.max(np.abs(voice.audio))
    assert sharpest(output) < 2.0 * max(loudness, 1.0) * sharpest(voice.audio)
    assert np.max(np.abs(output[:100])) < 1e-4


def test_another_voice_says_the_same_in_the_same_time(voice):
    output = revoice(voice, Delivery(formants=1.15), 7.0, 1.0, stream(1, "x"))
    assert abs(len(output) - len(voice.audio)) < 2 * HOP
    here, there = dsp.analyse_voice(output), voice.frames
    both = (here.f0_hz[: len(there)] > 0) & (there.f0_hz[: len(here)] > 0)
    shift = 12 * np.log2(np.median(here.f0_hz[: len(there)][both]) / np.median(there.f0_hz[: len(here)][both]))
    assert shift == pytest.approx(7.0, abs=0.3)
    a, b = level_db(here, 200, 5000), level_db(there, 200, 5000)
    count = min(len(a), len(b))
    assert np.corrcoef(a[:count], b[:count])[0, 1] > 0.9


def test_an_analysis_is_made_once(tmp_path, voice, monkeypatch):
    first = dsp.analyse_cached(voice.audio, tmp_path)
    monkeypatch.setattr(dsp, "analyse_voice", lambda *_: pytest.fail("analysed again"))
    second = dsp.analyse_cached(voice.audio, tmp_path)
    assert np.allclose(first.f0_hz, second.f0_hz, rtol=1e-5)
    assert np.allclose(first.log_power, second.log_power, atol=0.02)


def test_a_damaged_analysis_is_made_again(tmp_path, voice):
    dsp.analyse_cached(voice.audio, tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    assert len(dsp.analyse_cached(voice.audio, tmp_path)) == len(voice.frames)
