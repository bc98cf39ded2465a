"""Streams of pages and elements: Ogg, and Matroska with WebM.

A complete Ogg stream flags its last page as the last. In Matroska, elements follow each other without a gap, so a
place where no element starts is damaged; a decoder silently resumes at the next cluster.
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
# By the first bytes of the first packet.
CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC", b"Speex   ": "Speex"}


def read_ogg(file: BinaryIO, size: int, start: int = 0) -> Header:
    """Read the header of an Ogg stream that starts at `start`.

    Raises:
        Refused: The header is damaged or incomplete, or the codec is not supported.
    """
    _, version, flags, _, serial, _, _, segments = unpack_at(file, start, PAGE)
    if version != 0 or not flags & FIRST:
        raise Refused(UnreadableAudio, "does not start with the first page of its Ogg stream; copy it again")
    file.seek(start + PAGE_BYTES + segments)
    packet = file.read(8)
    codec = next((name for magic, name in CODECS.items() if packet.startswith(magic)), None)
    if codec is None:
        raise Refused(UnsupportedAudio, "is an Ogg file with an unsupported codec; convert it to WAV or FLAC")
    rate = _ogg_rate(codec, bytes_at(file, start + PAGE_BYTES + segments, 30))
    fault, window = _walk_pages(file, size, start, rate)
    last = _last_page(file, start, size)
    if not fault and (last is None or not last[0] & LAST):
        fault = Fault(TruncatedAudio, "is cut short: its Ogg stream has no last page")
    elif not fault and last and last[1] != serial:
        fault = joined("Ogg streams")
    demuxer = "ogg" if codec == "FLAC" else None  # libsndfile does not read FLAC in Ogg
    return Header("OGG", seekable=False, fault=fault, window=window, demuxer=demuxer)


def _ogg_rate(codec: str, packet: bytes) -> int | None:
    """Return the rate in Hz at which an Ogg stream counts samples; None if it is not known."""
    if codec == "Opus":
        return 48000
    if codec == "FLAC":
        return int.from_bytes(packet[27:30], "big") >> 4  # in its STREAMINFO
    return int.from_bytes(packet[12:16], "little") if codec == "Vorbis" else None


def _walk_pages(file: BinaryIO, size: int, start: int, rate: int | None) -> tuple[Fault | None, Window | None]:
    """Follow the pages to find streams end to end, and pages that are damaged or missing.

    Streams may be chained under one serial number, so the last page alone does not reveal them. The window ends before
    the second stream.
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
    """Return the offset of the next capture pattern within MAX_GAP_BYTES; None if there is none."""
    file.seek(position)
    found = file.read(MAX_GAP_BYTES).find(b"OggS")
    return None if found < 0 else position + found


def _last_page(file: BinaryIO, start: int, size: int) -> tuple[int, int] | None:
    """Return the flags and serial number of the last page; None if the file ends inside a page."""
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
CLUSTER, INFO, TICK_NS = b"\x1f\x43\xb6\x75", b"\x15\x49\xa9\x66", b"\x2a\xd7\xb1"
TIMESTAMP, SIMPLE_BLOCK = b"\xe7", b"\xa3"
VOID, CHECKSUM = b"\xec", b"\xbf"
# SeekHead, Tracks, Cues, Attachments, Chapters, Tags; and what clusters hold besides blocks and their time.
ON_TOP = {CLUSTER, INFO, VOID, CHECKSUM}
ON_TOP |= {bytes.fromhex(name) for name in ("114d9b74", "1654ae6b", "1c53bb6b", "1941a469", "1043a770", "1254c367")}
IN_CLUSTER = {TIMESTAMP, SIMPLE_BLOCK, VOID, CHECKSUM, b"\xa0", b"\xa7", b"\xab", b"\xaf", b"\x58\x54"}
LARGEST_HEAD_BYTES = 12  # of an element: its name and its length
READ_BYTES = 1 << 12  # at a time; small, because blocks of video are skipped
MAX_ELEMENTS = 20_000_000  # two days
MAX_DAMAGES = 1000
LEAST_GAP_S = 0.5  # between the starts of two blocks; no block is that long


