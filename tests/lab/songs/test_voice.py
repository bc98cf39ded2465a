"""The sung voice: it hits its notes, has formants and consonants, and is silent between phrases."""

from __future__ import annotations

import numpy as np
import pytest

from tsbs_daw.lab.songs import compose
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, filter_frames, frames_of, stream
from tsbs_daw.lab.songs.score import Sung
from tsbs_daw.lab.songs.voice import pulses, random_singer, sing

SCORE = compose(1000, 6.0, style="pop")


def _sing(*syllables, samples=4 * SAMPLE_RATE):
    singer = random_singer("tenor", "sung", stream(3, "singer"))
    return sing(tuple(syllables), singer, SCORE, samples, stream(3, "take"))


def _beat(time_s):
    return time_s * SCORE.tempo_bpm / 60


def _note(at_s, length_s, pitch, onset=(), vowel=("ah",), coda=()):
    return Sung(_beat(at_s), _beat(length_s), pitch, 0.9, onset, vowel, coda)


@pytest.mark.parametrize("pitch", [45, 57, 69, 76])
def test_a_long_note_is_sung_at_its_pitch(pitch):
    voice = _sing(_note(0.5, 3.0, pitch))
    part = voice[SAMPLE_RATE : 3 * SAMPLE_RATE]
    correlation = np.fft.irfft(np.abs(np.fft.rfft(part, n=2 * len(part))) ** 2)
    wanted = SAMPLE_RATE / (440 * 2 ** ((pitch - 69) / 12))
    lags = np.arange(int(wanted * 0.8), int(wanted * 1.25))
    best = lags[np.argmax(correlation[lags])]
    assert best == pytest.approx(wanted, rel=0.03)


def test_vowels_differ_in_their_formants():
    def share(vowel):
        power = np.abs(np.fft.rfft(_sing(_note(0.5, 3.0, 48, vowel=(vowel,))))) ** 2
        frequency = np.fft.rfftfreq(4 * SAMPLE_RATE, 1 / SAMPLE_RATE)
        return (
            power[(frequency > 1800) & (frequency < 3000)].sum() / power[(frequency > 500) & (frequency < 1100)].sum()
        )

    assert share("ee") > 10 * share("oo")


def test_an_s_is_noise_above_four_kilohertz():
    with_s = _sing(_note(1.0, 1.0, 57, onset=("s",)))
    without = _sing(_note(1.0, 1.0, 57))

    def high(voice):
        part = voice[int(0.9 * SAMPLE_RATE) : int(0.98 * SAMPLE_RATE)]
        spectrum = np.abs(np.fft.rfft(part)) ** 2
        return spectrum[int(4000 / SAMPLE_RATE * len(part)) :].sum()

    assert high(with_s) > 50 * high(without)


def test_there_is_silence_before_and_after_a_note():
    voice = _sing(_note(1.5, 0.8, 60))
    assert np.max(np.abs(voice[: SAMPLE_RATE // 2])) < 1e-4
    assert np.max(np.abs(voice[int(2.8 * SAMPLE_RATE) :])) < 1e-4


def test_a_line_without_notes_is_silence():
    assert not _sing().any()


def test_pulses_have_harmonics_of_equal_strength_up_to_the_top():
    f0_hz = np.full(SAMPLE_RATE, 220.0, dtype=np.float32)
    spectrum = np.abs(np.fft.rfft(pulses(f0_hz))) / SAMPLE_RATE
    harmonics = spectrum[220:17_900:220]
    assert harmonics == pytest.approx(np.ones_like(harmonics), rel=0.01)
    assert spectrum[18_500:].max() < 0.01


def test_a_filter_of_constant_one_returns_its_input():
    signal = np.random.default_rng(1).standard_normal(10_000).astype(np.float32)
    rows = np.arange(frames_of(signal))
    assert filter_frames(signal, np.ones((len(rows), 1025)), rows) == pytest.approx(signal, abs=1e-5)
