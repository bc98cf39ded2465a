from __future__ import annotations

import numpy as np
import pytest
import signals

from tsbs_daw.audio.dsp import Levels, Meter, db, gain


def measure(sound: np.ndarray, sample_rate: int = 48000, block: int = 4800) -> Levels:
    meter = Meter(sample_rate, sound.shape[0])
    for start in range(0, sound.shape[1], block):
        meter.add(sound[:, start : start + block])
    return meter.levels()


@pytest.mark.parametrize("rate", [44100, 48000, 96000, 192000])
@pytest.mark.parametrize("level_db", [-23.0, -33.0])
def test_the_reference_tone_of_ebu_tech_3341_has_its_loudness(rate, level_db):
    """Cases 1 and 2: a stereo sine of 1 kHz at -23 (-33) dBFS for 20 s is -23 (-33) LUFS, within 0.1."""
    levels = measure(signals.tone(1000, 20 * rate, rate, amplitude=gain(level_db)), rate, 65536)
    assert levels.loudness_lufs == pytest.approx(level_db, abs=0.1)
    assert levels.sample_peak_db == pytest.approx(level_db, abs=0.01)
    assert levels.rms_db == pytest.approx(level_db - 3.01, abs=0.01)


def test_loudness_is_gated_as_in_ebu_tech_3341_case_3():
    """10 s at -36, 60 s at -23, 10 s at -36 dBFS: the quiet parts do not count."""
    parts = [
        signals.tone(1000, 48000 * s, 48000, amplitude=gain(level)) for s, level in ((10, -36), (60, -23), (10, -36))
    ]
    assert measure(np.concatenate(parts, axis=1), block=65536).loudness_lufs == pytest.approx(-23.0, abs=0.1)


def test_a_true_peak_between_samples_is_found():
    """A sine of a quarter of the rate, sampled 45 degrees beside its crests: 3 dB more than its samples."""
    phase = np.pi / 2 * np.arange(48000) + np.pi / 4
    sound = (np.sin(phase) * np.hanning(48000) ** 0.25)[None].astype(np.float32) * 0.5
    levels = measure(sound)
    assert levels.sample_peak_db == pytest.approx(-9.03, abs=0.02)
    assert levels.true_peak_db == pytest.approx(-6.02, abs=0.1)


def test_a_true_peak_at_the_very_end_counts():
    sound = signals.silence(10_000)
    sound[:, -1] = 0.9
    assert measure(sound).true_peak_db == pytest.approx(measure(sound).sample_peak_db, abs=0.5)


def test_levels_do_not_depend_on_the_blocks():
    sound = signals.mixture(signals.song(2.0, 48000))
    one, other = measure(sound, block=97), measure(sound, block=10**6)
    assert one.loudness_lufs == pytest.approx(other.loudness_lufs)
    assert one.rms_db == pytest.approx(other.rms_db)
    assert (one.sample_peak_db, one.true_peak_db, one.samples) == (other.sample_peak_db, other.true_peak_db, 96000)


def test_silence_has_no_level():
    for samples in (0, 1, 48000):
        assert measure(signals.silence(samples)) == Levels(None, None, None, None, samples)


def test_a_sound_too_short_for_loudness_has_peaks():
    levels = measure(signals.tone(1000, 480, 48000))
    assert levels.loudness_lufs is None
    assert levels.sample_peak_db == pytest.approx(-6.02, abs=0.01)


@pytest.mark.parametrize(("channels", "rate"), [(1, 8000), (6, 44100), (32, 48000), (2, 384000)])
def test_any_file_that_can_be_read_can_be_measured(channels, rate):
    assert measure(signals.noise(rate, channels=channels), rate).samples == rate


def test_a_meter_that_was_read_takes_no_more():
    meter = Meter(48000, 2)
    meter.add(signals.noise(1000))
    assert meter.levels() == meter.levels()
    with pytest.raises(ValueError, match="use a new Meter for a new stream"):
        meter.add(signals.noise(1000))


def test_decibels_and_ratios_are_inverse():
    assert db(0.0) is None
    assert db(1.0) == 0.0
    assert db(gain(-17.5)) == pytest.approx(-17.5)
