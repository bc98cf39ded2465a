"""Sound: bit-equal by seed, finite, at sane levels, and in time with the score."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tsbs_daw.lab.songs import compose, compose_demo, render
from tsbs_daw.lab.songs.mixing import CEILING, bus_gain, loudness_lufs
from tsbs_daw.lab.songs.score import STEMS

RATE = 44100
# Sums of absolute values of four seconds: songs without recordings stay as they were when models were trained on them.
SUMS = {
    1000: {"vocals": 0.0, "drums": 0.0, "bass": 57893.4, "other": 29429.3},
    1003: {"vocals": 0.0, "drums": 0.0, "bass": 42106.9, "other": 40108.2},
    1010: {"vocals": 9694.3, "drums": 13681.6, "bass": 33538.1, "other": 19608.9},
}


@pytest.fixture(scope="module")
def demo():
    return compose_demo()[0]


def test_the_same_seed_sounds_the_same_bit_for_bit():
    first, second = (render(compose(1003, 4.0, complete=True)) for _ in range(2))
    for name in STEMS:
        assert np.array_equal(first[name], second[name])


@pytest.mark.parametrize("seed", SUMS)
def test_old_seeds_sound_as_they_always_did(seed):
    stems = render(compose(seed, 4.0))
    for name, total in SUMS[seed].items():
        assert np.abs(stems[name].astype(np.float64)).sum() == pytest.approx(total, rel=1e-4), name


def test_the_demo_has_four_stems_of_twenty_seconds(demo):
    assert tuple(demo) == STEMS
    for stem in demo.values():
        assert stem.dtype == np.float32
        assert stem.shape == (2, 20 * RATE)
        assert np.isfinite(stem).all()


def test_every_stem_of_the_demo_is_heard_for_most_of_it(demo):
    for name, stem in demo.items():
        blocks = stem[:, : 200 * 4410].reshape(2, 200, 4410)
        sounding = np.sqrt(np.mean(blocks**2, axis=(0, 2))) > 1e-3
        assert sounding.mean() > 0.5, name


def test_the_demo_is_as_loud_as_a_record_and_does_not_clip(demo):
    mixture = sum(demo.values())
    assert -16.0 < loudness_lufs(mixture) < -8.0
    for signal in (mixture, *demo.values()):
        assert np.max(np.abs(signal)) <= CEILING + 1e-3


def test_no_stem_of_the_demo_hides_below_the_others(demo):
    levels = [loudness_lufs(stem) for stem in demo.values()]
    assert max(levels) - min(levels) < 14


def _band_share(stem, low_hz, high_hz):
    power = np.abs(np.fft.rfft(stem.mean(axis=0))) ** 2
    frequency = np.fft.rfftfreq(stem.shape[1], 1 / RATE)
    return power[(frequency >= low_hz) & (frequency < high_hz)].sum() / power.sum()


def test_stems_live_where_their_instruments_do(demo):
    assert _band_share(demo["vocals"], 150, 10_000) > 0.9
    assert _band_share(demo["vocals"], 4_000, 12_000) > 1e-4  # consonants
    assert _band_share(demo["bass"], 25, 800) > 0.8
    assert _band_share(demo["drums"], 5_000, 20_000) > 0.01


def test_drums_sound_on_the_beats_that_the_score_says():
    score = compose(1000, 10.0, style="house", complete=True)
    drums = render(score)["drums"]
    envelope = np.sqrt(np.mean(drums**2, axis=0).reshape(-1, 441).mean(axis=1))
    rise = np.maximum(np.diff(envelope, prepend=0.0), 0.0)
    kicks = [score.seconds(hit.beat) for hit in score.parts[0].events if hit.piece == "kick" and hit.velocity > 0.6]
    kicks = [time_s for time_s in kicks if 0.1 < time_s < 9.5]
    near = [rise[int(time_s * 100) - 1 : int(time_s * 100) + 4].max() for time_s in kicks]
    assert np.median(near) > 4 * np.mean(rise)


def test_a_stem_that_nobody_plays_is_silent():
    score = next(
        score
        for score in (compose(seed, 4.0) for seed in range(1000, 1100))
        if "vocals" not in {p.stem for p in score.parts}
    )
    stems = render(score)
    assert not stems["vocals"].any()
    assert stems["drums"].any()


def test_the_bus_gain_keeps_every_signal_below_the_ceiling():
    rng = np.random.default_rng(5)
    loud = (rng.standard_normal((2, RATE)) * np.linspace(0.1, 2.0, RATE)).astype(np.float32)
    gain = bus_gain([loud, 0.5 * loud])
    assert np.max(np.abs(loud * gain)) <= CEILING + 1e-6
    assert np.max(gain) <= 1.0


def test_the_demo_needs_no_other_program(tmp_path):
    code = (
        "import subprocess, tsbs_daw.lab.songs as s\n"
        "def refuse(*a, **k): raise SystemExit('a program was started')\n"
        "subprocess.run = subprocess.Popen = refuse\n"
        "stems, rate = s.compose_demo(seconds=3.0)\n"
        "assert rate == 44100 and len(stems) == 4\n"
    )
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_loads_without_torch():
    code = "import sys, tsbs_daw.lab.songs; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
