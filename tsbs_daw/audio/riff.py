"""Put chunks behind the sound of a WAV that is there already: RIFF or RF64, without touching the sound.

RIFF size WAVE [chunks] data ... | [chunks]      the tail, behind the bar, is written anew
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO

from tsbs_daw.audio.headers.common import MAX_CHUNKS
from tsbs_daw.audio.wav_writer import UNKNOWN_32, chunk, write_error
from tsbs_daw.core.errors import OutputError, shown
from tsbs_daw.core.files import sync_file

HEAD_BYTES = 64  # where sizes are
TAIL_BYTES = 64 << 20  # of chunks behind the sound that are carried over; tags with a large cover have less


def append_chunks(path: Path, chunks: Mapping[bytes, bytes], *, instead_of: Collection[bytes] = ()) -> None:
    """Write `chunks`, name to body, behind the sound, and keep all others.

    Args:   instead_of: names of chunks that go away; a LIST is named by its kind, `INFO`
    Raises: OutputError: not a WAV that can carry them; NoSpaceLeft. The file is then as it was
    """
    try:
        with path.open("rb+", buffering=0) as file:
            places, ds64 = _walk(file, path)
            end = next(start + 8 + size + size % 2 for name, start, size in places if name == b"data")
            old_size = file.seek(0, os.SEEK_END)
            kept = [_bytes(file, start, 8 + size + size % 2) for name, start, size in places
                    if start >= end and name not in instead_of]  # fmt: skip
            tail = b"".join(kept) + b"".join(chunk(name, body) for name, body in chunks.items())
            if ds64 is not None and ds64 > HEAD_BYTES - 8:
                raise OutputError(f"{shown(path)} cannot take tags: its `ds64` chunk is not at its start.")
            if old_size - end > TAIL_BYTES or (ds64 is None and end + len(tail) - 8 >= UNKNOWN_32):
                raise OutputError(f"{shown(path)} has no room for tags.")
            _replace_tail(file, end, tail, ds64)
            for name, start, _ in places:
                if start < end and name in instead_of:
                    _write(file, start, b"JUNK")
            sync_file(file.fileno())
    except OSError as error:
        raise write_error(path, error) from error


def chunk_names(path: Path) -> list[bytes]:
    """The chunks of a WAV, in order; a LIST is named by its kind. Raises: OutputError"""
    try:
        with path.open("rb") as file:
            return [name for name, _, _ in _walk(file, path)[0]]
    except OSError as error:
        raise OutputError(f"{shown(path)} cannot be opened: {error.strerror or error}.") from error


def _walk(file: BinaryIO, path: Path) -> tuple[list[tuple[bytes, int, int]], int | None]:
    """(name, where it starts, bytes of its body) of each chunk, and where a `ds64` chunk's body is."""
    head, size = _bytes(file, 0, 12), file.seek(0, os.SEEK_END)
    places, position, ds64, long_data = [], 12, None, 0
    if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
        for _ in range(MAX_CHUNKS):
            start = _bytes(file, position, 12)
            if len(start) < 8:
                break
            name, length = struct.unpack_from("<4sI", start)
            if name == b"ds64":
                ds64, long_data = position + 8, struct.unpack("<QQ", _bytes(file, position + 8, 16))[1]
            elif name == b"data" and length == UNKNOWN_32 and ds64 is not None:
                length = long_data
            places.append((start[8:12] if name == b"LIST" else name, position, length))
            position += 8 + length + length % 2
    if b"data" not in [name for name, _, _ in places] or not size <= position <= size + 1:
        raise OutputError(f"{shown(path)} cannot take tags: it is not a whole WAV file.")
    return places, ds64


def _replace_tail(file: BinaryIO, end: int, tail: bytes, ds64: int | None) -> None:
    """Put `tail` behind `end`, and the new size where it belongs; where that fails, leave all as it was."""
    head, before = _bytes(file, 0, HEAD_BYTES), _bytes(file, end, file.seek(0, os.SEEK_END) - end)
    try:
        _write(file, end, tail)
        file.truncate(end + len(tail))
        size = struct.pack("<I" if ds64 is None else "<Q", end + len(tail) - 8)
        _write(file, 4 if ds64 is None else ds64, size)
    except OSError:
        file.truncate(end + len(before))
        _write(file, end, before)
        _write(file, 0, head)
        raise


def _bytes(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _write(file: BinaryIO, offset: int, data: bytes) -> None:
    """All of `data`; a raw file may take a part."""
    file.seek(offset)
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
