"""Try an output on a sound of known level, to find out before the first song what its chain does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tsbs_daw.audio.measure import Levels, Meter
from tsbs_daw.effects.chain import render
from tsbs_daw.effects.output import Output

SAMPLE_RATE = 44100
DURATION_S = 4.0
LEVEL_DB = -18.0  # RMS of each stem: what a mixing engineer calls nominal


@dataclass(frozen=True)
class Rehearsal:
    """The levels of the plain sum of the stems, and of the output."""

    before: Levels
    after: Levels

    @property
    def change_db(self) -> float | None:
        """How much louder the chain makes it, in LU; None when one of the two is silent."""
        if self.before.loudness_lufs is None or self.after.loudness_lufs is None:
            return None
        return self.after.loudness_lufs - self.before.loudness_lufs


def rehearse(output: Output, plugins=None) -> Rehearsal:
    """Run an output on pink noise, another noise for every stem.

    Raises: EffectError
    """
    rng = np.random.default_rng(0)
    stems = {source: pink_noise(rng) for source in output.sources}
    plain = Output(output.name, output.sources, output.gain_db)
    return Rehearsal(_levels(render(plain, stems, SAMPLE_RATE)), _levels(render(output, stems, SAMPLE_RATE, plugins)))


def pink_noise(rng: np.random.Generator) -> np.ndarray:
    """(2, samples) float32 at LEVEL_DB: as much power in every octave, as music has, from 20 Hz up."""
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
