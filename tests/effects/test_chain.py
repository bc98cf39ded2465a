"""Outputs as streams: as many samples out as in, none late, the same however the song is cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pedalboard
import pytest
import signals
import soundfile

from tsbs_daw.core.errors import EffectError
from tsbs_daw.effects.chain import OutputRenderer, render
from tsbs_daw.effects.stages import BLOCK_SAMPLES
from tsbs_daw.effects.table import EFFECTS, Effect, Output

RATE = signals.RATE

# Parameters with which each effect does something, and, where its purpose is a delay, with which it is transparent.
AUDIBLE = {
    "BrickwallLimiter": {"ceiling_db": -15.0, "true_peak": True},
    "Clipping": {"threshold_db": -15.0},
    "Compressor": {"threshold_db": -30.0, "ratio": 4.0},
    "Distortion": {"drive_db": 12.0},
    "Gain": {"gain_db": -3.0},
    "HighShelfFilter": {"gain_db": 4.0},
    "HighpassFilter": {"cutoff_frequency_hz": 200.0},
    "LadderFilter": {"cutoff_hz": 9000.0, "resonance": 0.2},
    "LowShelfFilter": {"gain_db": 4.0},
    "LowpassFilter": {"cutoff_frequency_hz": 9000.0},
    "NoiseGate": {"threshold_db": -25.0},
    "PeakFilter": {"gain_db": 4.0},
    "PitchShift": {"semitones": -3.0},
    "Resample": {"target_sample_rate": 16_000.0},
}
TRANSPARENT = {
    "Chorus": {"mix": 0.0},
    "Delay": {"mix": 0.0},
    "Convolution": {"mix": 1.0},
    "Reverb": {"wet_level": 0.0, "dry_level": 1.0},
}


@pytest.fixture
def response(tmp_path):
    path = tmp_path / "through.wav"
    soundfile.write(path, np.eye(1, 64, dtype=np.float32).T, RATE, subtype="FLOAT")
    return str(path)


def one(effect: Effect, *more: Effect) -> Output:
    return Output("out", ("sound",), (0.0,), (effect, *more))


def cut_up(output: Output, sound: np.ndarray, cuts: list[int], rate: int = RATE) -> np.ndarray:
    parts, edges = [], [0, *cuts, sound.shape[1]]
    with OutputRenderer(output, rate, sound.shape[0]) as renderer:
        for start, stop in pairwise(edges):
            parts.append(renderer.process({"sound": sound[:, start:stop]}))
        parts.append(renderer.process({"sound": sound[:, :0]}, last=True))
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("name", EFFECTS)
def test_a_stream_gives_what_the_whole_song_gives(name: str, response: str):
    file = {"impulse_response_filename": response} if name == "Convolution" else {}
    output = one(Effect(name, AUDIBLE.get(name, {}) | file))
    sound = signals.mixture(signals.song(2.0))
    whole = render(output, {"sound": sound}, RATE)
    assert whole.shape == sound.shape and whole.dtype == np.float32
    rng = np.random.default_rng(1)
    for cuts in ([1, 2, 3], sorted(rng.integers(0, sound.shape[1], 7).tolist()), list(range(0, 80_000, 20_000))):
        assert np.array_equal(cut_up(output, sound, cuts), whole)


@pytest.mark.parametrize(
    "name", [name for name, kind in EFFECTS.items() if not kind.segments and name != "Convolution"]
)
def test_the_sound_is_pedalboards_own(name: str):
    sound = signals.mixture(signals.song(1.5))
    arguments = AUDIBLE.get(name, {})
    theirs = getattr(pedalboard, name)(**arguments).process(sound, RATE)
    ours = render(one(Effect(name, arguments)), {"sound": sound}, RATE)
    assert np.array_equal(ours, theirs)


def lag(late: np.ndarray, sound: np.ndarray) -> int:
    """How many samples `late` is behind `sound`: where their correlation is strongest."""
    size = 2 * len(sound)
    correlation = np.fft.irfft(np.fft.rfft(late, size) * np.conj(np.fft.rfft(sound, size)))
    at = int(np.argmax(np.abs(correlation)))
    return at if at < size // 2 else at - size


@pytest.mark.parametrize("name", [name for name, kind in EFFECTS.items() if kind.aligned and not kind.segments])
def test_no_effect_is_late(name: str):
    sound = signals.noise(RATE)
    done = render(one(Effect(name, AUDIBLE.get(name, {}))), {"sound": sound}, RATE)
    # A low-pass moves what it lets through by a sample or two; that is the filter itself.
    assert abs(lag(done[0], sound[0])) <= {"LadderFilter": 2, "LowpassFilter": 1}.get(name, 0)


@pytest.mark.parametrize("name", TRANSPARENT)
def test_effects_that_delay_on_purpose_are_otherwise_on_time(name: str, response: str):
    file = {"impulse_response_filename": response} if name == "Convolution" else {}
    sound = signals.impulses(30_000, [0, 9000, 29_999])
    done = render(one(Effect(name, TRANSPARENT[name] | file)), {"sound": sound}, RATE)
    assert set(np.flatnonzero(np.abs(done[0]) > 0.05)) == {0, 9000, 29_999}


def test_an_impulse_stays_at_its_sample_through_every_delaying_effect_at_once():
    chain = (
        Effect("BrickwallLimiter", {"true_peak": True, "lookahead_ms": 50.0}),
        Effect("Resample", {"target_sample_rate": 88_200.0}),
        Effect("BrickwallLimiter"),
        Effect("MP3Compressor", {"vbr_quality": 0.0}),
    )
    positions = [100, 20_000, 49_000]
    sound = signals.impulses(50_000, positions)
    done = render(one(*chain), {"sound": sound}, RATE)
    for position in positions:
        around = np.abs(done[0, max(position - 500, 0) : position + 500])
        assert int(np.argmax(around)) == min(position, 500)


@pytest.mark.parametrize(
    "samples", [0, 1, 2, 100, BLOCK_SAMPLES - 1, BLOCK_SAMPLES, BLOCK_SAMPLES + 1, 3 * BLOCK_SAMPLES]
)
def test_as_many_samples_come_out_as_went_in(samples: int):
    chain = (Effect("BrickwallLimiter"), Effect("Resample"), Effect("Compressor"), Effect("Reverb"))
    assert render(one(*chain), {"sound": signals.noise(samples)}, RATE).shape == (2, samples)


def test_no_chain_is_the_sum_of_the_stems_with_their_gains():
    stems = signals.song(1.0)
    output = Output("out", ("drums", "vocals"), (0.0, -6.0))
    wanted = stems["drums"] + stems["vocals"] * np.float32(10 ** (-6 / 20))
    assert np.array_equal(render(output, stems, RATE), wanted)


def test_a_tail_ends_with_the_song():
    sound = signals.impulses(RATE, [RATE - 5000])
    done = render(one(Effect("Reverb", {"room_size": 0.9})), {"sound": sound}, RATE)
    assert done.shape == sound.shape and np.abs(done[:, -50:]).max() > 0


def test_one_song_leaves_nothing_behind_for_the_next():
    output = one(Effect("Reverb"), Effect("Delay"), Effect("Phaser"))
    loud, quiet = signals.noise(RATE), signals.silence(RATE)
    first = render(output, {"sound": loud}, RATE)
    assert np.abs(render(output, {"sound": quiet}, RATE)).max() == 0
    assert np.array_equal(render(output, {"sound": loud}, RATE), first)


def test_a_mix_sums_its_branches_as_pedalboard_does():
    sound = signals.mixture(signals.song(1.0))
    squash = {"threshold_db": -30.0, "ratio": 8.0}
    branches = (
        Effect("Gain", {"gain_db": 0.0}),
        Effect("Chain", children=(Effect("Compressor", squash), Effect("Gain", {"gain_db": 2.0}))),
    )
    theirs = pedalboard.Mix(
        [pedalboard.Gain(0.0), pedalboard.Chain([pedalboard.Compressor(**squash), pedalboard.Gain(2.0)])]
    ).process(sound, RATE)
    ours = render(one(Effect("Mix", children=branches)), {"sound": sound}, RATE)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_branches_of_different_delay_meet_at_the_same_sample():
    branches = (
        Effect("Gain", {"gain_db": 0.0}),
        Effect("Chain", children=(Effect("BrickwallLimiter", {"lookahead_ms": 30.0}), Effect("Invert"))),
    )
    sound = signals.noise(60_000, amplitude=0.05)  # below the limiter's ceiling: the branches cancel
    output = one(Effect("Mix", children=branches), Effect("Gain", {"gain_db": 0.0}))
    assert np.abs(render(output, {"sound": sound}, RATE)).max() < 1e-6
    assert np.abs(cut_up(output, sound, [5, 9000, 31_000])).max() < 1e-6


def test_a_mix_in_a_mix_keeps_its_length():
    deep = Effect("Mix", children=(Effect("BrickwallLimiter"), Effect("Gain", {"gain_db": -60.0})))
    output = one(Effect("Mix", children=(deep, Effect("Resample"))))
    assert render(output, {"sound": signals.noise(10_001)}, RATE).shape == (2, 10_001)


# A chorus and a reverb are made to give the two sides of a pair a different sound.
@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("name", [name for name in EFFECTS if name not in ("Chorus", "Reverb")])
def test_every_channel_is_treated_alike(name: str, channels: int, response: str):
    """Six equal channels come out equal, none untouched, and the same as one alone."""
    file = {"impulse_response_filename": response} if name == "Convolution" else {}
    output = one(Effect(name, AUDIBLE.get(name, {}) | file))
    sound = signals.noise(9000, channels=1)
    alone = render(output, {"sound": sound}, RATE)
    many = render(output, {"sound": np.repeat(sound, channels, axis=0)}, RATE)
    assert many.shape == (channels, 9000)
    if name not in ("MP3Compressor", "PitchShift"):  # joint coding, and one phase for all channels
        np.testing.assert_allclose(many, np.repeat(alone, channels, axis=0), atol=1e-6)
    assert not np.array_equal(many, np.repeat(sound, channels, axis=0)) or name == "Convolution"


def test_a_reverb_reaches_all_of_six_channels():
    sound = signals.impulses(20_000, [10], channels=6)
    done = render(one(Effect("Reverb")), {"sound": sound}, RATE)
    assert (np.abs(done[:, 5000:]).max(axis=1) > 0).all()


def test_a_filter_above_half_the_sample_rate_is_taken_down_below_it():
    sound = signals.tone(440, 8000, 8000)
    for name in ("LowpassFilter", "HighShelfFilter", "PeakFilter"):
        done = render(one(Effect(name, {"cutoff_frequency_hz": 15_000.0})), {"sound": sound}, 8000)
        assert np.abs(done[:, 100:] - sound[:, 100:]).max() < 0.05


def test_a_stem_that_is_not_a_number_is_named_with_its_sample():
    stems = signals.song(1.0)
    stems["drums"][1, 30_001] = np.nan
    output = Output("backing", ("bass", "drums"), (0.0, 0.0), (Effect("Reverb"),))
    with pytest.raises(EffectError, match="The stem 'drums' is not finite at sample 30001, so the output 'backing'"):
        render(output, stems, RATE)


def test_an_effect_that_gives_no_numbers_is_named(tmp_path):
    poison = np.zeros((64, 1), np.float32)
    poison[3] = np.nan
    soundfile.write(tmp_path / "poison.wav", poison, RATE, subtype="FLOAT")
    chain = (Effect("Gain"), Effect("Convolution", {"impulse_response_filename": str(tmp_path / "poison.wav")}))
    with pytest.raises(EffectError, match="The effect Convolution returned NaN or infinity"):
        render(one(*chain), {"sound": signals.noise(20_000)}, RATE)


def test_a_level_that_runs_away_is_named():
    chain = [Effect("Gain", {"gain_db": 36.0})] * 3
    with pytest.raises(EffectError, match="The effect Gain became unstable"):
        render(one(*chain), {"sound": signals.noise(20_000)}, RATE)


@pytest.mark.parametrize(
    ("effect", "what"),
    [
        (Effect("Gain", {"gain_db": float("nan")}), "Gain is invalid: gain_db must be a finite number"),
        (Effect("Gain", {"gain": 1.0}), "gain is unknown"),
        (Effect("Flanger"), "no effect 'Flanger'"),
        (
            Effect("Convolution", {"impulse_response_filename": "/gone.wav"}),
            "Cannot read .* '/gone.wav'",
        ),
        (Effect("Convolution", {"impulse_response_filename": __file__}), "Cannot read the impulse response"),
    ],
)
def test_an_effect_that_cannot_be_made_is_named(effect: Effect, what: str):
    with pytest.raises(EffectError, match=what):
        render(one(effect), {"sound": signals.noise(100)}, RATE)


def test_what_pedalboard_refuses_is_told_in_its_words():
    with pytest.raises(EffectError, match=r"The effect MP3Compressor failed: MP3 only supports .* change or remove it"):
        render(one(Effect("MP3Compressor")), {"sound": signals.noise(100)}, 96_000)


def test_a_missing_stem_is_named():
    with pytest.raises(EffectError, match="needs the stem 'guitar'"):
        render(Output("out", ("guitar",), (0.0,)), signals.song(0.1), RATE)
