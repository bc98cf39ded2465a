"""A sampler: the nearest recorded note at the nearest velocity, resampled to its pitch and cut to its length.

It also plays recorded vowels as choirs, whose many voices no vocoder keeps apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, add_at
from tsbs_daw.lab.songs.material import Material, Recording
from tsbs_daw.lab.songs.score import Score, Sung
from tsbs_daw.lab.songs.speakers import Speakers

ATTACK_S = 0.0006  # recordings begin at the stroke; the shortest ramp that does not click
END_S = 0.02  # fade where a recording is cut by its own end
SAME_NOTE = 0.5  # semitones within which two recordings count as takes of one note
SAME_LAYER = 0.06  # velocities within which two recordings count as one layer
SOFTEST = 0.15  # velocity 0 still sounds


@dataclass(frozen=True)
class Bend:
    """How the pitch moves within a note: it starts `semitones` away, arrives within `seconds`, then may vibrate."""

    semitones: float = 0.0
    seconds: float = 0.1
    vibrato_cents: float = 0.0
    vibrato_hz: float = 5.5
    vibrato_after_s: float = 0.25


class Sampler:
    """Plays one instrument out of its recordings. Takes of the same note and layer alternate."""

    def __init__(self, material: Material, recordings: list[Recording]):
        self._material = material
        self._recordings = [recording for recording in recordings if recording.pitch is not None]
        self._pitches = np.array([recording.pitch for recording in self._recordings])
        self._shifted: dict[tuple[str, int, int], np.ndarray] = {}
        self._turns: dict[tuple[int, int], int] = {}

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest recorded pitch."""
        return float(self._pitches.min()), float(self._pitches.max())

    def choose(self, pitch: float, velocity: float) -> Recording:
        """The recording of the nearest note, of its nearest layer, the next of its takes."""
        nearest = self._pitches[int(np.argmin(np.abs(self._pitches - pitch)))]
        near = [recording for recording in self._recordings if abs(recording.pitch - nearest) <= SAME_NOTE]
        layer = min(near, key=lambda recording: abs(recording.velocity - velocity)).velocity
        takes = [recording for recording in near if abs(recording.velocity - layer) <= SAME_LAYER]
        key = (round(pitch), round(layer * 100))
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        return takes[turn % len(takes)]

    def play(
        self, pitch: float, velocity: float, held_s: float, release_s: float = 0.08, bend: Bend | None = None
    ) -> np.ndarray:
        """One note: (channels, samples) float32, from silence to silence.

        Args:
            pitch: MIDI number; fractions are cents
            velocity: 0..1; chooses the layer, and scales the level by what the layer differs from it
            held_s: seconds until the release begins; a recording that ends earlier ends by itself
            release_s: seconds the release takes
            bend: how the pitch moves within the note
        """
        recording = self.choose(pitch, velocity)
        length = max(int((held_s + release_s) * SAMPLE_RATE), 64)
        shift = pitch - (recording.pitch or 0.0)  # only recordings with a pitch are kept
        sound = self._bent(recording, shift, length, bend) if bend else self._steady(recording, shift, length)
        level = np.clip((velocity + SOFTEST) / (recording.velocity + SOFTEST), 0.35, 2.0)
        return shape(sound, held_s, release_s) * np.float32(level)

    def _steady(self, recording: Recording, shift: float, length: int) -> np.ndarray:
        half_seconds = int(np.ceil(2 * length / SAMPLE_RATE))
        key = (recording.path, round(shift * 100), half_seconds)
        if key not in self._shifted:
            ratio = 2.0 ** (shift / 12.0)
            source = self._material.audio(recording, half_seconds / 2 * ratio)
            self._shifted[key] = transpose(source, ratio)
        return self._shifted[key][:, :length]

    def _bent(self, recording: Recording, shift: float, length: int, bend: Bend) -> np.ndarray:
        time_s = np.arange(length) / SAMPLE_RATE
        curve = shift + bend.semitones * (0.5 + 0.5 * np.cos(np.pi * np.minimum(time_s / bend.seconds, 1.0)))
        if bend.vibrato_cents:
            depth = bend.vibrato_cents / 100 * np.clip((time_s - bend.vibrato_after_s) / 0.3, 0.0, 1.0)
            curve = curve + depth * np.sin(2 * np.pi * bend.vibrato_hz * time_s)
        position = np.concatenate([[0.0], np.cumsum(2.0 ** (curve[:-1] / 12.0))])
        return read_at(self._material.audio(recording, position[-1] / SAMPLE_RATE + 0.01), position)


def transpose(sound: np.ndarray, ratio: float) -> np.ndarray:
    """(channels, samples) played `ratio` times as fast, so that much higher, without aliases."""
    if abs(ratio - 1.0) < 1e-5:
        return sound
    out = soxr.resample(np.ascontiguousarray(sound.T), SAMPLE_RATE * ratio, SAMPLE_RATE, quality="MQ")
    return out.reshape(-1, sound.shape[0]).T


def read_at(sound: np.ndarray, position: np.ndarray) -> np.ndarray:
    """(channels, samples) read at rising fractional positions by cubic interpolation, up to the end of the sound."""
    position = position[position < sound.shape[1] - 3]
    index = position.astype(np.int64)
    part = (position - index).astype(np.float32)
    padded = np.pad(sound, ((0, 0), (1, 2)))
    before, here, after, beyond = (padded[:, index + step] for step in range(4))
    slope, next_slope = 0.5 * (after - before), 0.5 * (beyond - here)
    rest = here - after
    return (((2 * rest + slope + next_slope) * part - 3 * rest - 2 * slope - next_slope) * part + slope) * part + here


def shape(sound: np.ndarray, held_s: float, release_s: float, attack_s: float = ATTACK_S) -> np.ndarray:
    """A copy that rises from zero and falls to zero: at the release, or where the recording itself ends."""
    held = int(held_s * SAMPLE_RATE)
    shaped = sound[:, : held + max(int(release_s * SAMPLE_RATE), 32)].copy()
    length = shaped.shape[1]
    rise = min(max(int(attack_s * SAMPLE_RATE), 1), length)
    shaped[:, :rise] *= np.linspace(0, 1, rise, endpoint=False, dtype=np.float32)
    fall = length - held
    if fall > 0:
        along = np.arange(1, fall + 1, dtype=np.float32) / np.float32(max(int(release_s * SAMPLE_RATE), 32))
        shaped[:, held:] *= np.exp(-4.0 * along) * np.maximum(1.0 - along, 0.0)
    end = min(int(END_S * SAMPLE_RATE), length)
    shaped[:, length - end :] *= np.linspace(1, 0, end, dtype=np.float32)
    return shaped


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
