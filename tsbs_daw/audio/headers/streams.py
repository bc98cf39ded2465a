"""Formats that are read without an index: Matroska and WebM, and AAC frames end to end (ADTS)."""

from __future__ import annotations

from typing import BinaryIO

from tsbs_daw.audio.headers.common import Fault, Header, Refused, Window, bytes_at, cut
from tsbs_daw.audio.headers.mp4 import LATE
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
MAX_FRAMES = 2_000_000  # of ADTS: twelve hours


def read_matroska(file: BinaryIO, size: int) -> Header:
    """The header of a Matroska or WebM file. Raises: Refused

    Its Segment says how many bytes follow, unless it was streamed as it was made: then nothing does.
    """
    head_bytes, width = _ebml_size(file, 4)
    position = 4 + width + (head_bytes or 0)
    if position + 12 > size:
        raise Refused(TruncatedAudio, "ends inside its header; copy it again")
    if bytes_at(file, position, 4) != SEGMENT:
        raise Refused(UnreadableAudio, "has a damaged header (no Segment follows it); copy it again")
    length, width = _ebml_size(file, position + 4)
    body = position + 4 + width
    warnings: tuple[str, ...] = ()
    fault: Fault | None = None
    if length is None:
        warnings = ("does not say how long it is; everything to the end of the file is read",)
    elif body + length > size:
        fault = cut(length, size - body)
    return Header("MATROSKA", seekable=False, warnings=warnings, fault=fault, demuxer="matroska")


def _ebml_size(file: BinaryIO, position: int) -> tuple[int | None, int]:
    """A size as EBML codes it, None for "unknown", and how many bytes it takes. Raises: Refused"""
    first = bytes_at(file, position, 1)[0]
    width = 9 - first.bit_length()
    if width > 8:
        raise Refused(UnreadableAudio, "has a damaged header (a size that is none); copy it again")
    value = int.from_bytes(bytes_at(file, position, width), "big") & (1 << 7 * width) - 1
    return (None if value == (1 << 7 * width) - 1 else value), width


def adts_frame_bytes(head: bytes) -> int:
    """The length of the frame that starts with these seven bytes; 0 if they cannot start one."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0


def looks_like_adts(file: BinaryIO, start: int) -> bool:
    """Whether two frames follow each other at `start`."""
    file.seek(start)
    first = adts_frame_bytes(file.read(7))
    file.seek(start + first)
    return first > 0 and adts_frame_bytes(file.read(7)) > 0


def read_adts(file: BinaryIO, size: int, start: int) -> Header:
    """The header of a row of AAC frames that starts at `start`; what follows the last whole one is left out."""
    position, warnings = start, [LATE]
    for _ in range(MAX_FRAMES):
        file.seek(position)
        length = adts_frame_bytes(file.read(7))
        if not length:
            break
        if position + length > size:
            warnings.append("ends within a frame, and has no header to say whether that is its end")
            break
        position += length
    window = Window(start, position)
    return Header("AAC", seekable=False, warnings=tuple(warnings), window=window, demuxer="aac")
