"""A voice bank: a folder of performances by recorded voices, with an index like that of a material pack.

In addition to the fields of a pack, a row has

    tempo_bpm, bar_beats, swing  the beat, which begins with the file; absent if there is none
    tonic, mode, key             the key of the melody; absent for speech
    notes                        (start_s, end_s, MIDI pitch) each
    phrases                      (start_s, end_s) between pauses
    of                           the take that this one doubles or harmonises
    speaker, recordings          the speaker, and the recordings that it was made from

Casting chooses the takes that fit a song's tempo and key and lays their phrases as clips on its beat, without decoding
anything; playing places the sound.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from tsbs_daw.core.errors import OutputError, UsageError
from tsbs_daw.core.files import write_atomically
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, add_at, stream
from tsbs_daw.lab.songs.instruments import resampled
from tsbs_daw.lab.songs.material import Material, Recording, open_material
from tsbs_daw.lab.songs.performances import KINDS, Performance, perform
from tsbs_daw.lab.songs.score import NOTE_NAMES, Part, Score, Section, scale_of
from tsbs_daw.lab.songs.speakers import Speakers

# Share of songs whose voices come from the bank, and probabilities of kinds of lead and of further voices.
BANK_SHARE = 0.8
LEADS = {
    "sung": 0.58, "tuned": 0.09, "rap": 0.14, "spoken": 0.05, "whisper": 0.02, "chopped": 0.05, "vocoded": 0.04,
    "pitched": 0.03,
}  # fmt: skip
CHANCES = {"double": 0.5, "harmony": 0.8, "backing": 0.3, "ad-lib": 0.15, "whisper": 0.05, "second lead": 0.1}
MOST_SHIFT = 2  # semitones
TEMPO_SLACK = 0.06  # octaves of tempo that cost as much as one step of key
MISSED_NOTE = 0.5
ANYTHING = 0.03  # weight of a take that does not fit at all, because even records mix things that do not fit
FADE_S = 0.008
PAUSE_S = 0.3  # a gap this long ends a phrase


@dataclass(frozen=True)
class Clip:
    """A phrase of a take at its position in a song."""

    beat: float
    beats: float
    path: str
    start_s: float  # in the take
    end_s: float
    semitones: float
    late_s: float = 0.0


def open_bank(material: Material) -> Material:
    """The bank itself, once it is clear that it is one.

    Raises:
        UsageError: it holds no takes
    """
    if not any(_is_lead(take) for take in material.recordings):
        raise UsageError(f"{material.folder} holds no voice bank; make one with `python -m tsbs_daw.lab voices`.")
    return material


def cast_voices(score: Score, bank: Material) -> Score:
    """Give a song's vocals to takes of the bank; now and then they stay as they are.

    Args:
        score: with vocal parts that say where the voice sings
        bank: an opened bank
    """
    rng = stream(score.seed, "bank")
    vocals = [part for part in score.parts if part.stem == "vocals" and part.events]
    if not vocals or rng.random() > BANK_SHARE:
        return score
    parts = [part for part in score.parts if part.stem != "vocals"]
    return replace(score, parts=(*parts, *_arrange(vocals, score, bank, rng)))


def _arrange(vocals: list[Part], score: Score, bank: Material, rng: np.random.Generator) -> list[Part]:
    lead = next((part for part in vocals if part.mix["role"] == "lead"), vocals[0])
    sections = [section for section in score.sections if _sings(lead, section, score)]
    kind = str(rng.choice(list(LEADS), p=np.array(list(LEADS.values())) / sum(LEADS.values())))
    takes = {name: _choose(bank, kind, score, rng) for name in ("verse", "chorus", "bridge")}
    if rng.random() > CHANCES["second lead"]:  # else another voice sings the choruses
        takes["chorus"] = _choose(bank, kind, score, rng, speaker=takes["verse"][0].row["speaker"])
    clips: list[Clip] = []
    for section in sections:
        take, shift = takes.get(section.name, takes["verse"])
        clips += _lay(take, shift, section, score, clips[-1] if clips else None)
    parts = [_part("lead", clips, lead, kind)]
    chorus = [clip for clip in clips if any(_within(clip.beat, s, score) for s in sections if s.name == "chorus")]
    parts += _around(chorus or clips, clips, lead, score, bank, rng)
    return [part for part in parts if part.events]


def _around(
    chorus: list[Clip], clips: list[Clip], lead: Part, score: Score, bank: Material, rng: np.random.Generator
) -> list[Part]:
    """Doubles, harmonies, choirs and shouts around the lead."""
    parts = []
    companions = {(take.row["of"], take.kind): take.path for take in bank.recordings if "of" in take.row}
    for role in ("double", "harmony"):
        found = [replace(clip, path=companions[clip.path, role]) for clip in chorus if (clip.path, role) in companions]
        if found and rng.random() < CHANCES[role]:
            parts.append(_part(role, found, lead, role))
    if not any(part.mix["role"] == "double" for part in parts) and rng.random() < CHANCES["double"]:
        cents, late_s = float(rng.choice([-1, 1]) * rng.uniform(5, 14)), float(rng.uniform(0.012, 0.035))
        thick = [replace(clip, semitones=clip.semitones + cents / 100, late_s=late_s) for clip in chorus]
        parts.append(_part("double", thick, lead, "double"))
    for kind in ("backing", "ad-lib", "whisper"):
        pool = [take for take in bank.recordings if take.kind == kind]
        if not pool or rng.random() > CHANCES[kind]:
            continue
        take, shift = _choose(bank, kind, score, rng)
        extra: list[Clip] = []
        for section in score.sections:
            if {"backing", "vocals"} <= section.playing or (kind != "backing" and rng.random() < 0.4):
                extra += _lay(take, shift, section, score, extra[-1] if extra else None)
        parts.append(_part("backing", extra, lead, kind))
    return parts


def _part(role: str, clips: list[Clip], lead: Part, kind: str) -> Part:
    timbre = {"family": "voice", "voice": lead.timbre["voice"], "kind": lead.timbre["kind"], "engine": "bank"}
    timbre |= {"seed": lead.timbre["seed"], "delivery": kind, "takes": sorted({clip.path for clip in clips})}
    return Part(role, "vocals", tuple(clips), timbre, {"role": role})


def _is_lead(take: Recording) -> bool:
    return take.kind in LEADS and "of" not in take.row and "phrases" in take.row


def _choose(
    bank: Material, kind: str, score: Score, rng: np.random.Generator, speaker: str = ""
) -> tuple[Recording, float]:
    """A take of a kind and its shift in semitones; the better it fits tempo and key, the likelier it is."""
    pool = [take for take in bank.recordings if take.kind == kind and "of" not in take.row and "phrases" in take.row]
    pool = pool or [take for take in bank.recordings if _is_lead(take)]
    fits = [_fit(take, score, rng) for take in pool]
    known = np.array([take.row["speaker"] == speaker for take in pool])
    costs = np.array([cost for cost, _ in fits]) - 1.5 * known
    weights = np.exp(-np.maximum(costs - costs.min(), 0.0)) + ANYTHING
    chosen = int(rng.choice(len(pool), p=weights / weights.sum()))
    return pool[chosen], fits[chosen][1]


def _fit(take: Recording, score: Score, rng: np.random.Generator) -> tuple[float, float]:
    """What a take costs at its best shift, and that shift."""
    tempo, tonic = take.row.get("tempo_bpm"), take.row.get("tonic")
    best = (float("inf"), 0.0)
    wish = int(rng.integers(-MOST_SHIFT, MOST_SHIFT + 1))
    for shift in range(-MOST_SHIFT, MOST_SHIFT + 1):
        cost = 0.3 * abs(shift) if tonic is not None else 0.3 * abs(shift - wish)
        if tempo:
            octaves = np.log2(score.tempo_bpm / tempo) - shift / 12
            cost += abs(octaves - round(octaves)) / TEMPO_SLACK
        if tonic is not None:
            scale = scale_of((int(tonic) + shift) % 12, str(take.row["mode"]))
            cost += MISSED_NOTE * (7 - len(set(scale) & set(score.scale)))
        best = min(best, (cost, float(shift)))
    return best


def _sings(lead: Part, section: Section, score: Score) -> bool:
    return any(_within(event.beat, section, score) for event in lead.events)


def _within(beat: float, section: Section, score: Score) -> bool:
    first, end = score.beats_of(section)
    return first <= beat < end


def _lay(take: Recording, shift: float, section: Section, score: Score, previous: Clip | None) -> list[Clip]:
    """A take's phrases over a section, begun again when it is shorter; each phrase starts on its own beat."""
    first, end = score.beats_of(section)
    beat_s = 60.0 / score.tempo_bpm
    ratio = 2.0 ** (shift / 12)
    tempo = float(take.row.get("tempo_bpm") or 60.0)
    octave = 2.0 ** round(float(np.log2(score.tempo_bpm / tempo)) - shift / 12) if "tempo_bpm" in take.row else 1.0
    turn = float(np.ceil(take.seconds * tempo / 60.0 * octave / score.bar_beats) * score.bar_beats)
    if "tempo_bpm" not in take.row:  # no beat of its own: as long as it is
        turn = float(np.ceil(take.seconds / ratio / beat_s / score.bar_beats) * score.bar_beats)
    free = previous.beat + previous.beats if previous else 0.0
    clips: list[Clip] = []
    start = float(first)
    while start < end - 0.5:
        for start_s, end_s in take.row["phrases"]:
            at = start_s * tempo / 60.0 * octave if "tempo_bpm" in take.row else start_s / ratio / beat_s
            beat, beats = start + at, (end_s - start_s) / ratio / beat_s
            if beat < free - 0.1:  # the phrase before is longer here: on to the next half beat
                beat = float(np.ceil(2 * free - 0.2) / 2)
            if beat >= end - 0.5 or beat - start - at > 2.0:
                continue
            clips.append(Clip(beat, beats, take.path, start_s, end_s, shift))
            free = beat + beats
        start += max(turn, 1.0)
    return clips


