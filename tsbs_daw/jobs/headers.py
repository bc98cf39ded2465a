"""Is a sound file all there, as far as its own header says? A cheap look, without decoding.

A copy that pauses for longer than a file must stand still would be taken half-finished; most formats say how long they
are, and this asks them. It never refuses a file: what is wrong with it, the reader says later.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

UNKNOWN_SIZE = 0xFFFFFFFF
_CHUNKS_AT_MOST = 1000  # a hostile file may consist of headers only,
_SYNCS_AT_MOST = 2000  # or of what looks like the beginning of a frame
_FLAC_SYNC = (b"\xff\xf8", b"\xff\xf9")
_TAIL_BYTES = 1 << 18


def missing_bytes(file: BinaryIO, size_bytes: int) -> int:
    """How much is still to come, at least; 0 when the file is complete or does not say.

    Args:   file: open for reading, anywhere; size_bytes: what is there of it
    """
    if size_bytes == 0:
        return 1
    file.seek(0)
    head = file.read(12)
    try:
        if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
            return max(_riff_end(file) - size_bytes, 0)
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return max(_aiff_end(file) - size_bytes, 0)
        if head[:4] == b"fLaC":
            return 0 if _flac_has_its_end(file, size_bytes) else 1
        if head[:4] == b"OggS":
            return 0 if _ogg_has_its_end(file, size_bytes) else 1
    except struct.error:  # it ends in the middle of a header
        return 1
    return 0


def _riff_end(file: BinaryIO) -> int:
    """Where the samples of a WAV, RF64 or BW64 end; 0 when it does not say."""
    position, data_bytes_64 = 12, None
    for _ in range(_CHUNKS_AT_MOST):
        file.seek(position)
        name, size = struct.unpack("<4sI", file.read(8))
        if name == b"ds64":
            data_bytes_64 = struct.unpack("<QQ", file.read(16))[1]
        if name == b"data":
            if size == UNKNOWN_SIZE:
                return position + 8 + data_bytes_64 if data_bytes_64 else 0
            return position + 8 + size if size else 0
        position += 8 + size + size % 2
    return 0


def _aiff_end(file: BinaryIO) -> int:
    position = 12
    for _ in range(_CHUNKS_AT_MOST):
        file.seek(position)
        name, size = struct.unpack(">4sI", file.read(8))
        if name == b"SSND":
            return position + 8 + size if size not in (0, UNKNOWN_SIZE) else 0
        position += 8 + size + size % 2
    return 0


def _flac_has_its_end(file: BinaryIO, size_bytes: int) -> bool:
    """Whether the last frame near the end of the file is the last one that STREAMINFO announces."""
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


def _ogg_has_its_end(file: BinaryIO, size_bytes: int) -> bool:
    """Whether the last page in the file says that it is the last of its stream."""
    start = max(0, size_bytes - _TAIL_BYTES)
    file.seek(start)
    tail = file.read(size_bytes - start)
    place = tail.rfind(b"OggS\x00")
    return place >= 0 and len(tail) > place + 5 and bool(tail[place + 5] & 4)
