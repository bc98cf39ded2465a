from __future__ import annotations

import numpy as np
import pytest
import signals
import soxr

from tsbs_daw.audio.dsp import QUALITY, Resampler, fit_length, resampled_length

PAIRS = [
    (44100, 48000),
    (48000, 44100),
    (96000, 44100),
    (44100, 192000),
    (8000, 44100),
    (384000, 44100),
    (44100, 44101),
]


def in_blocks(sound: np.ndarray, size: int) -> list[np.ndarray]:
    return [sound[:, start : start + size] for start in range(0, sound.shape[1], size)]


def resample(sound: np.ndarray, from_hz: int, to_hz: int, block: int = 65536) -> np.ndarray:
    resampler = Resampler(from_hz, to_hz, sound.shape[0])
    made = [resampler.process(part) for part in in_blocks(sound, block)]
    return np.concatenate([*made, resampler.process(sound[:, :0], last=True)], axis=1)


def there_and_back(sound: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    back = resample(resample(sound, from_hz, to_hz), to_hz, from_hz)
    return np.concatenate(list(fit_length([back], sound.shape[1])), axis=1)


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
@pytest.mark.parametrize("samples", [0, 1, 2, 63, 1000, 44101])
def test_the_length_is_the_one_that_was_announced(from_hz, to_hz, samples):
    made = resample(signals.noise(samples), from_hz, to_hz)
    assert made.shape == (2, resampled_length(samples, from_hz, to_hz))
    assert resampled_length(made.shape[1], to_hz, from_hz) >= samples, "a way back never falls short"


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_the_result_does_not_depend_on_how_the_stream_is_cut(from_hz, to_hz):
    sound = signals.noise(40_000)
    whole = resample(sound, from_hz, to_hz, 40_000)
    for block in (1, 997, 4096):
        part = sound[:, :2000] if block == 1 else sound
        assert np.array_equal(resample(part, from_hz, to_hz, block), resample(part, from_hz, to_hz, 40_000))
    once = soxr.resample(sound.T, from_hz, to_hz, quality=QUALITY).T
    assert abs(once.shape[1] - whole.shape[1]) <= 1
    assert np.array_equal(once, whole[:, : once.shape[1]])


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44100, 48000), (48000, 44100), (96000, 44100), (192000, 44100)])
def test_an_impulse_is_at_the_same_sample_after_a_way_there_and_back(from_hz, to_hz):
    places = [0, 5000, 12_345, 29_900]
    back = there_and_back(signals.impulses(30_000, places), from_hz, to_hz)
    for place in places:
        near = slice(max(place - 300, 0), place + 300)
        assert near.start + int(np.abs(back[0, near]).argmax()) == place


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44100, 48000), (48000, 44100), (96000, 44100), (22050, 44100)])
def test_a_tone_nulls_against_itself_after_a_way_there_and_back(from_hz, to_hz):
    sound = signals.tone(997, 50_000, from_hz)
    inside = slice(2000, -2000)  # the ends ring, for a tone that starts from nothing has every frequency
    residual = np.abs(there_and_back(sound, from_hz, to_hz) - sound)[:, inside].max()
    assert 20 * np.log10(residual / 0.5) < -120


def test_equal_rates_change_nothing():
    sound = signals.noise(1000)
    assert np.array_equal(resample(sound, 44100, 44100, 7), sound)


@pytest.mark.parametrize("channels", [1, 6])
def test_channels_stay_apart(channels):
    sound = signals.silence(5000, channels=channels)
    sound[channels - 1] = signals.noise(5000, channels=1)[0]
    made = resample(sound, 44100, 48000)
    assert not made[: channels - 1].any()
    assert made[channels - 1].any()


@pytest.mark.parametrize("samples", [0, 1, 99, 100, 101, 200_000])
def test_a_stream_is_fitted_by_cutting_or_padding_its_end(samples):
    sound = signals.noise(100)
    made = list(fit_length(in_blocks(sound, 30), samples))
    whole = np.concatenate([np.zeros((2, 0), np.float32), *made], axis=1)
    assert whole.shape == (2, samples)
    assert np.array_equal(whole[:, :100], sound[:, :samples])
    assert not whole[:, 100:].any()


def test_fitting_takes_arrays_of_stems_too():
    made = list(fit_length([np.ones((4, 2, 10), np.float32)], 15))
    assert [part.shape for part in made] == [(4, 2, 10), (4, 2, 5)]


def test_fitting_reads_the_source_to_its_end_where_errors_may_wait():
    def source():
        yield signals.noise(100)
        raise ValueError("cut short")

    with pytest.raises(ValueError, match="cut short"):
        list(fit_length(source(), 50))
