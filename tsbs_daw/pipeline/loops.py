"""Cut stems into loops: at bar lines, to the sample, without fades, so that they tile as the song did.

A loop is a WAV of the stem's own samples, bit by bit, with tempo, beats and loop points for DAWs and samplers
(`tempo_chunks`), and its place in the song as a BWF time reference.

Axes: (channels, samples), float32.

Where a song can be cut so that the pieces tile: bars, as sample positions.

Downbeats that were heard waver by some milliseconds around a steady tempo; cut there, every loop would have another
length. A line through them is the grid that was played to. Where they do not lie on a line, the tempo moves, and each
downbeat is taken as it was heard.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tsbs_daw.audio.encoders import open_writer
from tsbs_daw.audio.read import AudioInfo, open_audio
from tsbs_daw.core.errors import AnalysisError

if TYPE_CHECKING:
    from tsbs_daw.contracts.analysis import Beats

log = logging.getLogger(__name__)

STEADY_S = 0.030  # how far from the line a downbeat may lie: half a 32nd at 120 BPM, and what detectors waver by
UNEVEN = 0.15  # a bar that differs so much from the usual one was not heard right


@dataclass(frozen=True)
class Bar:
    """A row of bars as one piece. number: of its first bar in the song, from 1; start and end in samples"""

    number: int
    start_samples: int
    end_samples: int


def bar_lines_s(downbeats_s: tuple[float, ...]) -> np.ndarray:
    """The bar lines: on a line if the tempo is steady, else the downbeats themselves.

    A steady song has one line more than downbeats: the end of its last bar.
    """
    found = np.asarray(downbeats_s, np.float64)
    if len(found) < 3:
        return found
    places = np.arange(len(found))
    bar_s, first_s = np.polyfit(places, found, 1)
    steady = np.abs(first_s + bar_s * places - found).max() <= STEADY_S
    return first_s + bar_s * np.arange(len(found) + 1) if steady else found


def pieces(downbeats_s: tuple[float, ...], bars: int, sample_rate: int, samples: int) -> list[Bar]:
    """The song in pieces of `bars` bars, each ending where the next begins, as far as it has whole ones.

    A piece with a bar of another length in it, where the meter changes or a downbeat was missed, is left out, and the
    next one begins behind that bar.
    """
    lines_s = bar_lines_s(downbeats_s)
    if len(lines_s) <= bars:
        return []
    lengths = np.diff(lines_s)
    usual = float(np.median(lengths))
    even = np.abs(lengths - usual) <= UNEVEN * usual
    at = np.rint(lines_s * sample_rate).astype(int)
    found, place = [], 0
    while place + bars < len(at):
        odd = np.flatnonzero(~even[place : place + bars])
        if len(odd):
            place += int(odd[-1]) + 1
            continue
        start, end = int(at[place]), int(at[place + bars])
        if start >= 0 and end <= samples:
            found.append(Bar(place + 1, start, end))
        place += bars
    return found


SILENT_DB = -60.0  # RMS of a loop, of full scale
FAINT_DB = -40.0  # and relative to the stem's loudest loop: below it is what the separation let through
UNPITCHED = ("drums", "percussion")
FORMATS = {"PCM_16": "wav16", "PCM_24": "wav24", "PCM_S8": "wav16", "PCM_U8": "wav16"}  # others are cut as wav32f
FORBIDDEN = str.maketrans(dict.fromkeys('/\\:*?"<>|', "_") | dict.fromkeys(range(32), "_"))
NAME_BYTES = 180  # of the song's part of a name; file systems take 255 in all
DOUBTFUL = "~"  # before "4 bars" of which nobody can be sure, as before a doubtful tempo or key in names


def cut_loops(
    stems: Mapping[str, Path], beats: Beats, *, bars: int, folder: Path, name: str, key: str | None = None
) -> list[Path]:
    """Write every stem's loops of `bars` bars into `folder`, but for silent ones.

    Args:   stems: lossless files, by the stems' names
            name: what the files' names begin with: song, tempo and key. "Song [128 BPM 8A]" becomes
                "Song [128 BPM 8A] drums 4 bars 017.wav", where 17 is the number of the first bar. Where the bars
                are doubtful, it is "drums ~4 bars 017.wav": cut on beats, but maybe not where a bar begins
            key: "A minor", ...: becomes the root note of pitched stems' loops
    Returns: the files, in order; none, if the song has fewer bars
    Raises: AnalysisError: the song's bars are not known; AudioError, OutputError, NoSpaceLeft. No loop is left then
    """
    if bars < 1 or not beats.beats_per_bar or len(beats.downbeats_s) < 2:
        raise AnalysisError(f"No loops can be cut from {name!r}: its bars could not be found.")
    made: list[Path] = []
    try:
        for stem, path in stems.items():
            _cut_stem(stem, path, beats, bars, folder, name, key, made)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise
    return made


def _cut_stem(
    stem: str, path: Path, beats: Beats, bars: int, folder: Path, name: str, key: str | None, made: list[Path]
) -> None:
    """The loops of one stem; each is added to `made` once it is written."""
    taken = {entry.name.casefold() for entry in folder.iterdir()}
    with open_audio(path) as reader:
        info = reader.info
        plan = pieces(beats.downbeats_s, bars, info.sample_rate, info.samples or 1 << 62)
        cutter = _Cutter(reader.blocks())
        loud = [_level(cutter.samples(piece.start_samples, piece.end_samples)) for piece in plan]
    wanted = [piece for piece, heard in zip(plan, _heard(loud), strict=True) if heard]
    note = None if stem.casefold() in UNPITCHED else key
    length = f"{DOUBTFUL if beats.meter_doubtful else ''}{bars} {'bar' if bars == 1 else 'bars'}"
    with open_audio(path) as reader:
        cutter = _Cutter(reader.blocks())
        for piece in wanted:
            target = folder / _free_name(f"{_short(name)} {stem}", length, piece.number, taken)
            blocks = cutter.samples(piece.start_samples, piece.end_samples)
            _write(target, info, piece, blocks, (bars, beats.beats_per_bar), note)
            made.append(target)
    log.info("%d of %d loops of %s", len(wanted), len(plan), path)


def _write(
    target: Path,
    info: AudioInfo,
    piece: Bar,
    blocks: Iterator[np.ndarray],
    meter: tuple[int, int],
    key: str | None,
) -> None:
    """Write one loop. meter: bars, and beats in each"""
    beats = meter[0] * meter[1]
    seconds = (piece.end_samples - piece.start_samples) / info.sample_rate
    with open_writer(
        target,
        FORMATS.get(info.subtype, "wav32f"),
        info.sample_rate,
        info.channels,
        time_reference_samples=info.time_reference_samples + piece.start_samples,
        description=target.stem,
        tempo_bpm=60 * beats / seconds,
        beats=beats,
        beats_per_bar=meter[1],
        key=key,
        dither=False,  # the samples are those of the stem, which has no more bits
    ) as writer:
        for block in blocks:
            writer.write(block)


class _Cutter:
    """Takes pieces from a stream, in order."""

    def __init__(self, blocks: Iterator[np.ndarray]):
        self._blocks, self._at = blocks, 0
        self._block = np.empty((0, 0), np.float32)

    def samples(self, start: int, end: int) -> Iterator[np.ndarray]:
        """The stream from sample `start` to `end`, (channels, n) at a time; shorter if the stream is."""
        while self._at < end:
            if not self._block.shape[1]:
                block = next(self._blocks, None)
                if block is None:
                    return
                self._block = block
            count = min((start if self._at < start else end) - self._at, self._block.shape[1])
            part, self._block = self._block[:, :count], self._block[:, count:]
            self._at += count
            if self._at > start:
                yield part


def _level(blocks: Iterator[np.ndarray]) -> float:
    """The RMS of a piece."""
    energy, count = 0.0, 0
    for block in blocks:
        energy += float(np.square(block, dtype=np.float64).sum())
        count += block.size
    return math.sqrt(energy / count) if count else 0.0


def _heard(levels: Sequence[float]) -> list[bool]:
    """Which pieces are worth a file."""
    least = max(10 ** (SILENT_DB / 20), max(levels, default=0.0) * 10 ** (FAINT_DB / 20))
    return [level >= least for level in levels]


def _short(name: str) -> str:
    """The song's part of a file's name, short enough, and such as every system takes."""
    name = name.translate(FORBIDDEN).strip()
    while len(name.encode("utf-8", "surrogateescape")) > NAME_BYTES:
        name = name[:-1]
    return name.rstrip() or "loop"


def _free_name(start: str, length: str, number: int, taken: set[str]) -> str:
    """A name that no other file of the folder has, also where case does not count. length: "4 bars" """
    whole = f"{start.translate(FORBIDDEN)} {length} {number:03d}"
    name, copy = f"{whole}.wav", 2
    while name.casefold() in taken:
        name, copy = f"{whole} ({copy}).wav", copy + 1
    taken.add(name.casefold())
    return name
