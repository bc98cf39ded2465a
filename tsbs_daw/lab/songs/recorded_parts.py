"""Parts played on recordings: single notes as players play them, and whole phrases and loops.

Bass, guitar, keyboard and wind parts are damped, bent, chorded and double-tracked; guitars go through an amplifier (an
input filter, one or two stages of drive, a loudspeaker cabinet and its room). Phrases and loops are laid along a song
as they were recorded, in time where they are loops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pedalboard import Compressor, Distortion, HighpassFilter, HighShelfFilter, LowpassFilter, PeakFilter, Reverb

from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, add_at
from tsbs_daw.lab.songs.instruments import Bend, Instrument, Sampler, instrument, recordings_of, shape, transpose
from tsbs_daw.lab.songs.material import Material, Recording
from tsbs_daw.lab.songs.mixing import process, rms_to
from tsbs_daw.lab.songs.score import Note, Part, Score


@dataclass(frozen=True)
class Amplifier:
    """Ranges that one amplifier of its kind is drawn from; levels in dB, frequencies in Hz."""

    drive_db: tuple[float, float]
    second_db: tuple[float, float]  # a pedal before it
    pedal: float  # how often there is one
    focus_db: tuple[float, float]  # mids before the drive
    top_hz: tuple[float, float]  # where the cabinet ends
    room: float


AMPLIFIERS = {
    "clean": Amplifier((0.0, 6.0), (4.0, 10.0), 0.1, (-3.0, 3.0), (4500.0, 8000.0), 0.25),
    "crunch": Amplifier((12.0, 24.0), (6.0, 14.0), 0.3, (0.0, 5.0), (4200.0, 6000.0), 0.2),
    "lead": Amplifier((24.0, 34.0), (8.0, 18.0), 0.6, (2.0, 8.0), (3800.0, 5500.0), 0.2),
    "metal": Amplifier((32.0, 42.0), (6.0, 12.0), 0.7, (-2.0, 6.0), (4000.0, 6000.0), 0.08),
}


def amplify(direct: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A direct signal (2, samples) through an amplifier of a kind; silence stays silence."""
    amp = AMPLIFIERS[kind]
    chain: list = [
        HighpassFilter(_u(rng, (60, 140))),
        PeakFilter(_u(rng, (600, 1200)), _u(rng, amp.focus_db), 0.7),
    ]
    if rng.random() < amp.pedal:
        chain += [Distortion(_u(rng, amp.second_db)), LowpassFilter(_u(rng, (3500, 9000)))]
    chain += [Distortion(_u(rng, amp.drive_db)), PeakFilter(_u(rng, (350, 900)), _u(rng, (-8, 3)), 0.8)]
    top = _u(rng, amp.top_hz)
    chain += [  # the cabinet: a bump where the box resonates, a presence peak, and a steep end
        HighpassFilter(_u(rng, (60, 95))),
        PeakFilter(_u(rng, (100, 160)), _u(rng, (1, 5)), 1.2),
        PeakFilter(_u(rng, (1900, 3400)), _u(rng, (1, 7)), 1.1),
        *[LowpassFilter(top * factor) for factor in (1.0, 1.1, 1.25, 1.4)],
        HighShelfFilter(6000, -6.0),
    ]
    if rng.random() < 0.5:
        chain.append(Compressor(-20, _u(rng, (1.5, 3.0)), 10, 120))
    if rng.random() < 0.7:
        chain.append(Reverb(_u(rng, (0.05, 0.3)), 0.6, amp.room * _u(rng, (0.2, 1.0)), 0.9, _u(rng, (0.3, 1.0))))
    return process(rms_to(direct, -18.0), chain)


