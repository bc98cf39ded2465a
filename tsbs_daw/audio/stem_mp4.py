"""`.stem.mp4`: the song and its four stems as tracks of one file, for DJ decks (Native Instruments Stems).

Five AAC tracks at 44.1 kHz, stereo: first the mixture, the only one that is enabled, so that any player plays it; then
drums, bass, other, vocals. All have the same number of samples and the same encoder delay, stated in their edit lists.

Axes: (channels, samples), float32.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np

from tsbs_daw.audio.headers.probe import inspect
from tsbs_daw.audio.read import AudioReader, open_audio
from tsbs_daw.audio.resample import Resampler
from tsbs_daw.audio.stem_box import add_stem_box
from tsbs_daw.audio.tags import Tags, write_tags
from tsbs_daw.audio.wav_writer import write_error
from tsbs_daw.core.errors import OutputError, shown
from tsbs_daw.core.files import sync_file

RATE_HZ = 44100
BIT_RATE = 256_000  # per track
STEMS = 4
ORDER = ("drums", "bass", "other", "vocals")  # the decks' own
EMPTY = ("-", "#999999")
BLOCK_SAMPLES = 16384
FRAME_SAMPLES = 1024  # of AAC


def write_stem_mp4(
    path: Path,
    master: Path,
    stems: Sequence[tuple[str, str, Path]],
    tags: Tags,
    *,
    bpm: float | None = None,
    key: str | None = None,
) -> None:
    """Write a Stems file, complete or not at all.

    Args:   path: ends in .stem.mp4, or decks do not look into it
            stems: (name, "#rrggbb", file), at most four; missing ones are silent tracks. Of the master's length
    Raises: OutputError: not four stems, not stereo, not of one length, or the extra `[media]` is missing
            NoSpaceLeft; AudioError: a file cannot be read
    """
    if importlib.util.find_spec("av") is None:
        raise OutputError(f"{shown(path)} needs an extra to be written: pip install 'tsbs-daw[media]'.")
    if not 1 <= len(stems) <= STEMS or not path.name.endswith(".stem.mp4"):
        raise OutputError(f"{shown(path)} cannot hold {len(stems)} stems: a .stem.mp4 holds one to {STEMS}.")
    ordered = sorted(stems, key=lambda stem: ORDER.index(stem[0]) if stem[0] in ORDER else len(ORDER))
    names = [(name, color) for name, color, _ in ordered] + [EMPTY] * (STEMS - len(ordered))
    files = [master, *(file for _, _, file in ordered)]
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        samples = _encode(temporary, files)
        write_tags(temporary, tags, bpm=bpm, key=key)
        add_stem_box(temporary, [(name.capitalize(), color) for name, color in names])
        _verify(temporary, samples)
        with temporary.open("rb+") as file:
            sync_file(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _encode(path: Path, files: Sequence[Path]) -> int:
    """Write the tracks, silent ones for missing files, block by block. Returns: samples of each, at 44.1 kHz"""
    import av

    with ExitStack() as opened:
        readers = [opened.enter_context(open_audio(file)) for file in files]
        inputs = [_stereo(reader) for reader in readers]
        # The index comes last, and counts its time in samples.
        options = {"movie_timescale": str(RATE_HZ)}
        container = opened.enter_context(av.open(str(path), "w", format="mp4", options=options))
        tracks = [container.add_stream("aac", rate=RATE_HZ, layout="stereo") for _ in range(1 + STEMS)]
        for track in tracks:
            track.bit_rate = BIT_RATE
        done = 0
        while True:
            blocks = [next(blocks) for blocks in inputs]
            lengths = {block.shape[1] for block in blocks}
            if len(lengths) > 1:
                raise OutputError(f"The stems of {shown(files[0])} and the song itself are not of one length.")
            if not blocks[0].shape[1]:
                break
            silence = [np.zeros_like(blocks[0])] * (len(tracks) - len(blocks))
            for track, block in zip(tracks, blocks + silence, strict=True):
                for start in range(0, block.shape[1], FRAME_SAMPLES):
                    container.mux(track.encode(_frame(block[:, start : start + FRAME_SAMPLES], done + start)))
            done += blocks[0].shape[1]
        for track in tracks:
            container.mux(track.encode(None))
    return done


def _frame(block: np.ndarray, position: int):
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block, np.float32), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, position, Fraction(1, RATE_HZ)
    return frame


def _stereo(reader: AudioReader) -> Iterator[np.ndarray]:
    """A file at 44.1 kHz as (2, n) blocks of BLOCK_SAMPLES, then a shorter one, then empty ones.

    Raises: OutputError: more than two channels
    """
    channels = reader.info.channels
    if channels > 2:
        raise OutputError(f"{shown(reader.info.path)} has {channels} channels; a .stem.mp4 is stereo.")
    resampler = Resampler(reader.info.sample_rate, RATE_HZ, channels)
    waiting, ended = np.zeros((channels, 0), np.float32), False
    while True:
        while waiting.shape[1] < BLOCK_SAMPLES and not ended:
            block = reader.read(BLOCK_SAMPLES)
            ended = block.shape[1] == 0
            waiting = np.concatenate((waiting, resampler.process(block, last=ended)), axis=1)
        part, waiting = waiting[:, :BLOCK_SAMPLES], waiting[:, BLOCK_SAMPLES:]
        yield np.repeat(part, 2, axis=0) if channels == 1 else part


def _verify(path: Path, samples: int) -> None:
    """Raises: OutputError: the file does not hold what was encoded"""
    header = inspect(path)
    tracks = f"has {1 + STEMS} tracks"
    if header.length_s != Fraction(samples, RATE_HZ) or not any(tracks in warning for warning in header.warnings):
        raise OutputError(f"{shown(path)} does not hold what was written; check the disk.")
