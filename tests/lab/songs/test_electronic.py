"""Electronic effects: same length, finite, no clicks of their own, linear where they fall on whole mixes."""

from __future__ import annotations

import numpy as np
import pytest
import signals
from lab.songs.pack import RATE

from tsbs_daw.lab.songs import compose, electronic
from tsbs_daw.lab.songs.score import Note

EFFECTS = sorted(electronic._EFFECTS)


@pytest.fixture(scope="module")
def score():
    return compose(1000, 8.0, style="house")


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_keeps_length_and_input_and_changes_the_sound(name, score):
    tone = signals.tone(220.0, 8 * RATE)
    before = tone.copy()
    treated = electronic._EFFECTS[name](tone, score, np.random.default_rng(4))
    assert treated.shape == tone.shape
    assert np.isfinite(treated).all()
    assert np.array_equal(tone, before)
    assert not np.array_equal(treated, tone)
    assert np.abs(treated).max() < 2.0


@pytest.mark.parametrize("name", ["gate", "sweep", "stutter", "tape stop", "echo"])
@pytest.mark.parametrize("seed", range(4))
def test_an_effect_does_not_click(name, seed, score):
    tone = signals.tone(110.0, 8 * RATE)
    treated = electronic._EFFECTS[name](tone, score, np.random.default_rng(seed))
    assert np.abs(np.diff(treated, axis=1)).max() < 0.06  # the tone itself moves by 0.008; a cut by up to 1


def test_silence_stays_silence(score):
    silence = signals.silence(8 * RATE)
    assert electronic.treat("other", silence, score, np.random.default_rng(1)) is silence


@pytest.mark.parametrize("seed", range(12))
def test_effects_on_everything_keep_the_sum(score, seed):
    stems = {name: signals.noise(8 * RATE, seed=number) for number, name in enumerate(("drums", "bass", "other"))}
    treated = electronic.treat_everything(stems, score, np.random.default_rng(seed))
    (together,) = electronic.treat_everything({"sum": sum(stems.values())}, score, np.random.default_rng(seed)).values()
    assert np.abs(sum(treated.values()) - together).max() < 2e-3


def test_chops_sound_where_the_notes_are(score):
    notes = (Note(0.0, 0.5, 60.0, 0.8), Note(4.0, 0.5, 67.0, 0.8))
    sound = electronic.play_chops(signals.tone(300.0, 3 * RATE), notes, score, 8 * RATE, np.random.default_rng(2))
    for note in notes:
        start = int(score.seconds(note.beat) * RATE)
        assert np.abs(sound[:, start : start + 4000]).max() > 0.2
    assert not sound[:, int(score.seconds(2.0) * RATE) : int(score.seconds(3.9) * RATE)].any()
