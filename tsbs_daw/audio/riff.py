"""Build RIFF chunks, and append them to a WAV file without rewriting the audio.

    RIFF size WAVE [chunks] data ... | [chunks]      only the part after the bar is rewritten

Two chunks describe tempo, key and loop to a DAW or a sampler:

`acid`, 24 bytes, introduced by ACID and read by FL Studio, REAPER, Cubase and others:

    flags u32 | root note u16 | 0x8000 u16 | 0.0 f32 | beats u32 | meter denominator u16, numerator u16 | tempo f32

    flags: 1 one-shot, 2 root note is valid, 4 stretch to the tempo, 8 disk-based (long files)

`smpl`, 36 + 24 bytes (RIFF MCI 1.0, "Sampler"): the root note, and one forward loop over the whole file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO

from tsbs_daw.audio.headers.common import UNKNOWN_32, ByteSource, Chunk, Refused, riff_chunks
from tsbs_daw.core.errors import OutputError, shown
from tsbs_daw.core.files import sync_file, write_error

HEAD_BYTES = 64  # the start of the file, which holds its sizes
TAIL_BYTES = 64 << 20  # limit of the chunks after the audio, which are held in memory; a large cover fits easily

ROOT_IS_VALID, STRETCH, ON_DISK = 2, 4, 8
PITCH_CLASSES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
MIDDLE_C = 60


def list_type(file: ByteSource, chunk: Chunk) -> bytes:
    """The type of a LIST chunk, such as `INFO`; the name of any other chunk."""
    return _bytes(file, chunk.body, 4) if chunk.name == b"LIST" else chunk.name


def build_chunk(name: bytes, body: bytes) -> bytes:
    """Build a chunk, padded to an even length."""
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def append_chunks(path: Path, chunks: Mapping[bytes, bytes], *, instead_of: Collection[bytes] = ()) -> None:
    """Append chunks after the audio of a WAV file, and keep the existing chunks.

    Args:
        path: WAV file to change.
        chunks: Body of each chunk by its name.
        instead_of: Names of existing chunks to remove; for a LIST chunk its type, such as `INFO`.

    Raises:
        OutputError: The file is not a WAV file that can hold the chunks; it is left unchanged.
        NoSpaceLeft: The disk is full; the file is left unchanged.
    """
    try:
        with path.open("rb+", buffering=0) as file:
            known = _chunks_of_wav(file, path)
            data = next(chunk for chunk in known if chunk.name == b"data")
            ds64 = next((chunk.body for chunk in known if chunk.name == b"ds64"), None)
            old_size = file.seek(0, os.SEEK_END)
            if old_size - data.end > TAIL_BYTES:
                raise OutputError(f"{shown(path)} has no room for tags.")
            kept = [
                _bytes(file, chunk.start, chunk.end - chunk.start)
                for chunk in known
                if chunk.start >= data.end and list_type(file, chunk) not in instead_of
            ]
            tail = b"".join(kept) + b"".join(build_chunk(name, body) for name, body in chunks.items())
            if ds64 is not None and ds64 > HEAD_BYTES - 8:
                raise OutputError(f"{shown(path)} cannot take tags: its `ds64` chunk is not at its start.")
            if ds64 is None and data.end + len(tail) - 8 >= UNKNOWN_32:
                raise OutputError(f"{shown(path)} has no room for tags.")
            _replace_tail(file, data.end, tail, ds64)
            for chunk in known:
                if chunk.start < data.end and list_type(file, chunk) in instead_of:
                    _write(file, chunk.start, b"JUNK")
            sync_file(file.fileno())
    except OSError as error:
        raise write_error(path, error) from error


def chunk_names(path: Path) -> list[bytes]:
    """List the names of a WAV file's chunks, in order; for a LIST chunk its type.

    Raises:
        OutputError: The file is not a complete WAV file, or cannot be opened.
    """
    try:
        with path.open("rb") as file:
            return [list_type(file, chunk) for chunk in _chunks_of_wav(file, path)]
    except OSError as error:
        raise OutputError(f"Cannot open {shown(path)}: {error.strerror or error}.") from error


def pitch_class(key: str | None) -> int | None:
    """The pitch class of a key's tonic: 0 for C to 11 for B.

    Args:
        key: A key such as "A minor", "Bbm" or "F# major".

    Returns:
        The pitch class; None if the key is missing or does not start with a note.
    """
    if not key or key[0].upper() not in PITCH_CLASSES:
        return None
    accidental = {"#": 1, "♯": 1, "b": -1, "♭": -1}.get(key[1:2], 0)
    return (PITCH_CLASSES[key[0].upper()] + accidental) % 12


def acid_body(tempo_bpm: float, beats: int, *, key: str | None = None, beats_per_bar: int = 4, loop: bool) -> bytes:
    """Build the body of an `acid` chunk.

    Args:
        tempo_bpm: Tempo.
        beats: Number of beats in the file.
        key: Key, for the root note; None for no root note.
        beats_per_bar: Numerator of the meter; the denominator is 4.
        loop: True for a loop; False for a stem of a whole song, which is marked as disk-based.
    """
    root = pitch_class(key)
    flags = STRETCH | (0 if loop else ON_DISK) | (0 if root is None else ROOT_IS_VALID)
    note = MIDDLE_C if root is None else MIDDLE_C + root
    return struct.pack("<IHHfIHHf", flags, note, 0x8000, 0.0, beats, 4, beats_per_bar, tempo_bpm)


def smpl_body(samples: int, sample_rate: int, *, key: str | None = None) -> bytes:
    """Build the body of a `smpl` chunk with one endless forward loop over all `samples`."""
    note = MIDDLE_C + (pitch_class(key) or 0)
    head = struct.pack("<9I", 0, 0, round(1e9 / sample_rate), note, 0, 0, 0, 1, 0)
    return head + struct.pack("<6I", 0, 0, 0, max(samples - 1, 0), 0, 0)


def beats_in(samples: int, sample_rate: int, tempo_bpm: float) -> int:
    """The number of beats in a file, rounded to the nearest integer."""
    return round(samples / sample_rate * tempo_bpm / 60)


def _chunks_of_wav(file: BinaryIO, path: Path) -> list[Chunk]:
    """List all chunks of a complete WAV file.

    Raises:
        OutputError: The file is not a complete WAV file.
    """
    head, size = _bytes(file, 0, 12), file.seek(0, os.SEEK_END)
    try:
        is_wav = head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE"
        chunks = list(riff_chunks(file, size)) if is_wav else []
    except Refused:
        chunks = []
    if not any(chunk.name == b"data" for chunk in chunks) or not size <= chunks[-1].end <= size + 1:
        raise OutputError(f"{shown(path)} cannot take tags: it is not a complete WAV file.")
    return chunks


def _replace_tail(file: BinaryIO, end: int, tail: bytes, ds64: int | None) -> None:
    """Write `tail` at `end` and update the file's size field; if this fails, restore the file.

    Args:
        file: WAV file, open for reading and writing.
        end: Offset of the end of the audio.
        tail: All chunks after the audio.
        ds64: Offset of the body of the `ds64` chunk; None if there is none.
    """
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


def _bytes(file: ByteSource, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _write(file: BinaryIO, offset: int, data: bytes) -> None:
    """Write all of `data`, because one call to a raw file may write only a part."""
    file.seek(offset)
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
