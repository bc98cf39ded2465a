"""Writer for `.stem.mp4` (Native Instruments Stems): the song and its four stems as tracks of one file, for DJ decks.

The file has five stereo AAC tracks at 44.1 kHz: first the mixture, the only enabled track, so that every player plays
it; then drums, bass, other and vocals. All have the same number of samples and the same encoder delay, which the edit
lists state.

The `stem` box in moov/udta holds the names and colours of the stems as JSON, where Traktor, Mixxx, djay and Serato's
converters look for it. Its `mastering_dsp` entry is required; compressor and limiter are off, so the stems play
unchanged.

Axes: (channels, samples), float32.
"""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np

from tsbs_daw.audio.dsp import Resampler
from tsbs_daw.audio.headers.mp4_index import Box, boxes
from tsbs_daw.audio.probe import inspect
from tsbs_daw.audio.read import AudioReader, open_audio
from tsbs_daw.audio.tags import Tags, write_tags
from tsbs_daw.core.errors import OutputError, shown
from tsbs_daw.core.files import sync_file, write_error

MASTERING_DSP = {
    "compressor": {
        "enabled": False, "input_gain": 0.5, "output_gain": 0.5, "dry_wet": 50, "attack": 0.003, "release": 0.3,
        "ratio": 3, "hp_cutoff": 300, "threshold": 0,
    },
    "limiter": {"enabled": False, "release": 0.05, "threshold": 0, "ceiling": -0.35},
}  # fmt: skip


def stem_json(stems: Sequence[tuple[str, str]]) -> bytes:
    """Build the body of the `stem` box.

    Args:
        stems: (name, "#rrggbb") of each stem, in track order.
    """
    entries = [{"name": name, "color": color.upper()} for name, color in stems]
    return json.dumps({"mastering_dsp": MASTERING_DSP, "version": 1, "stems": entries}).encode("ascii")


def add_stem_box(path: Path, stems: Sequence[tuple[str, str]]) -> None:
    """Add the `stem` box to a file whose `moov` box comes last, so that no audio has to be moved.

    Args:
        path: MP4 file to change.
        stems: (name, "#rrggbb") of each stem, in track order.

    Raises:
        OutputError: The `moov` box is not at the end of the file.
        OSError: The file cannot be read or written.
    """
    with path.open("rb+") as file:
        size = file.seek(0, 2)
        top = list(boxes(file, 0, size))
        if not top or top[-1].name != b"moov" or top[-1].end != size:
            raise OutputError(f"{shown(path)} cannot become a Stems file: its `moov` box is not at the end.")
        moov = top[-1]
        children = list(boxes(file, moov.body, size))
        file.seek(moov.body)
        index = with_stems(file.read(size - moov.body), stem_json(stems), children, moov.body)
        file.seek(moov.body - 8)
        file.write(_box(b"moov", index))
        file.truncate()


def with_stems(moov: bytes, body: bytes, children: Sequence[Box], start: int) -> bytes:
    """Add a `stem` box to the `udta` box of a `moov` box, and create the `udta` box if it is missing.

    Args:
        moov: Body of the `moov` box.
        body: Body of the `stem` box.
        children: Boxes inside the `moov` box.
        start: Offset of the body of the `moov` box in its file.

    Returns:
        The new body of the `moov` box.
    """
    stem = _box(b"stem", body)
    udta = next((box for box in children if box.name == b"udta"), None)
    if udta is None:
        return moov + _box(b"udta", stem)
    inside = moov[udta.body - start : udta.end - start]
    return moov[: udta.body - 8 - start] + _box(b"udta", inside + stem) + moov[udta.end - start :]


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


RATE_HZ = 44100
BIT_RATE = 256_000  # per track
STEMS = 4
ORDER = ("drums", "bass", "other", "vocals")  # the order that decks expect
EMPTY = ("-", "#999999")
BLOCK_SAMPLES = 16384
FRAME_SAMPLES = 1024  # per AAC frame


Stem = tuple[str, str, Path]  # name, "#rrggbb" and file


