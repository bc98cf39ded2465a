"""Recorded vowels played as a sampler plays them: choirs, whose many voices no vocoder keeps apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soxr

from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, add_at
from tsbs_daw.lab.songs.material import Recording
from tsbs_daw.lab.songs.score import Score, Sung
from tsbs_daw.lab.songs.speakers import Speakers

RISE_S, FALL_S = 0.06, 0.15


def resampled(audio: np.ndarray, factor: float, quality: str = "HQ") -> np.ndarray:
    """(samples,) played `factor` times as fast, by soxr at one of its qualities."""
    if abs(factor - 1.0) < 1e-6:
        return audio
    return soxr.resample(audio, SAMPLE_RATE * factor, SAMPLE_RATE, quality=quality).astype(np.float32)


def choir(
    line: Sequence[Sung],
    pool: Sequence[Recording],
    speakers: Speakers,
    score: Score,
    samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """A line on the recordings nearest in pitch, each resampled to its note: (samples,) float32."""
    output = np.zeros(samples, dtype=np.float32)
    for note in line:
        recording = min(pool, key=lambda r: abs(r.row["note"] - note.pitch) + 0.3 * rng.random())
        shift = note.pitch - float(recording.row.get("measured") or recording.row["note"])
        octave = 12 * round(shift / 12) if abs(shift) > 7 else 0  # sung an octave away rather than squeaked
        sound = resampled(speakers.voice(recording).audio, 2.0 ** ((shift - octave) / 12))
        begin_s, end_s = score.seconds(note.beat), score.seconds(note.beat + note.beats)
        length = min(int((end_s - begin_s + FALL_S) * SAMPLE_RATE), len(sound))
        time_s = np.arange(length) / SAMPLE_RATE
        left_s = length / SAMPLE_RATE - time_s
        shape = np.sin(0.5 * np.pi * np.clip(time_s / RISE_S, 0, 1)) * np.sin(
            0.5 * np.pi * np.clip(left_s / FALL_S, 0, 1)
        )
        start = int((begin_s + float(rng.normal(0, 0.015))) * SAMPLE_RATE)
        add_at(output, start, (note.velocity * sound[:length] * shape).astype(np.float32))
    return output