def read_matroska(file: BinaryIO, size: int) -> Header:
    """Read the header of a Matroska or WebM file.

    The Segment states its length in bytes, unless the file was streamed live.

    Raises:
        Refused: The header is damaged or incomplete.
    """
    head_bytes, width = _ebml_size(file, 4)
    position = 4 + width + (head_bytes or 0)
    if position + 12 > size:
        raise Refused(TruncatedAudio, "ends inside its header; copy it again")
    if bytes_at(file, position, 4) != SEGMENT:
        raise Refused(UnreadableAudio, "has a damaged header (no Segment follows); copy it again")
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
    walk = _ElementWalk(
        file, min(body + length, size) if length else second or size, is_cut=length is None or fault is not None
    )
    walk.run(body)
    damage = walk.fault()
    if damage and fault:  # bytes are missing, as after a bad transfer: their place says more than their number
        fault = Fault(fault.kind, damage.what)
    fault = joined("Matroska files") if second else fault or damage
    warnings += walk.gaps()
    return Header("MATROSKA", seekable=False, warnings=warnings, fault=fault, window=window, demuxer="matroska")


class _ElementWalk:
    """Follows the elements of a Segment, including those in its clusters.

    Args:
        file: The file.
        end: Offset at which the Segment ends, or the file if that is shorter.
        is_cut: The file ends before the Segment does, or the Segment does not state its length.
    """

    def __init__(self, file: BinaryIO, end: int, *, is_cut: bool):
        self._file, self._end, self._is_cut = file, end, is_cut
        self._block_at, self._block = 0, b""
        self._tick_s, self._cluster_s, self._now_s = 0.001, 0.0, 0.0
        self._last_s: float | None = None
        self._gaps: list[tuple[float, float]] = []
        self._tracks: set[bytes] = set()
        self._damages: list[tuple[float, float]] = []  # from the last block before it to the first after it, in seconds

    def fault(self) -> Fault | None:
        """Return the fault of a damaged Segment, with the first place and how much is lost; None if it is whole."""
        if not self._damages:
            return None
        lost_s = sum(max(after - before, 0.0) for before, after in self._damages)
        places = f" in {len(self._damages)} places, the first" if len(self._damages) > 1 else ""
        what = f"is damaged{places} at {self._damages[0][0]:.1f} s: up to {lost_s:.2f} s is lost"
        return Fault(UnreadableAudio, what)

    def gaps(self) -> tuple[str, ...]:
        """Return a warning if nothing is damaged and yet blocks are missing, as in a recording that was paused."""
        if not self._gaps or self._damages or len(self._tracks) > 1:
            return ()
        before, after = self._gaps[0]
        places = f" in {len(self._gaps)} places, the first" if len(self._gaps) > 1 else ""
        return (f"has no audio{places} from {before:.1f} to {after:.1f} s; what is missing is left out, not silent",)

    def run(self, position: int) -> None:
        """Walk from the Segment's first element to its end."""
        cluster_end: int | None = None
        for _ in range(MAX_ELEMENTS):
            if position >= self._end:
                break
            name, length, body = self._element(position)
            inside = cluster_end is None or position < cluster_end
            limit = cluster_end if inside and name in IN_CLUSTER and cluster_end is not None else self._end
            known = name in ON_TOP or (name in IN_CLUSTER and inside)
            if known and name == CLUSTER:
                cluster_end = None if length is None else min(body + length, self._end)
                known = length is None or body + length <= self._end or self._is_cut
                position = body if known else position
            elif known and length is not None and body + length <= limit:
                self._note(name, body, length)
                position = body + length
            elif known and length is not None and self._is_cut and body + length > self._end:
                break
            else:
                known = False
            if not known:
                found = self._next_cluster(position + 1)
                if found is None and self._is_cut and self._end - position < LARGEST_HEAD_BYTES:
                    break
                before = self._now_s
                if found is not None:
                    self._enter(found)
                self._damages.append((before, self._cluster_s if found is not None else before))
                if found is None or len(self._damages) >= MAX_DAMAGES:
                    break
                position, cluster_end = found, None

    def _enter(self, position: int) -> None:
        """Note the timestamp of the cluster at `position`."""
        _, _, body = self._element(position)
        for _ in range(4):  # the timestamp may follow a checksum and the previous cluster's size
            name, length, inner = self._element(body)
            if length is None or name not in IN_CLUSTER:
                return
            self._note(name, inner, length)
            if name == TIMESTAMP:
                return
            body = inner + length

    def _note(self, name: bytes, body: int, length: int) -> None:
        """Note what an element says about time: the tick, a cluster's timestamp, or a block's."""
        if name == TIMESTAMP:
            self._cluster_s = self._now_s = int.from_bytes(self._at(body, min(length, 8)), "big") * self._tick_s
        elif name == SIMPLE_BLOCK:
            head = self._at(body, 11)
            width = 9 - head[0].bit_length() if head else 9
            ticks = int.from_bytes(head[width : width + 2], "big", signed=True)
            self._tracks.add(head[:width])
            before, self._now_s = self._last_s, self._cluster_s + ticks * self._tick_s
            if before is not None and self._now_s - before > LEAST_GAP_S:
                self._gaps.append((before, self._now_s))
            self._last_s = self._now_s
        elif name == INFO and length < BLOCK_BYTES:
            found = self._at(body, length).partition(TICK_NS)[2]
            if found and 0x81 <= found[0] <= 0x88:
                self._tick_s = int.from_bytes(found[1 : found[0] - 0x7F], "big") / 1e9

    def _element(self, position: int) -> tuple[bytes, int | None, int]:
        """Return the name, length and body offset of the element at `position`; an empty name if none can start there.

        The length is None if the element does not state it.
        """
        head = self._at(position, LARGEST_HEAD_BYTES)
        width = 9 - head[0].bit_length() if head else 9
        if width > 4 or len(head) <= width:
            return b"", None, position
        wide = 9 - head[width].bit_length()
        if wide > 8 or len(head) < width + wide:
            return b"", None, position
        length = int.from_bytes(head[width : width + wide], "big") & (1 << 7 * wide) - 1
        return head[:width], None if length == (1 << 7 * wide) - 1 else length, position + width + wide

    def _next_cluster(self, position: int) -> int | None:
        """Return the offset of the next cluster from `position` on; None if there is none."""
        while position < self._end:
            block = self._at(position, BLOCK_BYTES)
            place = block.find(CLUSTER)
            if place < 0:
                position += max(len(block) - 3, 1)
                continue
            position += place
            _, _, body = self._element(position)
            if self._element(body)[0] in IN_CLUSTER:
                return position
            position += 1
        return None

    def _at(self, position: int, count: int) -> bytes:
        """Read up to `count` bytes at `position`."""
        inside = position - self._block_at
        if inside < 0 or inside + count > len(self._block):
            self._file.seek(position)
            self._block_at, inside = position, 0
            self._block = self._file.read(max(count, READ_BYTES))
        return self._block[inside : inside + count]


def _second_matroska(file: BinaryIO, size: int, end: int, search_from: int | None) -> int | None:
    """Return the offset at which a second file starts; None if there is none.

    Args:
        file: The file.
        size: Size of the file in bytes.
        end: Offset at which the Segment ends.
        search_from: Where to start searching if the Segment does not state its length; None to look only at `end`.
    """
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
    """Read an EBML size.

    Returns:
        The size (None: unknown), and the number of bytes that encode it.

    Raises:
        Refused: The file ends here, or the bytes encode no size.
    """
    first = bytes_at(file, position, 1)[0]
    width = 9 - first.bit_length()
    if width > 8:
        raise Refused(UnreadableAudio, "has a damaged header (an invalid size); copy it again")
    value = int.from_bytes(bytes_at(file, position, width), "big") & (1 << 7 * width) - 1
    return (None if value == (1 << 7 * width) - 1 else value), width
