"""The material pack: recorded notes, hits and phrases in a folder with an index, decoded when they are first played.

`index.json` lists one recording per row:

    path           relative to the folder; a row whose file is missing is skipped, so part of a pack is a pack
    source         the collection it comes from; licences and credits are stated per source
    stem, kind     its stem and what it is: ("drums", "snare"), ("bass", "bass-note")
    articulation   how it is played, or the name of the instrument
    note           MIDI number; `measured` is the pitch found in the sound, when it agrees with the name
    velocity, rr   layer 0..1, and which of several takes
    seconds, decoded_peak_db

`sources.yaml` describes the sources of the project's own material pack: their licences, the credits these ask for, and
a digest of their files. Any other pack describes its sources in a `sources.yaml` of its own, beside its `index.json`,
with the same keys; there, `files` and `digest` may be left out.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
import yaml

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE

ACCEPTED_LICENCES = ("CC0 1.0", "public domain", "CC BY 3.0", "CC BY 4.0", "MIT", "MIT with a no-endorsement clause")
ASK_FOR_CREDIT = ("CC BY 3.0", "CC BY 4.0", "MIT", "MIT with a no-endorsement clause")


@dataclass(frozen=True)
class Source:
    """One collection of recordings.

    Attributes:
        commit: the commit, release or package version the recordings were cut from
        stated: where the licence is stated, and its words
        credit: the line to print wherever what was made from the recordings is published; "" when none is asked for
        files: how many recordings there are; 0 when that is not pinned
        digest: SHA-256 over the recordings, see `digest_of`
    """

    name: str
    title: str
    author: str
    address: str
    commit: str
    licence: str
    stated: str = ""
    credit: str = ""
    chosen: str = ""
    files: int = 0
    digest: str = ""


def read_sources(path: Path | None = None) -> dict[str, Source]:
    """The sources described in a file, or those of the project's own pack.

    Raises:
        UsageError: the file cannot be read, or an entry lacks a key or has an unknown one
    """
    place = files(__package__).joinpath("sources.yaml") if path is None else path
    try:
        entries = yaml.safe_load(place.read_text(encoding="utf-8")) or {}
        return {name: Source(name, **entry) for name, entry in entries.items()}
    except OSError as problem:
        raise UsageError(f"Cannot read {place} ({problem.strerror}). Check the folder of the pack.") from problem
    except (yaml.YAMLError, TypeError, AttributeError, UnicodeDecodeError) as problem:
        reason = " ".join(str(problem).split())
        raise UsageError(f"{place} is not a list of sources ({reason}). Correct it.") from problem


def require_sources(folder: Path, paths: dict[str, list[str]]) -> list[Source]:
    """Check the licence of every source of a pack, and the files of every source that is whole.

    Args:
        folder: the pack
        paths: the files that are there, relative to the folder, by source

    Raises:
        UsageError: a source is not described, its licence is not accepted or asks for a credit that is missing, or
            its files are not those that were described
    """
    described = read_sources()
    own = folder / "sources.yaml"
    if own.is_file():
        described |= read_sources(own)
    used = []
    for name in sorted(paths):
        if name not in described:
            raise UsageError(f"No licence is known for the source {name} of {folder}. Describe it in {own}.")
        source = described[name]
        _require_licence(source, folder)
        if source.digest and source.files == len(paths[name]) and digest_of(folder, paths[name]) != source.digest:
            raise UsageError(f"The files of the source {name} in {folder} were changed. Make the pack again.")
        used.append(source)
    return used


def _require_licence(source: Source, folder: Path) -> None:
    if source.licence not in ACCEPTED_LICENCES:
        raise UsageError(
            f"The source {source.name} of {folder} is under {source.licence}, which is not accepted "
            f"(only {', '.join(ACCEPTED_LICENCES)}). Remove its files."
        )
    if source.licence in ASK_FOR_CREDIT and not source.credit:
        raise UsageError(
            f"The source {source.name} of {folder} is under {source.licence}, which asks for a credit, and has none. "
            "Add its `credit`."
        )


def digest_of(folder: Path, paths: Iterable[str]) -> str:
    """SHA-256 over files in the order of their paths: of each the path, a zero byte, and the SHA-256 of its content."""
    whole = hashlib.sha256()
    for path in sorted(paths):
        whole.update(path.encode() + b"\0" + hashlib.sha256((folder / path).read_bytes()).digest())
    return whole.hexdigest()


def credit_lines(sources: Iterable[Source]) -> list[str]:
    """The credits that licences ask for, each once."""
    return sorted({source.credit for source in sources if source.credit}, key=str.casefold)


def credits_page(sources: Iterable[Source]) -> str:
    """Return a Markdown page with the credits, and every source with its licence and origin."""
    sources = sorted(sources, key=lambda source: source.name)
    lines = ["# Recordings", "", "Cut, mostly mixed to mono, resampled to 44.1 kHz and encoded for this use.", ""]
    lines += [f"- {line}" for line in credit_lines(sources)]
    lines += ["", "| source | by | licence | from | version |", "|---|---|---|---|---|"]
    for source in sources:
        cells = (source.title, source.author, source.licence, source.address, f"`{source.commit}`")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


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
        """Decode a recording, or at least its first `seconds`: (channels, samples) float32 at 44.1 kHz.

        Raises:
            UsageError: The file cannot be decoded.
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
    """Open a pack, which may be incomplete. Without `licensed`, sources are not checked.

    Raises:
        UsageError: The index is missing, damaged, or lists no existing file; or a source has no accepted licence, or
            its files have changed.
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
