"""Cut stems into loops, sample-accurately at bar lines and without fades, so that consecutive loops join seamlessly.

A loop is a WAV with the unchanged samples of the stem, with tempo, beats and loop points for DAWs and samplers
(`tempo_chunks`), and with its position in the song as a BWF time reference.

Detected downbeats deviate from a steady tempo by a few milliseconds; if the stems were cut there, every loop would have
a different length. If a straight line fits the downbeats, the bar lines are placed on it. If not, the tempo varies, and
the detected downbeats are the bar lines.

Axes: (channels, samples), float32.
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

STEADY_S = 0.030  # largest distance of a downbeat from the line: half a 32nd note at 120 BPM, the accuracy of detectors
UNEVEN = 0.15  # a bar whose length differs from the median by more than this fraction was not detected correctly


@dataclass(frozen=True)
class Bar:
    """Consecutive bars of a song that make one loop.

    Attributes:
        number: Number of the first bar in the song, from 1.
        start_samples: Start of the first bar.
        end_samples: End of the last bar.
    """

    number: int
    start_samples: int
    end_samples: int


def bar_lines_s(downbeats_s: tuple[float, ...]) -> np.ndarray:
    """Return the times of the bar lines: on a regular grid if the tempo is steady, otherwise the downbeats.

    With a steady tempo, there is one more bar line than there are downbeats: the end of the last bar.
    """
    times_s = np.asarray(downbeats_s, np.float64)
    if len(times_s) < 3:
        return times_s
    places = np.arange(len(times_s))
    bar_s, first_s = np.polyfit(places, times_s, 1)
    steady = np.abs(first_s + bar_s * places - times_s).max() <= STEADY_S
    return first_s + bar_s * np.arange(len(times_s) + 1) if steady else times_s


def pieces(downbeats_s: tuple[float, ...], bars: int, sample_rate: int, samples: int) -> list[Bar]:
    """Divide a song into contiguous pieces of `bars` whole bars.

    If a bar has a different length, because the metre changes or a downbeat was missed, the piece that would contain it
    is skipped, and the next piece begins after that bar.

    Args:
        downbeats_s: Times of the downbeats.
        bars: Number of bars in a piece.
        sample_rate: In Hz.
        samples: Length of the song.
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


SILENT_DB = -60.0  # RMS relative to full scale, below which a loop is silent
FAINT_DB = -40.0  # RMS relative to the stem's loudest loop, below which a loop is only bleed from other stems
UNPITCHED = ("drums", "percussion")
FORMATS = {"PCM_16": "wav16", "PCM_24": "wav24", "PCM_S8": "wav16", "PCM_U8": "wav16"}  # others are cut as wav32f
FORBIDDEN = str.maketrans(dict.fromkeys('/\\:*?"<>|', "_") | dict.fromkeys(range(32), "_"))
NAME_BYTES = 180  # for the song's part of a file name; file systems allow 255 in total
DOUBTFUL = "~"  # before "4 bars" if the bars are doubtful, like before a doubtful tempo or key in names


def cut_loops(
    stems: Mapping[str, Path], beats: Beats, *, bars: int, folder: Path, name: str, key: str | None = None
) -> list[Path]:
    """Write every stem's loops of `bars` bars into `folder`, except silent ones.

    If an error is raised, the loops written so far are removed.

    Args:
        stems: Lossless files, by the stems' names.
        beats: Beats and downbeats of the song.
        bars: Number of bars in a loop.
        folder: Existing folder for the files.
        name: Start of the file names: song, tempo and key. "Song [128 BPM 8A]" becomes "Song [128 BPM 8A] drums 4 bars
            017.wav", where 17 is the number of the first bar. If the bars are doubtful, the name has "drums ~4 bars
            017.wav": the loop is cut on beats, but may not start on a downbeat.
        key: Key of the song, such as "A minor", which gives the root note of loops of pitched stems.

    Returns:
        The files, in order; none if the song has fewer than `bars` bars.

    Raises:
        AnalysisError: The song's bars are unknown.
        AudioError, OutputError, NoSpaceLeft
    """
    if bars < 1 or not beats.beats_per_bar or len(beats.downbeats_s) < 2:
        raise AnalysisError(f"Cannot cut loops from {name!r}: its bars could not be detected.")
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
    """Write the loops of one stem; each is added to `made` once it is written."""
    assert beats.beats_per_bar is not None, "cut_loops has checked it"
    taken = {entry.name.casefold() for entry in folder.iterdir()}
    with open_audio(path) as reader:
        info = reader.info
        plan = pieces(beats.downbeats_s, bars, info.sample_rate, info.samples or 1 << 62)
        cutter = _Cutter(reader.blocks())
        loud = [_level(cutter.samples(piece.start_samples, piece.end_samples)) for piece in plan]
    wanted = [piece for piece, audible in zip(plan, _audible(loud), strict=True) if audible]
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
    """Write one loop. `meter` is (bars, beats per bar)."""
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
        dither=False,  # the samples already have the stem's word length
    ) as writer:
        for block in blocks:
            writer.write(block)


class _Cutter:
    """Reads pieces from a stream, in order."""

    def __init__(self, blocks: Iterator[np.ndarray]):
        self._blocks, self._at = blocks, 0
        self._block = np.empty((0, 0), np.float32)

    def samples(self, start: int, end: int) -> Iterator[np.ndarray]:
        """Yield the stream from sample `start` to `end` in blocks of (channels, n); fewer if the stream ends early."""
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
    """Return the RMS of a piece."""
    energy, count = 0.0, 0
    for block in blocks:
        energy += float(np.square(block, dtype=np.float64).sum())
        count += block.size
    return math.sqrt(energy / count) if count else 0.0


def _audible(levels: Sequence[float]) -> list[bool]:
    """Return which pieces are loud enough to be written."""
    least = max(10 ** (SILENT_DB / 20), max(levels, default=0.0) * 10 ** (FAINT_DB / 20))
    return [level >= least for level in levels]


def _short(name: str) -> str:
    """Shorten a name to `NAME_BYTES` and replace characters that some systems forbid."""
    name = name.translate(FORBIDDEN).strip()
    while len(name.encode("utf-8", "surrogateescape")) > NAME_BYTES:
        name = name[:-1]
    return name.rstrip() or "loop"


def _free_name(start: str, length: str, number: int, taken: set[str]) -> str:
    """Return a file name that is not in `taken`, ignoring case, and add it. `length` is "4 bars", for example."""
    whole = f"{start.translate(FORBIDDEN)} {length} {number:03d}"
    name, copy = f"{whole}.wav", 2
    while name.casefold() in taken:
        name, copy = f"{whole} ({copy}).wav", copy + 1
    taken.add(name.casefold())
    return name