def _u(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    return float(rng.uniform(*ends))


CHORD_BEATS = 0.06  # notes that start this close together are one chord
SHORT_S = 0.2  # notes up to this long may be damped
REACH = 3.0  # semitones beyond the recorded range before a part moves by an octave


def play_recorded_part(
    part: Part, score: Score, samples: int, material: Material, rng: np.random.Generator
) -> np.ndarray:
    """A part on the recorded instrument named by its timbre: (2, samples) float32.

    The timbre has "instrument", and may have "amp" (an amplifier) and "tracks": 2 for two takes, left and right.
    """
    tracks = int(part.timbre.get("tracks", 1))
    output = np.zeros((2, samples), dtype=np.float32)
    for track in range(tracks):
        take = _take(part, score, samples, material, rng)
        if part.timbre.get("amp"):
            take = amplify(take, part.timbre["amp"], rng)
        if tracks == 1:
            output += take
        else:
            side = track % 2
            output[side] += take[side]
            output[1 - side] += np.float32(0.12) * take[1 - side]
    return output


def _take(part: Part, score: Score, samples: int, material: Material, rng: np.random.Generator) -> np.ndarray:
    name = part.timbre["instrument"]
    entry = instrument(part.stem, name)
    open_notes = Sampler(material, recordings_of(material, part.stem, name))
    damped = recordings_of(material, part.stem, entry.muted) if entry.muted else []
    damped_notes = Sampler(material, damped) if damped else None
    damping = float(rng.choice([0.0, 0.3, 0.9])) if damped else 0.0
    output = np.zeros((2, samples), dtype=np.float32)
    notes = _fold(_roots(part.events) if entry.chords else list(part.events), open_notes.range)
    laziness, drift = float(rng.uniform(0.002, 0.007)), 0.0
    starts = [score.seconds(note.beat) for note in notes]
    ends = _ends(notes, score, entry)
    leading = part.mix.get("figure") == "riff" or part.stem == "bass"
    for note, start_s, end_s in zip(notes, starts, ends, strict=True):
        drift = 0.85 * drift + float(rng.normal(0.0, laziness * 0.5))
        held_s = max(end_s - start_s, 0.03)
        start = int(max(start_s + drift + float(rng.normal(0.0, laziness * 0.4)), 0.0) * SAMPLE_RATE)
        if start >= samples:
            continue
        velocity = float(np.clip(note.velocity + rng.normal(0.0, 0.05), 0.08, 1.0))
        player = open_notes
        if damped_notes is not None and held_s < SHORT_S and rng.random() < damping:
            player = damped_notes
        bend = _bend(note, held_s, leading, entry, rng)
        add_at(output, start, _stereo(player.play(note.pitch, velocity, held_s, entry.release_s, bend)))
    if entry.noises:
        _add_noises(output, notes, score, material, entry.noises, rng)
    return output


def _stereo(sound: np.ndarray) -> np.ndarray:
    return np.broadcast_to(sound, (2, sound.shape[1])) if len(sound) == 1 else sound


def _roots(notes: tuple[Note, ...]) -> list[Note]:
    """The lowest note of every chord: what an instrument that is recorded in chords needs to know."""
    roots: list[Note] = []
    for note in sorted(notes, key=lambda note: (note.beat, note.pitch)):
        if roots and note.beat - roots[-1].beat < CHORD_BEATS:
            if note.pitch < roots[-1].pitch:
                roots[-1] = replace(note, beat=roots[-1].beat)
        else:
            roots.append(note)
    return roots


def _fold(notes: list[Note], limits: tuple[float, float]) -> list[Note]:
    """Move the whole part, then single notes, by octaves into an instrument's range."""
    if not notes:
        return notes
    low, high = limits[0] - REACH, limits[1] + REACH
    middle = float(np.median([note.pitch for note in notes]))
    centre = 0.5 * (low + high)
    whole = 12 * round((centre - middle) / 12) if not low <= middle <= high else 0
    folded = []
    for note in notes:
        pitch = note.pitch + whole
        if pitch < low:
            pitch += 12 * int(np.ceil((low - pitch) / 12))
        elif pitch > high:
            pitch -= 12 * int(np.ceil((pitch - high) / 12))
        folded.append(replace(note, pitch=pitch))
    return folded


def _ends(notes: list[Note], score: Score, entry: Instrument) -> list[float]:
    """When each note is let go: at its end, or where the next one needs the same string."""
    ends = [score.seconds(note.beat + note.beats) for note in notes]
    following: dict[int, int] = {}
    for index in range(len(notes) - 1, -1, -1):
        string = 0 if entry.mono else round(notes[index].pitch)
        later = following.get(string)
        if later is not None and notes[later].beat > notes[index].beat + 0.02:
            ends[index] = min(ends[index], score.seconds(notes[later].beat))
        following[string] = index
    return ends


def _bend(note: Note, held_s: float, leading: bool, entry: Instrument, rng: np.random.Generator) -> Bend | None:
    if not entry.bends:
        return None
    if note.glide_from is not None and abs(note.glide_from - note.pitch) <= 12:
        distance = float(np.clip(note.glide_from - note.pitch, -5, 5))
        return Bend(distance, min(0.06 + 0.02 * abs(distance), 0.6 * held_s))
    if not leading or held_s < 0.25:
        return None
    draw = rng.random()
    vibrato = float(rng.uniform(8, 30)) if held_s > 0.5 and rng.random() < 0.5 else 0.0
    if draw < 0.15:
        return Bend(float(rng.choice([-2.0, -1.0, -1.0, 1.0])), float(rng.uniform(0.08, 0.25)), vibrato)
    return Bend(0.0, 0.1, vibrato, float(rng.uniform(4.5, 6.5))) if vibrato else None


def _add_noises(
    output: np.ndarray, notes: list[Note], score: Score, material: Material, which: tuple[str, str], rng
) -> None:
    """Dead strokes on the sixteenth before some notes."""
    strokes = material.select(*which)
    if not strokes or rng.random() < 0.4:
        return
    chance = float(rng.uniform(0.02, 0.15))
    for note in notes:
        if rng.random() < chance and note.beat >= 0.25:
            stroke = strokes[int(rng.integers(len(strokes)))]
            sound = shape(material.audio(stroke, 0.3), 0.12, 0.08) * np.float32(rng.uniform(0.2, 0.6))
            add_at(output, int(score.seconds(note.beat - 0.25) * SAMPLE_RATE), _stereo(sound))


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
    """Play a drum loop at the song's tempo, or cut into eighths and rearranged: (2, samples)."""
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
