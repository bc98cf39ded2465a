"""MPEG frames: MP3 (and layers I and II) with its Xing header, and raw AAC (ADTS).

The decoder gets MP3 frames as a stream without a length: without a Xing header it would estimate a length from the bit
rate of the first frame, and stop there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from tsbs_daw.audio.headers.common import Fault, Header, Refused, Window, bytes_at, cut
from tsbs_daw.audio.headers.mp4 import LATE
from tsbs_daw.core.errors import UnreadableAudio, UnsupportedAudio

# kbit/s by (is MPEG-1, layer), for bit rate index 1 to 14.
BIT_RATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version bits
TAIL_BYTES = 8192
MAX_PADDING_BYTES = 1 << 20
HAS_FRAMES, HAS_BYTES = 1, 2
MAX_ADTS_FRAMES = 2_000_000  # twelve hours


@dataclass(frozen=True)
class Frame:
    """The header of a frame. `kind` is equal for all frames of a stream; `bytes` is 0 for a free bit rate."""

    kind: tuple[int, int, int]  # version bits, layer, sample rate
    mono: bool
    bytes: int
    samples: int


def parse_frame(head: bytes) -> Frame | None:
    """The frame that starts with these four bytes; None if they cannot start one."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate_index, bit_rate_index, padding = head[2] >> 2 & 3, head[2] >> 4, head[2] >> 1 & 1
    if version == 1 or layer == 4 or rate_index == 3 or bit_rate_index == 15:
        return None
    rate = RATES_HZ[version][rate_index]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    length = 0
    if bit_rate_index:
        bits_per_s = 1000 * BIT_RATES[version == 3, layer][bit_rate_index - 1]
        slot = 4 if layer == 1 else 1
        length = (samples // 8 // slot * bits_per_s // rate + padding) * slot
    return Frame((version, layer, rate), head[3] >> 6 == 3, length, samples)


def looks_like_mpeg(file: BinaryIO, start: int) -> bool:
    """Whether two frames of one kind follow each other at `start`; a single header proves too little."""
    first = parse_frame(_some(file, start, 4))
    if first is None:
        return False
    second = parse_frame(_some(file, start + first.bytes, 4)) if first.bytes else first
    return second is not None and second.kind == first.kind


def skip_padding(file: BinaryIO, start: int) -> int:
    """The offset after the zeros that some taggers leave before the first frame."""
    found = _some(file, start, MAX_PADDING_BYTES)
    return start + len(found) - len(found.lstrip(b"\0"))


def read_mpeg(file: BinaryIO, size: int, start: int) -> Header:
    """Read the header of an MP3 file whose first frame is at `start`. Raises: Refused"""
    first = parse_frame(bytes_at(file, start, 4))
    if first is None:
        raise Refused(UnreadableAudio, "has no MP3 frame where the first should be; copy it again")
    end = _without_tags(file, start, size)
    whole_end = _last_frame_end(file, start, end, first)
    frames, stream_bytes = _xing(file, start, first)
    warnings: tuple[str, ...] = ()
    fault, slack = None, 0
    if stream_bytes and end - start < stream_bytes - first.bytes:
        fault = cut(stream_bytes, end - start)
    elif stream_bytes and _goes_on(file, start + stream_bytes, end, first):
        what = "consists of several MP3s end to end, and its header counts only the first"
        fault = Fault(UnsupportedAudio, what, "convert it to WAV")
    elif stream_bytes and whole_end == end:
        slack = 2 * first.samples  # complete; encoders disagree on which frames to count
    elif not frames and whole_end < end:
        warnings = ("ends inside a frame and has no header that states its length",)
    return Header(
        "MP3",
        channels=1 if first.mono else 2,
        sample_rate=first.kind[2],
        seekable=False,
        slack_samples=slack,
        warnings=warnings,
        fault=fault,
        window=Window(start, whole_end, pipe=True),
    )


def _some(file: BinaryIO, offset: int, count: int) -> bytes:
    """Up to `count` bytes at `offset`."""
    file.seek(offset)
    return file.read(count)


def _xing(file: BinaryIO, start: int, first: Frame) -> tuple[int, int]:
    """The numbers of frames and bytes in the Xing or Info header; 0 if it does not state one."""
    side_bytes = (17 if first.mono else 32) if first.kind[0] == 3 else (9 if first.mono else 17)
    tag = _some(file, start + 4 + side_bytes, 16)
    if len(tag) < 16 or tag[:4] not in (b"Xing", b"Info"):
        return 0, 0
    flags, *numbers = struct.unpack(">III", tag[4:])
    frames = numbers.pop(0) if flags & HAS_FRAMES else 0
    return frames, numbers.pop(0) if flags & HAS_BYTES else 0


def _without_tags(file: BinaryIO, start: int, size: int) -> int:
    """The offset at which the audio ends and the tags at the end of the file begin (ID3v1, APE)."""
    end = size
    if end - start > 128 and _some(file, end - 128, 3) == b"TAG":
        end -= 128
    footer = _some(file, max(end - 32, start), 32)
    if footer[:8] == b"APETAGEX" and len(footer) == 32:
        length, _, flags = struct.unpack_from("<III", footer, 12)
        end -= min(length + (32 if flags >> 31 else 0), end - start)
    return end


def _last_frame_end(file: BinaryIO, start: int, end: int, first: Frame) -> int:
    """The offset at which the last complete frame ends, from a run of frames near the end of the file."""
    begin = max(start, end - TAIL_BYTES)
    tail = _some(file, begin, end - begin)
    for offset in range(len(tail) - 4):
        position, count = offset, 0
        while (frame := parse_frame(tail[position : position + 4])) and frame.kind == first.kind and frame.bytes:
            if position + frame.bytes > len(tail):
                break
            position, count = position + frame.bytes, count + 1
        if count >= 3 or (count and position == len(tail)):
            return begin + position
    return end


def _goes_on(file: BinaryIO, position: int, end: int, first: Frame) -> bool:
    """Whether frames of the same kind continue at `position`."""
    if position + first.bytes >= end or not looks_like_mpeg(file, position):
        return False
    return parse_frame(_some(file, position, 4)).kind == first.kind


def adts_frame_bytes(head: bytes) -> int:
    """The length of the ADTS frame that starts with these seven bytes; 0 if they cannot start one."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0


def looks_like_adts(file: BinaryIO, start: int) -> bool:
    """Whether two ADTS frames follow each other at `start`."""
    file.seek(start)
    first = adts_frame_bytes(file.read(7))
    file.seek(start + first)
    return first > 0 and adts_frame_bytes(file.read(7)) > 0


def read_adts(file: BinaryIO, size: int, start: int) -> Header:
    """Read raw AAC frames from `start`; what follows the last complete frame is left out."""
    position, warnings = start, [LATE]
    for _ in range(MAX_ADTS_FRAMES):
        file.seek(position)
        length = adts_frame_bytes(file.read(7))
        if not length:
            break
        if position + length > size:
            warnings.append("ends inside a frame and has no header that states its length")
            break
        position += length
    window = Window(start, position)
    return Header("AAC", seekable=False, warnings=tuple(warnings), window=window, demuxer="aac")
