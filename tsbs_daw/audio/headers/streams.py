"""Streams of pages and elements: Ogg, and Matroska with WebM.

A complete Ogg stream marks its last page as the last.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from tsbs_daw.audio.headers.common import Fault, Header, Refused, bytes_at, cut, unpack_at
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio, UnsupportedAudio

PAGE = "<4sBBqIIIB"  # capture pattern, version, flags, granule, serial, sequence, checksum, segments
PAGE_BYTES = struct.calcsize(PAGE)
LARGEST_PAGE_BYTES = PAGE_BYTES + 255 + 255 * 255
FIRST, LAST = 2, 4
# How the first packet starts.
CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC", b"Speex   ": "Speex"}


def read_ogg(file: BinaryIO, size: int, start: int = 0) -> Header:
    """Read the header of an Ogg stream that starts at `start`. Raises: Refused"""
    _, version, flags, _, serial, _, _, segments = unpack_at(file, start, PAGE)
    if version != 0 or not flags & FIRST:
        raise Refused(UnreadableAudio, "does not start with the first page of its Ogg stream; copy it again")
    file.seek(start + PAGE_BYTES + segments)
    packet = file.read(8)
    codec = next((name for magic, name in CODECS.items() if packet.startswith(magic)), None)
    if codec is None:
        raise Refused(UnsupportedAudio, "is an Ogg file with an unsupported codec; convert it to WAV or FLAC")
    fault = None
    last = _last_page(file, start, size)
    if last is None or not last[0] & LAST:
        fault = Fault(TruncatedAudio, "is cut short: its Ogg stream has no last page")
    elif last[1] != serial:
        fault = Fault(
            UnsupportedAudio, "consists of several Ogg streams, and only the first can be read", "convert it to WAV"
        )
    return Header("OGG", seekable=False, fault=fault)


def _last_page(file: BinaryIO, start: int, size: int) -> tuple[int, int] | None:
    """Flags and serial number of the last page; None if the file ends inside a page."""
    begin = max(start, size - 2 * LARGEST_PAGE_BYTES)
    tail = bytes_at(file, begin, size - begin)
    position = len(tail)
    while (position := tail.rfind(b"OggS", 0, position)) >= 0:
        if len(tail) - position < PAGE_BYTES:
            return None
        _, version, flags, _, serial, _, _, segments = struct.unpack_from(PAGE, tail, position)
        if version != 0:
            continue  # not a page: these four bytes occur by chance
        table = tail[position + PAGE_BYTES : position + PAGE_BYTES + segments]
        if len(table) < segments or position + PAGE_BYTES + segments + sum(table) > len(tail):
            return None
        return flags, serial
    return None


EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def read_matroska(file: BinaryIO, size: int) -> Header:
    """Read the header of a Matroska or WebM file.

    The Segment states its length in bytes, unless the file was streamed live.

    Raises:
        Refused: the header is damaged or incomplete
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
        warnings = ("does not state its length; it is read to the end of the file",)
    elif body + length > size:
        fault = cut(length, size - body)
    return Header("MATROSKA", seekable=False, warnings=warnings, fault=fault, demuxer="matroska")


def _ebml_size(file: BinaryIO, position: int) -> tuple[int | None, int]:
    """An EBML size (None: unknown), and the number of bytes that it takes. Raises: Refused"""
    first = bytes_at(file, position, 1)[0]
    width = 9 - first.bit_length()
    if width > 8:
        raise Refused(UnreadableAudio, "has a damaged header (an invalid size); copy it again")
    value = int.from_bytes(bytes_at(file, position, width), "big") & (1 << 7 * width) - 1
    return (None if value == (1 << 7 * width) - 1 else value), width