def play_bank(part: Part, score: Score, samples: int, bank: Material) -> np.ndarray:
    """The clips of a part: (samples,) float32.

    Raises:
        UsageError: a take cannot be decoded
    """
    output = np.zeros(samples, dtype=np.float32)
    by_path = {take.path: take for take in bank.recordings}
    sounds: dict[tuple[str, float], np.ndarray] = {}
    for clip in part.events:
        key = (clip.path, clip.semitones)
        if key not in sounds:
            sounds[key] = resampled(bank.audio(by_path[clip.path]).mean(axis=0), 2.0 ** (clip.semitones / 12))
        ratio = 2.0 ** (clip.semitones / 12)
        first, end = (int(time_s / ratio * SAMPLE_RATE) for time_s in (clip.start_s, clip.end_s))
        sound = sounds[key][first:end].copy()
        fade = min(int(FADE_S * SAMPLE_RATE), len(sound) // 2)
        if fade:
            rise = np.sin(0.5 * np.pi * (np.arange(fade) + 0.5) / fade).astype(np.float32) ** 2
            sound[:fade] *= rise
            sound[-fade:] *= rise[::-1]
        add_at(output, int((score.seconds(clip.beat) + clip.late_s) * SAMPLE_RATE), sound)
    return output


def phrases_of(sound: np.ndarray) -> list[list[float]]:
    """Where a take sounds: [start_s, end_s] of each phrase, a little wider than its sound."""
    block = SAMPLE_RATE // 100
    levels = np.sqrt(np.mean(sound[: len(sound) // block * block].reshape(-1, block) ** 2, axis=1))
    sounding = np.flatnonzero(levels > 0.012 * levels.max())
    if not len(sounding):
        return []
    cuts = np.flatnonzero(np.diff(sounding) > PAUSE_S * 100)
    firsts = [sounding[0], *sounding[cuts + 1]]
    lasts = [*sounding[cuts], sounding[-1]]
    length_s = len(sound) / SAMPLE_RATE
    return [
        [round(max(first / 100 - 0.03, 0.0), 3), round(min(last / 100 + 0.08, length_s), 3)]
        for first, last in zip(firsts, lasts, strict=True)
    ]


SOURCE = "voice-bank"
INDEX = "index.json"
QUALITY = 0.4  # Vorbis; about 9 kB a second of singing
ACTIVE_RMS = 0.1
PEAK = 0.89
SHORTEST_S = 1.0


def make_bank(
    folder: Path,
    material: Path,
    minutes: float,
    seed: int,
    cache: Path | None = None,
    progress: Callable[[float, float, str], None] | None = None,
) -> list[dict]:
    """Perform until a bank has the requested length; continues a bank that was started with the same seed.

    Args:
        folder: Folder of the bank.
        material: Folder of the pack whose voices perform.
        minutes: Length of the bank, including doubles and harmonies.
        seed: Selects the performances.
        cache: Folder for analyses of the recordings; without it, they are computed every time.
        progress: Called with the minutes done, the minutes requested, and the file just written.

    Returns:
        The rows of the index.

    Raises:
        UsageError: the pack cannot be read or holds no speech, or pyworld is not installed
        OutputError: a file cannot be written
    """
    if not minutes > 0:
        raise UsageError("A voice bank needs more than 0 minutes; choose --minutes above 0.")
    speakers = Speakers(open_material(material), cache)
    rows = _rows_so_far(folder)
    number = 1 + max((row["number"] for row in rows), default=-1)
    while sum(row["seconds"] for row in rows) < 60 * minutes:
        kind = _next_kind(rows)
        performance = perform(kind, speakers, int(stream(seed, "bank", number).integers(2**31)))
        written = _write(folder, performance, kind, number)
        rows += written
        _save(folder, rows)
        number += 1
        if progress is not None and written:
            progress(sum(row["seconds"] for row in rows) / 60, minutes, written[0]["path"])
    return rows


def _rows_so_far(folder: Path) -> list[dict]:
    try:
        rows = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return [row for row in rows if row["source"] == SOURCE and (folder / row["path"]).is_file()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise UsageError(f"{folder / INDEX} is damaged ({problem}); choose an empty folder for the bank.") from problem


def _next_kind(rows: list[dict]) -> str:
    """Return the kind whose share of the bank is furthest below its target."""
    seconds = dict.fromkeys(KINDS, 0.0)
    for row in rows:
        seconds[row["drawn"]] += row["seconds"]
    return min(KINDS, key=lambda kind: seconds[kind] / KINDS[kind])


def _write(folder: Path, performance: Performance, drawn: str, number: int) -> list[dict]:
    rows: list[dict] = []
    takes = {"": performance.audio, **performance.companions}
    for role, audio in takes.items():
        sound = _levelled(audio)
        if sound is None:
            if role:
                continue
            return []
        name = f"{number:04d}__{performance.kind}{'__' + role if role else ''}.ogg"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sf.write(folder / name, sound, SAMPLE_RATE, format="OGG", subtype="VORBIS", compression_level=1 - QUALITY)
        except (OSError, sf.LibsndfileError) as problem:
            raise OutputError(
                f"Cannot write {folder / name} ({problem}). Free space or choose another folder."
            ) from problem
        row = {"path": name, **_facts(performance), "drawn": drawn, "number": number}
        row |= {"seconds": round(len(sound) / SAMPLE_RATE, 3), "channels": 1, "bytes": (folder / name).stat().st_size}
        row["phrases"] = phrases_of(sound)
        if role:
            row |= {"kind": role, "of": rows[0]["path"]}
        rows.append(row)
    return rows


def _facts(performance: Performance) -> dict:
    score = performance.score
    row: dict[str, Any] = {"source": SOURCE, "stem": "vocals", "kind": performance.kind, "speaker": performance.speaker}
    length_s = len(performance.audio) / SAMPLE_RATE
    row |= {"recordings": performance.recordings}
    row |= {"notes": [list(note) for note in performance.notes if note[1] <= length_s]}
    if score is not None:
        row |= {"tempo_bpm": round(score.tempo_bpm, 3), "bar_beats": score.bar_beats, "swing": score.swing}
    if score is not None and performance.kind not in ("spoken", "rap", "whisper"):
        row |= {"tonic": score.tonic, "mode": score.mode, "key": f"{NOTE_NAMES[score.tonic]} {score.mode}"}
    return row


def _levelled(audio: np.ndarray) -> np.ndarray | None:
    """Normalise the level and trim the silence at the end; None if the audio is almost silent."""
    peak = float(np.max(np.abs(audio))) if len(audio) else 0.0
    active = np.flatnonzero(np.abs(audio) > 0.02 * peak)
    if peak < 1e-4 or len(active) < SHORTEST_S * SAMPLE_RATE / 4:
        return None
    sound = audio[: active[-1] + SAMPLE_RATE // 10].astype(np.float32)
    if len(sound) < SHORTEST_S * SAMPLE_RATE:
        return None
    blocks = sound[: len(sound) // 2048 * 2048].reshape(-1, 2048)
    power = np.mean(blocks**2, axis=1)
    loud = np.sqrt(np.mean(power[power > 0.03 * power.max()]))
    return sound * np.float32(min(ACTIVE_RMS / max(float(loud), 1e-9), PEAK / peak))


def _save(folder: Path, rows: list[dict]) -> None:
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    try:
        write_atomically(folder / INDEX, f"[\n{lines}\n]\n")
    except OSError as problem:
        raise OutputError(
            f"Cannot write {folder / INDEX} ({problem}). Free space or choose another folder."
        ) from problem