def write_stem_mp4(
    path: Path,
    master: Path,
    stems: Sequence[Stem],
    tags: Tags,
    *,
    bpm: float | None = None,
    key: str | None = None,
) -> None:
    """Write a Stems file atomically.

    Args:
        path: File to write. Its name must end in .stem.mp4; otherwise decks ignore the stems.
        master: The song.
        stems: One to four stems, each as long as the song. Missing stems become silent tracks.
        tags: Tags of the song.
        bpm: Tempo of the song.
        key: Key of the song.

    Raises:
        OutputError: The number of stems, their channels or their lengths are invalid; or the extra `[media]` is not
            installed.
        NoSpaceLeft: The disk is full.
        AudioError: A source file cannot be read.
    """
    if importlib.util.find_spec("av") is None:
        raise OutputError(f"Writing {shown(path)} needs an extra: pip install 'tsbs-daw[media]'.")
    if not path.name.endswith(".stem.mp4"):
        raise OutputError(f"{shown(path)} would not be recognised as stems; give it a name that ends in .stem.mp4.")
    if not 1 <= len(stems) <= STEMS:
        raise OutputError(f"{shown(path)} cannot hold {len(stems)} stems: a .stem.mp4 holds one to {STEMS}.")
    tracks = arranged(stems)
    names = [(stem[0], stem[1]) if stem else EMPTY for stem in tracks]
    files = [stem[2] if stem else None for stem in tracks]
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        samples = _encode(temporary, master, files)
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


def arranged(stems: Sequence[Stem]) -> list[Stem | None]:
    """Put the stems on the tracks where decks expect them; others take the tracks that are left, in order."""
    tracks: list[Stem | None] = [None] * STEMS
    others = []
    for stem in stems:
        if stem[0] in ORDER and tracks[ORDER.index(stem[0])] is None:
            tracks[ORDER.index(stem[0])] = stem
        else:
            others.append(stem)
    for stem in others:
        tracks[tracks.index(None)] = stem
    return tracks


def _encode(path: Path, master: Path, files: Sequence[Path | None]) -> int:
    """Encode the tracks block by block, and missing stems as silence.

    Returns:
        The number of samples per track, at 44.1 kHz.

    Raises:
        OutputError: The files differ in length, or one has more than two channels.
        AudioError: A file cannot be read.
    """
    import av

    with ExitStack() as opened:
        inputs = [_stereo(opened.enter_context(open_audio(file))) if file else None for file in (master, *files)]
        # FFmpeg writes the `moov` box last. Its time scale is the sample rate.
        options = {"movie_timescale": str(RATE_HZ)}
        container = opened.enter_context(av.open(str(path), "w", format="mp4", options=options))
        tracks = [container.add_stream("aac", rate=RATE_HZ, layout="stereo") for _ in range(1 + STEMS)]
        for track in tracks:
            track.bit_rate = BIT_RATE
        done = 0
        while True:
            blocks = [next(blocks) if blocks else None for blocks in inputs]
            lengths = {block.shape[1] for block in blocks if block is not None}
            if len(lengths) > 1:
                raise OutputError(f"The stems of {shown(master)} differ in length from the song.")
            length = lengths.pop()
            if not length:
                break
            silence = np.zeros((2, length), np.float32)
            for track, block in zip(tracks, blocks, strict=True):
                sound = silence if block is None else block
                for start in range(0, length, FRAME_SAMPLES):
                    container.mux(track.encode(_frame(sound[:, start : start + FRAME_SAMPLES], done + start)))
            done += length
        for track in tracks:
            container.mux(track.encode(None))
    return done


def _frame(block: np.ndarray, position: int):
    """Make an FFmpeg frame of a stereo block that starts at sample `position`."""
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block, np.float32), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, position, Fraction(1, RATE_HZ)
    return frame


def _stereo(reader: AudioReader) -> Iterator[np.ndarray]:
    """Read a file as stereo blocks at 44.1 kHz: full blocks, then a shorter one, then empty blocks indefinitely.

    Raises:
        OutputError: The file has more than two channels.

    Shape:
        yields: (2, n), n <= BLOCK_SAMPLES
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
    """Check that the file holds all tracks at their full length.

    Raises:
        OutputError: A track is missing, or the length is wrong.
    """
    header = inspect(path)
    tracks = f"has {1 + STEMS} audio tracks"
    if header.length_s != Fraction(samples, RATE_HZ) or not any(tracks in warning for warning in header.warnings):
        raise OutputError(f"{shown(path)} does not hold what was written. Check the disk.")
