"""The material pack: recorded notes, hits and phrases in a folder with an index, decoded when they are first played.

`index.json` lists one recording per row:

    path           relative to the folder; a row whose file is missing is skipped, so part of a pack is a pack
    source         the collection it comes from; licences and credits are stated per source (see sources.py)
    stem, kind     where it is heard and what it is: ("drums", "snare"), ("bass", "bass-note")
    articulation   how it is played, or the instrument's name
    note           MIDI number; `measured` is the pitch found in the sound, when it agrees with the name
    velocity, rr   layer 0..1, and which of several takes
    seconds, decoded_peak_db
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE
from tsbs_daw.lab.songs.sources import Source, require_sources

CACHE_BYTES = 768 * 2**20  # decoded sound kept per process, as int16
TRUSTED_CENTS = 35  # a measured pitch further than this from the name is a tracker's mistake
FULL_SCALE = 32767.0


@dataclass(frozen=True)
class Recording:
    """One file of the pack."""

    path: str
    source: str
    stem: str
    kind: str
    articulation: str
    pitch: float | None  # MIDI number, fractions are cents; None for what has no pitch
    velocity: float
    seconds: float
    peak_db: float
    row: dict  # the whole row, for what only some kinds have

    __hash__ = object.__hash__


class Material:
    """An opened pack. Sound is decoded on demand and kept as int16 up to `CACHE_BYTES`."""

    def __init__(self, folder: Path, recordings: list[Recording], sources: list[Source]):
        self.folder = folder
        self.recordings = recordings
        self.sources = sources
        self._decoded: OrderedDict[str, np.ndarray] = OrderedDict()
        self._bytes = 0

    def select(self, source: str, kind: str, articulations: Iterable[str] = ()) -> list[Recording]:
        """Recordings of one source and kind; with `articulations`, only those named, all otherwise."""
        wanted = set(articulations)
        return [
            recording
            for recording in self.recordings
            if recording.source == source
            and recording.kind == kind
            and (not wanted or recording.articulation in wanted)
        ]

    def audio(self, recording: Recording, seconds: float | None = None) -> np.ndarray:
        """The sound of a recording, or at least its first `seconds`: (channels, samples) float32 at 44.1 kHz.

        Raises: UsageError when the file cannot be decoded
        """
        whole = round(recording.seconds * SAMPLE_RATE)
        wanted = whole if seconds is None else min(int(np.ceil(2 * seconds)) * SAMPLE_RATE // 2, whole)
        kept = self._decoded.get(recording.path)
        if kept is None or kept.shape[1] < wanted:
            kept = self._decode(recording, None if wanted >= whole else wanted)
            self._keep(recording.path, kept)
        self._decoded.move_to_end(recording.path)
        return kept[:, : max(wanted, 1)].astype(np.float32) * np.float32(1.0 / FULL_SCALE)

    def _decode(self, recording: Recording, frames: int | None) -> np.ndarray:
        path = self.folder / recording.path
        try:
            with sf.SoundFile(path) as file:
                rate = file.samplerate
                count = -1 if frames is None or rate != SAMPLE_RATE else frames
                sound = file.read(count, dtype="float32", always_2d=True)
        except (OSError, sf.LibsndfileError) as problem:
            raise UsageError(
                f"Cannot decode {path} ({problem}). Replace it, or delete it to leave it out."
            ) from problem
        if rate != SAMPLE_RATE:
            sound = soxr.resample(sound, rate, SAMPLE_RATE, quality="MQ")
        return np.round(np.clip(sound.T[:2], -1.0, 1.0) * FULL_SCALE).astype(np.int16)

    def _keep(self, path: str, sound: np.ndarray) -> None:
        replaced = self._decoded.pop(path, None)
        self._bytes += sound.nbytes - (0 if replaced is None else replaced.nbytes)
        self._decoded[path] = sound
        while self._bytes > CACHE_BYTES and len(self._decoded) > 1:
            self._bytes -= self._decoded.popitem(last=False)[1].nbytes


@lru_cache(maxsize=4)
def open_material(folder: Path, *, licensed: bool = True) -> Material:
    """Open a pack, or the part of it that is there. Without `licensed`, sources are not checked (see sources.py).

    Raises: UsageError when the index is missing or damaged, or lists no file that exists, or when a source has no
            accepted licence or changed files (see sources.py)
    """
    index = folder / "index.json"
    try:
        rows = json.loads(index.read_text(encoding="utf-8"))
        recordings = [_recording(row) for row in rows if (folder / row["path"]).is_file()]
    except OSError as problem:
        raise UsageError(
            f"Cannot read {index} ({problem.strerror}). Choose a folder that holds a material pack."
        ) from (problem)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise UsageError(f"{index} is damaged ({problem!r}). Make the pack again.") from problem
    if not recordings:
        raise UsageError(f"None of the files listed in {index} exists. Make the pack again.")
    paths: dict[str, list[str]] = {}
    for recording in recordings:
        paths.setdefault(recording.source, []).append(recording.path)
    sources = require_sources(folder, paths) if licensed else []
    return Material(folder, sorted(recordings, key=lambda recording: recording.path), sources)


def _recording(row: dict) -> Recording:
    return Recording(
        path=row["path"],
        source=row["source"],
        stem=row["stem"],
        kind=row["kind"],
        articulation=row.get("articulation") or row["source"],
        pitch=_pitch(row),
        velocity=float(row.get("velocity") or 1.0),
        seconds=float(row["seconds"]),
        peak_db=float(row.get("decoded_peak_db", row.get("peak_db", 0.0))),
        row=row,
    )


def _pitch(row: dict) -> float | None:
    note, measured = row.get("note"), row.get("measured")
    if note is None:
        return None
    if measured is None or "note_check" in row or abs(measured - note) * 100 > TRUSTED_CENTS:
        return float(note)
    return float(measured)
