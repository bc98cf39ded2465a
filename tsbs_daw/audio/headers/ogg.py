"""Ogg: pages. A stream that was written to its end says so on its last page."""

from __future__ import annotations

import struct
from typing import BinaryIO

from tsbs_daw.audio.headers.common import Fault, Header, Refused, bytes_at, unpack_at
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio, UnsupportedAudio

PAGE = "<4sBBqIIIB"  # capture pattern, version, flags, granule, serial, sequence, checksum, segments
PAGE_BYTES = struct.calcsize(PAGE)
LARGEST_PAGE_BYTES = PAGE_BYTES + 255 + 255 * 255
FIRST, LAST = 2, 4
# How the first packet starts. Vorbis and Opus are what the decoder knows.
CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC", b"Speex   ": "Speex"}


def read_ogg(file: BinaryIO, size: int, start: int) -> Header:
    """The header of an Ogg stream that starts at `start`. Raises: Refused"""
    _, version, flags, _, serial, _, _, segments = unpack_at(file, start, PAGE)
    if version != 0 or not flags & FIRST:
        raise Refused(UnreadableAudio, "does not start with the first page of an Ogg stream; copy it again")
    file.seek(start + PAGE_BYTES + segments)
    packet = file.read(8)
    codec = next((name for magic, name in CODECS.items() if packet.startswith(magic)), None)
    if codec is None:
        raise Refused(UnsupportedAudio, "is an Ogg file of a kind that is not music; convert it to WAV or FLAC")
    fault = None
    last = _last_page(file, start, size)
    if last is None or not last[0] & LAST:
        fault = Fault(TruncatedAudio, "is cut short: the stream in it goes on after the last page that is there")
    elif last[1] != serial:
        fault = Fault(
            UnsupportedAudio, "holds several Ogg streams, of which only the first can be read", "convert it to WAV"
        )
    return Header("OGG", seekable=False, fault=fault)


def _last_page(file: BinaryIO, start: int, size: int) -> tuple[int, int] | None:
    """Flags and serial number of the last complete page; None if the file ends in the middle of one."""
    begin = max(start, size - 2 * LARGEST_PAGE_BYTES)
    tail = bytes_at(file, begin, size - begin)
    position = len(tail)
    while (position := tail.rfind(b"OggS", 0, position)) >= 0:
        if len(tail) - position < PAGE_BYTES:
            return None
        _, version, flags, _, serial, _, _, segments = struct.unpack_from(PAGE, tail, position)
        if version != 0:
            continue  # the four letters came by chance
        table = tail[position + PAGE_BYTES : position + PAGE_BYTES + segments]
        if len(table) < segments or position + PAGE_BYTES + segments + sum(table) > len(tail):
            return None
        return flags, serial
    return None
