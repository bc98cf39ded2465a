"""Effects on voices do what their names say, and nothing to the length or the silence."""

from __future__ import annotations

import numpy as np
import pytest
import signals
from lab.songs.pack import RATE

from tsbs_daw.lab.songs import compose, effects
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, stream
from tsbs_daw.lab.songs.score import Note

TIME_S = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE


def _tone(hz, level=0.25):
    return np.tile((level * np.sin(2 * np.pi * hz * TIME_S)).astype(np.float32), (2, 1))


def _level_db(signal):
    return 20 * np.log10(np.sqrt(np.mean(signal[:, SAMPLE_RATE:] ** 2)))


def _click():
    signal = np.zeros((2, 2 * SAMPLE_RATE), dtype=np.float32)
    signal[:, 1000:1200] = 0.5 * np.hanning(200)
    return signal


def test_a_de_esser_turns_down_hiss_and_leaves_vowels_alone():
    hiss, vowel = _tone(8000.0), _tone(300.0)
    assert _level_db(effects.de_ess(hiss, -35.0, 6.0)) < _level_db(hiss) - 5
    assert _level_db(effects.de_ess(vowel, -35.0, 6.0)) == pytest.approx(_level_db(vowel), abs=0.3)


def test_an_echo_repeats_in_time_and_fades():
    repeats = effects.echo(_click(), 0.25, 0.5, (100, 8000), ping_pong=False)
    heights = [
        np.max(np.abs(repeats[:, start : start + 600]))
        for start in (900, *(900 + int(n * 0.25 * SAMPLE_RATE) for n in (1, 2, 3)))
    ]
    assert heights[0] < 1e-3
    assert heights[1] > 1.5 * heights[2] > 2 * heights[3] > 0


def test_a_ping_pong_echo_changes_sides():
    repeats = effects.echo(_click(), 0.25, 0.5, (100, 8000), ping_pong=True)
    first, second = (int(n * 0.25 * SAMPLE_RATE) + 900 for n in (1, 2))
    for start, louder in ((first, 0), (second, 1)):
        peaks = np.max(np.abs(repeats[:, start : start + 600]), axis=1)
        assert np.argmax(peaks) == louder


def test_a_plate_begins_late_and_rings_on():
    wet = effects.plate(_click(), 0.08, 0.7, stream(1, "plate"))
    assert np.max(np.abs(wet[:, : 1000 + int(0.07 * SAMPLE_RATE)])) < 1e-4
    assert np.max(np.abs(wet[:, SAMPLE_RATE:])) > 1e-4


def test_a_doubler_makes_a_voice_wide_and_keeps_its_middle():
    wide = effects.doubled(_tone(440.0), 0.6, stream(1, "doubler"))
    assert np.std(wide[0] - wide[1]) > 0.01


@pytest.mark.parametrize("seed", range(12))
def test_strips_and_spaces_keep_length_silence_and_full_scale(seed):
    rng = stream(seed, "effects")
    dry = _tone(220.0)[:1] * (TIME_S > 1.0)
    strip = effects.channel_strip(dry.astype(np.float32), "lead" if seed % 2 else "double", rng)
    wet = effects.space(strip, 0.5, rng)
    assert strip.shape == wet.shape == (2, 2 * SAMPLE_RATE)
    assert np.isfinite(wet).all()
    assert np.max(np.abs(wet)) <= 1.05
    assert np.max(np.abs(wet[:, : SAMPLE_RATE // 2])) < 1e-3
    assert np.max(np.abs(wet[:, SAMPLE_RATE:])) > 0.01


EFFECTS = sorted(effects._EFFECTS)


@pytest.fixture(scope="module")
def score():
    return compose(1000, 8.0, style="house")


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_keeps_length_and_input_and_changes_the_sound(name, score):
    tone = signals.tone(220.0, 8 * RATE)
    before = tone.copy()
    treated = effects._EFFECTS[name](tone, score, np.random.default_rng(4))
    assert treated.shape == tone.shape
    assert np.isfinite(treated).all()
    assert np.array_equal(tone, before)
    assert not np.array_equal(treated, tone)
    assert np.abs(treated).max() < 2.0


@pytest.mark.parametrize("name", ["gate", "sweep", "stutter", "tape stop", "echo"])
@pytest.mark.parametrize("seed", range(4))
def test_an_effect_does_not_click(name, seed, score):
    tone = signals.tone(110.0, 8 * RATE)
    treated = effects._EFFECTS[name](tone, score, np.random.default_rng(seed))
    assert np.abs(np.diff(treated, axis=1)).max() < 0.06  # the tone itself moves by 0.008; a cut by up to 1


def test_silence_stays_silence(score):
    silence = signals.silence(8 * RATE)
    assert effects.treat("other", silence, score, np.random.default_rng(1)) is silence


@pytest.mark.parametrize("seed", range(12))
def test_effects_on_everything_keep_the_sum(score, seed):
    stems = {name: signals.noise(8 * RATE, seed=number) for number, name in enumerate(("drums", "bass", "other"))}
    treated = effects.treat_everything(stems, score, np.random.default_rng(seed))
    (together,) = effects.treat_everything({"sum": sum(stems.values())}, score, np.random.default_rng(seed)).values()
    assert np.abs(sum(treated.values()) - together).max() < 2e-3


def test_chops_sound_where_the_notes_are(score):
    notes = (Note(0.0, 0.5, 60.0, 0.8), Note(4.0, 0.5, 67.0, 0.8))
    sound = effects.play_chops(signals.tone(300.0, 3 * RATE), notes, score, 8 * RATE, np.random.default_rng(2))
    for note in notes:
        start = int(score.seconds(note.beat) * RATE)
        assert np.abs(sound[:, start : start + 4000]).max() > 0.2
    assert not sound[:, int(score.seconds(2.0) * RATE) : int(score.seconds(3.9) * RATE)].any()
