"""Played phrases and loops as they were recorded: laid along a song, in time where they are loops."""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, add_at
from tsbs_daw.lab.songs.material import Material, Recording
from tsbs_daw.lab.songs.sampler import shape, transpose
from tsbs_daw.lab.songs.score import Part, Score

LOOP_BEATS = (1, 2, 4, 8, 16)
MOST_STRETCH = 0.32  # octaves that a loop may be played faster or slower
EDGE_S = 0.02


def phrase_sources(material: Material, stem: str) -> dict[str, float]:
    """Collections of phrases for a stem, "source/kind" each, with how often each is drawn (larger ones more)."""
    seconds: dict[str, float] = {}
    for recording in material.recordings:
        if recording.stem == stem and _is_phrase(recording):
            name = f"{recording.source}/{recording.kind}"
            seconds[name] = seconds.get(name, 0.0) + recording.seconds
    total = sum(length**0.5 for length in seconds.values())
    return {name: length**0.5 / total for name, length in sorted(seconds.items())}


def _is_phrase(recording: Recording) -> bool:
    return recording.kind == "loop" or recording.kind.endswith("-phrase") or recording.kind == "speech"


def play_phrases(part: Part, score: Score, samples: int, material: Material, rng: np.random.Generator) -> np.ndarray:
    """Phrases of one collection on the beat, with pauses, where the part's events say that it plays: (2, samples).

    The timbre names the collection ("phrases": "source/kind"), optionally one "speaker", and "semitones" to move it by.
    """
    source, kind = part.timbre["phrases"].split("/")
    pool = material.select(source, kind)
    speaker = part.timbre.get("speaker")
    pool = [
        recording for recording in pool if speaker is None or recording.row.get("speaker", source) == speaker
    ] or pool
    ratio = 2.0 ** (float(part.timbre.get("semitones", 0.0)) / 12.0)
    output = np.zeros((2, samples), dtype=np.float32)
    for first, end in _playing(part, score):
        position, end = int(first * SAMPLE_RATE), min(int(end * SAMPLE_RATE), samples)
        while position < end - SAMPLE_RATE // 4:
            sound = transpose(material.audio(pool[int(rng.integers(len(pool)))]), ratio)
            sound = shape(sound, (end - position) / SAMPLE_RATE, EDGE_S, 0.004)
            add_at(output, position, sound / max(float(np.sqrt(np.mean(sound**2))), 1e-3) * np.float32(0.1))
            rest = int(rng.choice([0, 0, 1, 2])) * 60.0 / score.tempo_bpm if rng.random() < 0.6 else 0.0
            position += sound.shape[1] + int(rest * SAMPLE_RATE)
    return output


def _playing(part: Part, score: Score) -> list[tuple[float, float]]:
    """Stretches (start_s, end_s) in which the part has events, merged over gaps of less than two bars."""
    stretches: list[tuple[float, float]] = []
    for event in sorted(part.events, key=lambda event: event.beat):
        start = score.seconds(event.beat)
        end = score.seconds(event.beat + getattr(event, "beats", 0.5))
        if stretches and start - stretches[-1][1] < 2 * score.bar_beats * 60.0 / score.tempo_bpm:
            stretches[-1] = (stretches[-1][0], max(end, stretches[-1][1]))
        else:
            stretches.append((start, end))
    return stretches


def play_loops(part: Part, score: Score, samples: int, material: Material, rng: np.random.Generator) -> np.ndarray:
    """One drum loop brought to the song's tempo, or chopped into eighths and put together anew: (2, samples)."""
    pool = [recording for recording in material.recordings if recording.stem == "drums" and recording.kind == "loop"]
    loop, beats = _fitting(pool, score.tempo_bpm, rng)
    sound = material.audio(loop)
    length = int(beats * 60.0 / score.tempo_bpm * SAMPLE_RATE)
    sound = transpose(sound, sound.shape[1] / length)[:, :length]
    sound = np.broadcast_to(sound, (2, sound.shape[1])) if len(sound) == 1 else sound
    output = np.zeros((2, samples), dtype=np.float32)
    chopped = beats >= 2 and rng.random() < 0.5
    for first, end in _playing(part, score):
        bar_s = score.bar_beats * 60.0 / score.tempo_bpm
        position, end = int(round(first / bar_s) * bar_s * SAMPLE_RATE), min(int(end * SAMPLE_RATE), samples)
        while position < end:
            turn = _chopped(sound, 2 * beats, rng) if chopped and rng.random() < 0.6 else sound
            add_at(output, position, shape(turn, (end - position) / SAMPLE_RATE, EDGE_S, 0.001))
            position += length
    return output


def _fitting(pool: list[Recording], tempo_bpm: float, rng: np.random.Generator) -> tuple[Recording, int]:
    """A loop that needs little stretching, and the beats it is taken to last."""
    for number in rng.permutation(len(pool)):
        lengths = [abs(np.log2(pool[number].seconds * tempo_bpm / 60.0 / beats)) for beats in LOOP_BEATS]
        if min(lengths) <= MOST_STRETCH:
            return pool[number], LOOP_BEATS[int(np.argmin(lengths))]
    return pool[0], 4


def _chopped(loop: np.ndarray, pieces: int, rng: np.random.Generator) -> np.ndarray:
    """The loop's pieces in another order: most stay, some repeat, some run backwards."""
    step = loop.shape[1] // pieces
    output = np.zeros_like(loop)
    for index in range(pieces):
        taken = index if rng.random() < 0.6 else int(rng.integers(pieces))
        piece = loop[:, taken * step : (taken + 1) * step]
        piece = piece[:, ::-1] if rng.random() < 0.06 else piece
        output[:, index * step : (index + 1) * step] = shape(piece, step / SAMPLE_RATE, 0.0, 0.001)
    return output
