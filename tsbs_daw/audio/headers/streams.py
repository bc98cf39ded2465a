"""Streams of pages and elements: Ogg, and Matroska with WebM.

A complete Ogg stream marks its last page as the last.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from tsbs_daw.audio.headers.common import Fault, Header, Refused, Window, bytes_at, cut, joined, unpack_at
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio, UnsupportedAudio

PAGE = "<4sBBqIIIB"  # capture pattern, version, flags, granule, serial, sequence, checksum, segments
PAGE_BYTES = struct.calcsize(PAGE)
LARGEST_PAGE_BYTES = PAGE_BYTES + 255 + 255 * 255
FIRST, LAST = 2, 4
MAX_PAGES = 2_000_000
MAX_GAP_BYTES = 16 << 20
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
    rate = _ogg_rate(codec, bytes_at(file, start + PAGE_BYTES + segments, 20))
    fault, window = _walk_pages(file, size, start, rate)
    last = _last_page(file, start, size)
    if not fault and (last is None or not last[0] & LAST):
        fault = Fault(TruncatedAudio, "is cut short: its Ogg stream has no last page")
    elif not fault and last and last[1] != serial:
        fault = joined("Ogg streams")
    return Header("OGG", seekable=False, fault=fault, window=window)


def _ogg_rate(codec: str, packet: bytes) -> int | None:
    """Samples per second that an Ogg stream counts in; None if it is not known."""
    if codec == "Opus":
        return 48000
    return int.from_bytes(packet[12:16], "little") if codec == "Vorbis" else None


def _walk_pages(file: BinaryIO, size: int, start: int, rate: int | None) -> tuple[Fault | None, Window | None]:
    """What the order of the pages tells: streams end to end, and pages that are damaged or missing.

    Streams may be chained under one serial number, so the last page does not tell. The window ends before the second.
    """
    expected: dict[int, int] = {}
    position, granule, began, damage = start, 0, False, None
    for _ in range(MAX_PAGES):
        file.seek(position)
        head = file.read(PAGE_BYTES)
        if len(head) < PAGE_BYTES:
            break
        magic, version, flags, at, serial, sequence, _, segments = struct.unpack(PAGE, head)
        if magic != b"OggS" or version != 0:
            found = _next_page(file, position + 1)
            if found is None:
                break
            damage, position = damage or (position, granule), found
            continue
        if flags & FIRST and began:
            second = granule / rate if rate else None
            return joined("Ogg streams", second), Window(((start, position),))
        began |= not flags & FIRST
        if sequence != expected.get(serial, sequence):
            damage = damage or (position, granule)
        expected[serial] = sequence + 1 & 0xFFFFFFFF
        granule = at if 0 <= at < 1 << 62 else granule
        position += PAGE_BYTES + segments + sum(file.read(segments))
    if damage is None:
        return None, None
    place = f"at {damage[1] / rate:.1f} s" if rate else f"at byte {damage[0]}"
    return Fault(UnreadableAudio, f"is damaged {place}: pages of its Ogg stream are missing or damaged"), None


def _next_page(file: BinaryIO, position: int) -> int | None:
    """The offset of the next capture pattern, as far as it is worth looking; None if there is none."""
    file.seek(position)
    found = file.read(MAX_GAP_BYTES).find(b"OggS")
    return None if found < 0 else position + found


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


EBML_HEAD = re.compile(rb"\x1a\x45\xdf\xa3.{1,80}?(?:webm|matroska)", re.DOTALL)
BLOCK_BYTES = 1 << 20
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
    second = _second_matroska(file, size, body + (length or 0), body if length is None else None)
    window = Window(((0, second),)) if second else None
    fault = joined("Matroska files") if second else fault
    return Header("MATROSKA", seekable=False, warnings=warnings, fault=fault, window=window, demuxer="matroska")


def _second_matroska(file: BinaryIO, size: int, end: int, search_from: int | None) -> int | None:
    """Where another file starts: after the Segment, or anywhere after `search_from` if it has no length."""
    if search_from is None:
        file.seek(end)
        return end if end < size and file.read(4) in (EBML, SEGMENT) else None
    position = search_from
    while position < size:
        file.seek(position)
        match = EBML_HEAD.search(file.read(BLOCK_BYTES + 128))
        if match:
            return position + match.start()
        position += BLOCK_BYTES
    return None


def _ebml_size(file: BinaryIO, position: int) -> tuple[int | None, int]:
    """An EBML size (None: unknown), and the number of bytes that it takes. Raises: Refused"""
    first = bytes_at(file, position, 1)[0]
    width = 9 - first.bit_length()
    if width > 8:
        raise Refused(UnreadableAudio, "has a damaged header (an invalid size); copy it again")
    value = int.from_bytes(bytes_at(file, position, width), "big") & (1 << 7 * width) - 1
    return (None if value == (1 << 7 * width) - 1 else value), width
