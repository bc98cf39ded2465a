from __future__ import annotations

import numpy as np
import pytest
from analysis.listening import analyse_sounds
from signals import RATE, noise, silence, tone


def sounding(duration_s: float, *spans_s: tuple[float, float]) -> np.ndarray:
    """A tone in the spans, silence elsewhere."""
    wave = tone(300.0, round(duration_s * RATE), amplitude=0.3)
    on = np.zeros(wave.shape[1], np.float32)
    for start, end in spans_s:
        on[round(start * RATE) : round(end * RATE)] = 1
    return wave * on


def test_the_map_of_silences_is_exact():
    vocals = sounding(12.0, (3.1, 5.0), (5.6, 8.25), (9.75, 11.0))
    found = analyse_sounds(vocals + noise(vocals.shape[1]), vocals=vocals).stems["vocals"]
    assert found.first_sound_s == pytest.approx(3.1)
    # the half second between 5.0 and 5.6 is a breath
    assert [(span.start_s, span.end_s) for span in found.silences] == [
        pytest.approx((0, 3.1)), pytest.approx((8.25, 9.75)), pytest.approx((11.0, 12.0)),
    ]  # fmt: skip
    assert found.active_share == pytest.approx(1 - (3.1 + 1.5 + 1.0) / 12, abs=1e-4)


def test_traces_of_other_stems_are_silence():
    vocals = sounding(10.0, (4.0, 8.0))
    found = analyse_sounds(vocals, vocals=vocals + noise(vocals.shape[1], amplitude=0.001)).stems["vocals"]
    assert found.first_sound_s == pytest.approx(4.0)
    assert [(span.start_s, span.end_s) for span in found.silences] == [pytest.approx((0, 4)), pytest.approx((8, 10))]


def test_a_stem_of_nothing_but_traces_never_sounds():
    mixture = noise(RATE * 6, amplitude=0.2)
    found = analyse_sounds(mixture, vocals=mixture * np.float32(0.001), drums=silence(RATE * 6))
    for name in ("vocals", "drums"):
        stem = found.stems[name]
        assert stem.first_sound_s is None
        assert stem.active_share == 0
        assert [(span.start_s, span.end_s) for span in stem.silences] == [pytest.approx((0, 6))]


def test_the_intro_lasts_until_the_first_sound():
    assert analyse_sounds(sounding(9.0, (1.5, 9.0))).intro_s == pytest.approx(1.5)
    silent = analyse_sounds(silence(RATE * 3))
    assert silent.intro_s == 3.0
    assert silent.notes == ("The song is silent.",)


def test_loudness_of_silence_is_none_and_of_a_tone_is_known():
    found = analyse_sounds(tone(1000.0, RATE * 6, amplitude=0.1), drums=silence(RATE * 6))
    assert found.loudness.integrated_lufs == pytest.approx(-20.0, abs=0.1)  # stereo sine of -20 dBFS peak
    assert found.loudness.true_peak_db == pytest.approx(-20.0, abs=0.1)
    assert found.loudness.range_lu == pytest.approx(0.0, abs=0.2)
    quiet = found.stems["drums"].loudness
    assert (quiet.integrated_lufs, quiet.range_lu, quiet.true_peak_db) == (None, None, None)
