"""A voice bank: a folder of performances by recorded voices, with an index in the form of the material pack's.

Beside what every row of a pack has, a row states

    tempo_bpm, bar_beats, swing  of the beat, which begins with the file; absent for what has no beat
    tonic, mode, key             of the melody; absent for what is spoken
    notes                        (start_s, end_s, MIDI pitch) each
    phrases                      (start_s, end_s) of what lies between pauses
    of                           the take that this one doubles or harmonises
    speaker, recordings          whose voice it is, and the recordings it was made of
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf

from tsbs_daw.core.errors import OutputError, UsageError
from tsbs_daw.core.files import write_atomically
from tsbs_daw.lab.songs.bank_voice import phrases_of
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, stream
from tsbs_daw.lab.songs.material import open_material
from tsbs_daw.lab.songs.performances import KINDS, Performance, perform
from tsbs_daw.lab.songs.speakers import Speakers
from tsbs_daw.lab.songs.theory import NOTE_NAMES

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
    """Perform until a bank holds so many minutes; a bank that was begun with the same seed goes on.

    Args:
        folder: of the bank
        material: folder of the pack whose voices perform
        minutes: of sound, doubles and harmonies included
        seed: another one, another bank
        cache: folder for analyses of the recordings; they are made anew without it
        progress: is called with the minutes done, the minutes wanted, and the file just written

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
    """The kind that is furthest behind its share."""
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
    row = {"source": SOURCE, "stem": "vocals", "kind": performance.kind, "speaker": performance.speaker}
    length_s = len(performance.audio) / SAMPLE_RATE
    row |= {"recordings": performance.recordings}
    row |= {"notes": [list(note) for note in performance.notes if note[1] <= length_s]}
    if score is not None:
        row |= {"tempo_bpm": round(score.tempo_bpm, 3), "bar_beats": score.bar_beats, "swing": score.swing}
    if score is not None and performance.kind not in ("spoken", "rap", "whisper"):
        row |= {"tonic": score.tonic, "mode": score.mode, "key": f"{NOTE_NAMES[score.tonic]} {score.mode}"}
    return row


def _levelled(audio: np.ndarray) -> np.ndarray | None:
    """At a common level, without the silence after the last sound; None for what is nearly nothing."""
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
