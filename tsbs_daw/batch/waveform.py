"""The pictures of sounds: a few hundred levels a file, measured in one streaming pass and remembered.

A level is one byte, 255 * sqrt(amplitude), so that quiet passages still have a shape. A picture alternates two of them,
PARTS times: the highest sample of a part of the sound, and its RMS.

Memory is `.catalogue/` in the batch's out folder, one file per folder of songs' files. A file of sound is known again
by its name, size and time of change; whatever is not understood there is measured anew.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from tsbs_daw.audio.read import open_audio
from tsbs_daw.core.errors import AudioError
from tsbs_daw.core.files import write_atomically

PARTS = 600
CACHE_FOLDER = ".catalogue"

_FORMAT = 1
_FIRST_STEP = 64  # samples in a cell, at first
_CELLS = 8192  # when there are this many, two become one


@dataclass(frozen=True)
class Waveform:
    """What a page shows of a file. levels: base64, see above; problem: a sentence, where there is nothing to show."""

    levels: str = ""
    duration_s: float = 0.0
    problem: str | None = None


class _Cells:
    """Highest and mean square of a sound of unknown length, in at most _CELLS equal cells."""

    def __init__(self) -> None:
        self.step = _FIRST_STEP
        self.samples = 0
        self._rest: tuple[np.ndarray, ...] = np.empty(0, np.float32), np.empty(0, np.float32)
        self._cells: list[np.ndarray] = []  # each (2, n): highest, mean square
        self._count = 0

    def add(self, block: np.ndarray) -> None:
        """Take in (channels, samples)."""
        self.samples += block.shape[1]
        highest = np.concatenate((self._rest[0], np.abs(block).max(axis=0)))
        square = np.concatenate((self._rest[1], np.square(block).mean(axis=0)))
        whole = len(highest) // self.step * self.step
        self._rest = highest[whole:], square[whole:]
        self._append(highest[:whole].reshape(-1, self.step), square[:whole].reshape(-1, self.step))
        while self._count >= _CELLS:
            self._halve()

    def close(self) -> np.ndarray:
        """All cells, (2, n); the last may stand for fewer samples than the others."""
        if len(self._rest[0]):
            self._append(self._rest[0][None], self._rest[1][None])
        return np.concatenate(self._cells, axis=1)

    def _append(self, highest: np.ndarray, square: np.ndarray) -> None:
        self._cells.append(np.stack((highest.max(axis=1), square.mean(axis=1))))
        self._count += len(highest)

    def _halve(self) -> None:
        cells = np.concatenate(self._cells, axis=1)
        if cells.shape[1] % 2:  # the last one has no partner yet: it goes back to where it came from
            last, cells = cells[:, -1], cells[:, :-1]
            self._rest = tuple(
                np.concatenate((np.full(self.step, value), rest)) for value, rest in zip(last, self._rest, strict=True)
            )
        pairs = cells.reshape(2, -1, 2)
        self._cells = [np.stack((pairs[0].max(axis=1), pairs[1].mean(axis=1)))]
        self._count = self._cells[0].shape[1]
        self.step *= 2


def measure_waveform(blocks: Iterable[np.ndarray], sample_rate: int) -> Waveform:
    """The picture of a sound, (channels, samples) at a time; its memory does not grow with the sound."""
    cells = _Cells()
    for block in blocks:
        cells.add(block)
    if not cells.samples:
        return Waveform("", 0.0, "it holds no sound")
    highest, square = cells.close()
    # Each cell belongs to the part in which it begins; a sound of fewer cells than parts repeats them.
    starts = np.arange(PARTS) * len(highest) // PARTS
    ends = np.maximum(starts + 1, (np.arange(PARTS) + 1) * len(highest) // PARTS)
    peaks = np.array([highest[start:end].max() for start, end in zip(starts, ends, strict=True)])
    rms = np.sqrt([square[start:end].mean() for start, end in zip(starts, ends, strict=True)])
    levels = np.rint(255 * np.sqrt(np.clip(np.stack((peaks, rms), axis=1), 0, 1))).astype(np.uint8)
    return Waveform(base64.b64encode(levels.tobytes()).decode("ascii"), cells.samples / sample_rate)


def inside(folder: Path, relative: str) -> Path | None:
    """Where a path of a catalogue leads; None if that is not inside of its folder."""
    parts = PurePosixPath(relative).parts
    strange = any(part in ("/", "//", "..") or "\0" in part for part in parts)
    if not parts or strange or (os.name == "nt" and any(set(part) & set(':\\"<>|?*') for part in parts)):
        return None
    return folder.joinpath(*parts)


def waveforms(folder: Path, group: str, files: Iterable[str], cache: Path | None = None) -> dict[str, Waveform]:
    """Pictures of the files of one song, by their relative paths; only what is new or changed is read.

    Args:   folder: the batch's out folder
            group: what the files have in common, the song's folder: they are remembered together
            memory: the folder with what is remembered; None: one below `folder`
    """
    key = group if cache is None else f"{folder}/{group}"
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    cache = (folder / CACHE_FOLDER if cache is None else cache) / f"{digest}.json"
    known = _read_cache(cache)
    found: dict[str, Waveform] = {}
    measured: dict[str, dict] = {}
    for file in files:
        path = inside(folder, file)
        state = _state(path)
        if path is None or state is None:
            found[file] = Waveform(problem="the file is missing")
            continue
        entry = known.get(file)
        waveform = _from_cache(entry, state) or _measure(path)
        found[file] = waveform
        if waveform.problem is None:  # a busy machine may have had no time or memory for it: look again next time
            measured[file] = {"state": state, "picture": asdict(waveform)}
    if measured != known:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cache, json.dumps({"format": _FORMAT, "parts": PARTS, "files": measured}))
    return found


def forget_all_but(folder: Path, groups: Iterable[str]) -> None:
    """Remove what is remembered of songs that are no longer there."""
    kept = {hashlib.sha256(group.encode("utf-8", "surrogatepass")).hexdigest()[:32] for group in groups}
    for cache in (folder / CACHE_FOLDER).glob("*.json"):
        if cache.stem not in kept:
            cache.unlink(missing_ok=True)


def _state(path: Path | None) -> list[int] | None:
    try:
        stat = path.stat() if path else None
    except (OSError, ValueError):
        return None
    return [stat.st_size, stat.st_mtime_ns] if stat and path and path.is_file() else None


def _measure(path: Path) -> Waveform:
    try:
        with open_audio(path) as reader:
            return measure_waveform(reader.blocks(), reader.info.sample_rate)
    except AudioError as error:
        return Waveform(problem=str(error))


def _read_cache(cache: Path) -> dict[str, dict]:
    try:
        found = json.loads(cache.read_text(encoding="utf-8"))
        same = found["format"] == _FORMAT and found["parts"] == PARTS
        return dict(found["files"]) if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _from_cache(entry: object, state: list[int]) -> Waveform | None:
    try:
        return Waveform(**entry["picture"]) if entry["state"] == state else None  # type: ignore[index]
    except (KeyError, TypeError):
        return None
