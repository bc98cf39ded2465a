"""Dry run of an output on noise of a known level, to see what its chain does before the first song."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tsbs_daw.audio.measure import Levels, Meter
from tsbs_daw.effects.chain import render
from tsbs_daw.effects.table import Output

SAMPLE_RATE = 44100
DURATION_S = 4.0
LEVEL_DB = -18.0  # RMS of each stem: the nominal level of a mix


@dataclass(frozen=True)
class DryRun:
    """The levels of the plain sum of the stems, and of the output."""

    before: Levels
    after: Levels

    @property
    def change_db(self) -> float | None:
        """How much louder the chain makes it, in LU; None if one of the two is silent."""
        if self.before.loudness_lufs is None or self.after.loudness_lufs is None:
            return None
        return self.after.loudness_lufs - self.before.loudness_lufs


def dry_run(output: Output, plugins=None) -> DryRun:
    """Run an output on pink noise, with a different noise for each stem.

    Raises:
        EffectError: the chain cannot be built or fails
    """
    rng = np.random.default_rng(0)
    stems = {source: pink_noise(rng) for source in output.sources}
    plain = Output(output.name, output.sources, output.gain_db)
    return DryRun(_levels(render(plain, stems, SAMPLE_RATE)), _levels(render(output, stems, SAMPLE_RATE, plugins)))


def pink_noise(rng: np.random.Generator) -> np.ndarray:
    """Pink noise, (2, samples) float32 at LEVEL_DB: equal power in every octave above 20 Hz, like music."""
    samples = round(DURATION_S * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal((2, samples)))
    frequencies_hz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    spectrum *= np.where(frequencies_hz < 20, 0, 1 / np.sqrt(np.maximum(frequencies_hz, 20)))
    noise = np.fft.irfft(spectrum, samples)
    return (noise * (10 ** (LEVEL_DB / 20) / np.sqrt(np.square(noise).mean()))).astype(np.float32)


def _levels(audio: np.ndarray) -> Levels:
    meter = Meter(SAMPLE_RATE, audio.shape[0])
    meter.add(audio)
    return meter.levels()
