"""Effects that pedalboard runs right only in one call: joined from overlapping segments."""

from __future__ import annotations

import numpy as np
import pedalboard
import pytest
import signals

from tsbs_daw.effects.chain import OutputRenderer, render
from tsbs_daw.effects.stages import CONTEXT_S, SEGMENT_S, join
from tsbs_daw.effects.table import Effect, Output

RATE = 8000  # everything here counts in seconds


def one(effect: Effect) -> Output:
    return Output("out", ("sound",), (0.0,), (effect,))


def shift(semitones: float) -> Output:
    return one(Effect("PitchShift", {"semitones": semitones}))


def lengths() -> list[int]:
    """Around every edge of the first two segments."""
    segment, context = round(SEGMENT_S * RATE), round(CONTEXT_S * RATE)
    edges = [0, segment - context, segment, segment + context, 2 * segment, 2 * segment + context]
    return sorted({max(edge + step, 0) for edge in edges for step in (-1, 0, 1)})


@pytest.mark.parametrize("samples", lengths())
def test_a_shift_by_nothing_changes_nothing_whatever_the_length(samples: int):
    sound = signals.noise(samples)
    assert np.abs(render(shift(0), {"sound": sound}, RATE) - sound).max(initial=0) < 1e-6


@pytest.mark.parametrize("effect", [Effect("PitchShift", {"semitones": 4.0}), Effect("GSMFullRateCompressor")], ids=str)
def test_a_stream_gives_what_the_whole_song_gives_across_segments(effect: Effect):
    sound = signals.mixture(signals.song(1.4 * SEGMENT_S, RATE))
    whole = render(one(effect), {"sound": sound}, RATE)
    parts = []
    with OutputRenderer(one(effect), RATE, 2) as renderer:
        for start in range(0, sound.shape[1], 12_345):
            block = sound[:, start : start + 12_345]
            parts.append(renderer.process({"sound": block}, last=start + 12_345 >= sound.shape[1]))
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert whole.shape == sound.shape


def test_joins_keep_the_level():
    """Against one call for the whole song, which has no joins: no hole and no bump in any tenth of a second."""
    sound = signals.mixture(signals.song(1.5 * SEGMENT_S, RATE))
    ours = render(shift(-3), {"sound": sound}, RATE)
    whole = pedalboard.time_stretch(sound, RATE, pitch_shift_in_semitones=-3, preserve_formants=False)

    def levels(audio: np.ndarray) -> np.ndarray:
        return 10 * np.log10(np.square(audio[:, : -(audio.shape[1] % 4000) or None]).reshape(2, -1, 4000).mean((0, 2)))

    assert np.abs(levels(ours) - levels(whole)).max() < 2.5


@pytest.mark.parametrize(("tone_hz", "semitones"), [(110, -5.0), (200, -12.0), (440, -2.0), (440, 7.0)])
def test_the_pitch_is_what_was_asked_for(tone_hz: float, semitones: float):
    """To 3 cents, and nothing beside it; pedalboard's own effect is a quarter tone off on some notes."""
    rate = 44_100
    done = render(shift(semitones), {"sound": signals.tone(tone_hz, 3 * rate)}, rate)[0, rate // 2 : -rate // 2]
    spectrum = np.abs(np.fft.rfft(done * np.hanning(len(done)), 1 << 19))
    hertz = np.arange(len(spectrum)) * rate / (1 << 19)
    peak_hz = hertz[np.argmax(spectrum)]
    assert abs(1200 * np.log2(peak_hz / (tone_hz * 2 ** (semitones / 12)))) < 3
    beside = spectrum[np.abs(hertz - peak_hz) > 4].max()
    assert beside < spectrum.max() / 10


@pytest.mark.parametrize("semitones", [-7, -2, 2, 5, 12])
def test_a_shifted_beat_stays_on_the_beat(semitones: int):
    rate = 44_100
    sound, reach = signals.silence(2 * rate), rate // 20
    click = np.hanning(61)
    for position in (rate // 2, rate, rate + rate // 2):
        sound[:, position - 30 : position + 31] = click
    energy = np.square(render(shift(semitones), {"sound": sound}, rate)[0].astype(np.float64))
    for position in (rate // 2, rate, rate + rate // 2):
        around = energy[position - reach : position + reach]
        assert abs((around * np.arange(-reach, reach)).sum() / around.sum()) < 0.004 * rate


def test_a_telephone_is_on_time():
    rate = 44_100
    voice = signals.song(3.0, rate)["vocals"]
    done = render(one(Effect("GSMFullRateCompressor")), {"sound": voice}, rate)
    size = 1 << 19
    at = int(np.argmax(np.fft.irfft(np.fft.rfft(done[0], size) * np.conj(np.fft.rfft(voice[0], size)))))
    assert min(at, size - at) <= 20


def test_a_join_of_equal_sounds_is_that_sound():
    sound = signals.noise(8000)
    np.testing.assert_allclose(join(sound, sound, 300), sound, atol=1e-6)


def test_a_join_of_unlike_sounds_keeps_the_power_and_sits_where_it_is_quiet():
    before, after = signals.noise(40_000, seed=1), signals.noise(40_000, seed=2)
    quiet = slice(17_000, 19_000)
    before[:, quiet] *= 0.01
    after[:, quiet] *= 0.01
    joined = join(before, after, 1500)
    assert np.array_equal(joined[:, :17_000], before[:, :17_000])
    assert np.array_equal(joined[:, 19_000:], after[:, 19_000:])
    assert joined[:, quiet].std() == pytest.approx(before[:, quiet].std(), rel=0.1)
