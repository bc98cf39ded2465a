"""Is a sound file all there, as far as its own header says? A cheap look, without decoding.

A copy that pauses for longer than a file must stand still would be taken half-finished; most formats say how long they
are, and this asks them. It never refuses a file: what is wrong with it, the reader says later.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from tsbs_daw.audio.headers.probe import inspect
from tsbs_daw.core.errors import AudioError, TruncatedAudio

_SYNCS_AT_MOST = 2000  # a hostile file may consist of what looks like the beginning of a frame
_FLAC_SYNC = (b"\xff\xf8", b"\xff\xf9")
_TAIL_BYTES = 1 << 18
_HEAD_BYTES = 4096


def seems_unfinished(path: Path) -> bool:
    """Whether more of this file is to be expected: it is empty, preallocated, or shorter than its header says.

    Raises: OSError: it cannot be opened
    """
    with path.open("rb") as file:
        size_bytes = file.seek(0, 2)
        file.seek(0)
        head = file.read(_HEAD_BYTES)
        if not head.strip(b"\0"):
            return True
        if head[:4] == b"fLaC":
            try:
                return not _flac_has_its_end(file, size_bytes)
            except struct.error:
                return True
    try:
        inspect(path)
    except TruncatedAudio:
        return True
    except AudioError:
        return False
    return False


def _flac_has_its_end(file: BinaryIO, size_bytes: int) -> bool:
    """Whether the last frame near the end of the file is the last one that STREAMINFO announces.

    Raises: struct.error: the file ends in the middle of its header
    """
    position, samples, fixed_block, last = 4, 0, 0, False
    while not last:
        file.seek(position)
        kind, high, low = struct.unpack(">BBH", file.read(4))
        last, size = bool(kind & 0x80), high << 16 | low
        if kind & 0x7F == 0:
            info = file.read(34)
            samples = struct.unpack(">Q", info[10:18])[0] & 0xFFFFFFFFF
            fixed_block = struct.unpack(">H", info[2:4])[0]
        position += 4 + size
    if position >= size_bytes:
        return False
    if samples == 0:
        return True
    start = max(position, size_bytes - _TAIL_BYTES)
    file.seek(start)
    tail = file.read(size_bytes - start)
    place = len(tail)
    for _ in range(_SYNCS_AT_MOST):
        place = max(tail.rfind(sync, 0, place) for sync in _FLAC_SYNC)
        if place < 0:
            break
        end = _flac_frame_end(tail[place : place + 16], fixed_block)
        if end is not None:
            return end >= samples
    return False


def _flac_frame_end(frame: bytes, fixed_block: int) -> int | None:
    """The number of the first sample after this frame; None when these bytes are no frame header."""
    if len(frame) < 6:
        return None
    variable, block_code, rate_code = frame[1] & 1, frame[2] >> 4, frame[2] & 15
    number, length = _utf8_number(frame[4:])
    if number is None or block_code == 0 or rate_code == 15:
        return None
    position = 4 + length
    block = _flac_block(block_code, frame[position : position + 2])
    position += {6: 1, 7: 2}.get(block_code, 0) + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if block is None or position >= len(frame) or _crc8(frame[:position]) != frame[position]:
        return None
    return (number if variable else number * fixed_block) + block


def _flac_block(code: int, extra: bytes) -> int | None:
    if code == 1:
        return 192
    if code <= 5:
        return 576 << (code - 2)
    if code == 6:
        return extra[0] + 1 if extra else None
    if code == 7:
        return int.from_bytes(extra, "big") + 1 if len(extra) == 2 else None
    return 256 << (code - 8)


def _utf8_number(data: bytes) -> tuple[int | None, int]:
    """A number as FLAC codes it, like UTF-8 but up to 36 bits, and how many bytes it takes."""
    first = data[0]
    if first < 0x80:
        return first, 1
    length = 8 - (first ^ 0xFF).bit_length()
    if not 2 <= length <= 7 or len(data) < length:
        return None, 0
    number = first & (0x7F >> length)
    for byte in data[1:length]:
        if byte & 0xC0 != 0x80:
            return None, 0
        number = number << 6 | byte & 0x3F
    return number, length


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc
