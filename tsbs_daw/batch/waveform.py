"""Waveforms for display: a few hundred levels per file, measured in one streaming pass and cached.

A level is one byte, 255 * sqrt(amplitude), so that quiet passages stay visible. A waveform divides the file into PARTS
equal parts and holds two levels for each: the highest sample, and the RMS.

The cache is `.catalogue/` in the batch's output folder, with one file for each song. A cached waveform is valid as long
as the audio file has the same name, size and modification time; unreadable cache entries are measured again.
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
_FIRST_STEP = 64  # initial samples per cell
_CELLS = 8192  # at this number, pairs of cells are merged


@dataclass(frozen=True)
class Waveform:
    """The waveform of a file.

    Attributes:
        levels: The levels as base64, see the module.
        duration_s: Length of the file.
        problem: Why there is no waveform; None if there is one.
    """

    levels: str = ""
    duration_s: float = 0.0
    problem: str | None = None


class _Cells:
    """Highest sample and mean square of audio of unknown length, in fewer than _CELLS equal cells."""

    def __init__(self) -> None:
        self.step = _FIRST_STEP
        self.samples = 0
        self._rest: tuple[np.ndarray, ...] = np.empty(0, np.float32), np.empty(0, np.float32)
        self._cells: list[np.ndarray] = []  # each (2, n): highest, mean square
        self._count = 0

    def add(self, block: np.ndarray) -> None:
        """Add a block.

        Shape:
            block: (channels, samples)
        """
        self.samples += block.shape[1]
        highest = np.concatenate((self._rest[0], np.abs(block).max(axis=0)))
        square = np.concatenate((self._rest[1], np.square(block).mean(axis=0)))
        whole = len(highest) // self.step * self.step
        self._rest = highest[whole:], square[whole:]
        self._append(highest[:whole].reshape(-1, self.step), square[:whole].reshape(-1, self.step))
        while self._count >= _CELLS:
            self._halve()

    def close(self) -> np.ndarray:
        """Return all cells, (2, n). The last may cover fewer samples than the others."""
        if len(self._rest[0]):
            self._append(self._rest[0][None], self._rest[1][None])
        return np.concatenate(self._cells, axis=1)

    def _append(self, highest: np.ndarray, square: np.ndarray) -> None:
        self._cells.append(np.stack((highest.max(axis=1), square.mean(axis=1))))
        self._count += len(highest)

    def _halve(self) -> None:
        cells = np.concatenate(self._cells, axis=1)
        if cells.shape[1] % 2:  # the last cell has no partner yet, so it is turned back into samples
            last, cells = cells[:, -1], cells[:, :-1]
            self._rest = tuple(
                np.concatenate((np.full(self.step, value), rest)) for value, rest in zip(last, self._rest, strict=True)
            )
        pairs = cells.reshape(2, -1, 2)
        self._cells = [np.stack((pairs[0].max(axis=1), pairs[1].mean(axis=1)))]
        self._count = self._cells[0].shape[1]
        self.step *= 2


def measure_waveform(blocks: Iterable[np.ndarray], sample_rate: int) -> Waveform:
    """Measure the waveform of audio, block by block. Memory does not grow with its length.

    Shape:
        blocks: (channels, samples) each
    """
    cells = _Cells()
    for block in blocks:
        cells.add(block)
    if not cells.samples:
        return Waveform("", 0.0, "the file contains no audio")
    highest, square = cells.close()
    # Each cell belongs to the part in which it begins; if there are fewer cells than parts, cells are repeated.
    starts = np.arange(PARTS) * len(highest) // PARTS
    ends = np.maximum(starts + 1, (np.arange(PARTS) + 1) * len(highest) // PARTS)
    peaks = np.array([highest[start:end].max() for start, end in zip(starts, ends, strict=True)])
    rms = np.sqrt([square[start:end].mean() for start, end in zip(starts, ends, strict=True)])
    levels = np.rint(255 * np.sqrt(np.clip(np.stack((peaks, rms), axis=1), 0, 1))).astype(np.uint8)
    return Waveform(base64.b64encode(levels.tobytes()).decode("ascii"), cells.samples / sample_rate)


def inside(folder: Path, relative: str) -> Path | None:
    """Resolve a path of a catalogue; None if it leaves the folder."""
    parts = PurePosixPath(relative).parts
    strange = any(part in ("/", "//", "..") or "\0" in part for part in parts)
    if not parts or strange or (os.name == "nt" and any(set(part) & set(':\\"<>|?*') for part in parts)):
        return None
    return folder.joinpath(*parts)


def waveforms(folder: Path, group: str, files: Iterable[str], cache: Path | None = None) -> dict[str, Waveform]:
    """Return the waveforms of one song's files, by their relative paths. Only new and changed files are read.

    Args:
        folder: Output folder of the batch.
        group: Key under which the files are cached together: the song's folder.
        files: Paths relative to `folder`.
        cache: Folder of the cache. None: a subfolder of `folder`.
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
        if waveform.problem is None:  # a failure may be temporary, such as a lack of memory, so it is not cached
            measured[file] = {"state": state, "picture": asdict(waveform)}
    if measured != known:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cache, json.dumps({"format": _FORMAT, "parts": PARTS, "files": measured}))
    return found


def forget_all_but(folder: Path, groups: Iterable[str]) -> None:
    """Remove the cached waveforms of all other songs."""
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
