"""FLAC: STREAMINFO, the position in the session (a Vorbis comment), and the frame headers that reveal a cut file.

Bit fields as in RFC 9639, sections 8 and 9.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from tsbs_daw.audio.headers.common import (
    LONGEST_REFERENCE_S,
    Fault,
    Header,
    Refused,
    Window,
    bytes_at,
    joined,
    unpack_at,
)
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio, UnsupportedAudio

MAX_BLOCKS = 10_000
COMMENTS, MAX_COMMENT_BYTES = 4, 1 << 20
TIME_REFERENCE = re.compile(rb"TIME_REFERENCE=(\d{1,18})(?!\d)", re.IGNORECASE)  # FFmpeg's name for BWF's
SMALLEST_FRAME_BYTES = 10  # header: 6, one constant subframe: 2, checksum: 2
MAX_SYNCS = 2000  # a hostile file may consist of nothing but frame syncs
FRAME_SYNC = (b"\xff\xf8", b"\xff\xf9")  # blocks of one size, blocks of different sizes
TAIL_BYTES = 1 << 18
BLOCK_BYTES = 1 << 20
SYNC = re.compile(rb"\xff[\xf8\xf9](?![\x00-\x0f])")
MAX_SYNCS_PER_FILE = 1_000_000
RATES_HZ = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)  # by code in a frame


@dataclass(frozen=True)
class Metadata:
    """The metadata blocks of a stream.

    Attributes:
        samples: Samples per channel; 0: unknown.
        largest_block_samples: Most samples per channel in a frame.
        smallest_frame_bytes: Fewest bytes in a frame.
        comments: Body of the VORBIS_COMMENT block.
        frames_at: Offset in the file at which the metadata ends and the frames begin.
    """

    sample_rate: int
    channels: int
    samples: int
    largest_block_samples: int
    smallest_frame_bytes: int
    comments: bytes
    frames_at: int


def read_flac(file: BinaryIO, size: int, start: int = 0) -> Header:
    """Read the header of a FLAC stream.

    Claiming 2^36 samples costs a forger five bytes, so the total is checked against the bytes in the file: each frame
    has a minimum size and a maximum number of samples. Smaller lies show once the audio is decoded.

    Args:
        file: The file.
        size: Size of the file in bytes.
        start: Offset of the stream in the file.

    Raises:
        Refused: The metadata is damaged or incomplete.
    """
    metadata = read_metadata(file, size, start)
    if metadata.frames_at >= size:
        raise Refused(TruncatedAudio, "ends inside its header; copy it again")
    most_frames = (size - metadata.frames_at) // metadata.smallest_frame_bytes + 1
    fault = None
    if metadata.samples > most_frames * max(metadata.largest_block_samples, 16):
        what = f"is cut short: its header promises {metadata.samples} samples, and its {size} bytes cannot hold them"
        fault = Fault(TruncatedAudio, what)
    walk = walk_frames(file, size, metadata)
    window: Window | None = None
    warnings: tuple[str, ...] = ()
    fault = fault or walk.fault
    info = bytes_at(file, start, 42)
    if walk.fault or walk.samples > metadata.samples > 0:
        window = Window(walk.parts, _with_samples(info, 0 if walk.fault else walk.samples))

    def resume(samples: int) -> tuple[int, Window] | None:
        after = bisect.bisect_right(walk.frames, (samples, size))
        if after == len(walk.frames):
            return None
        first, at = walk.frames[after]
        return first, Window(((at, size),), _with_samples(info, 0))

    if window and not walk.fault:
        what = f"counts {metadata.samples} of its {walk.samples} samples"
        warnings = (f"has a header that {what}; all of them are read",)
    match = TIME_REFERENCE.search(metadata.comments)
    reference = int(match[1]) if match else 0
    return Header(
        "FLAC",
        channels=metadata.channels,
        sample_rate=metadata.sample_rate,
        time_reference_samples=0 if reference > LONGEST_REFERENCE_S * metadata.sample_rate else reference,
        least_s=None if fault else Fraction(walk.samples, metadata.sample_rate),
        seekable=not walk.fault,
        warnings=warnings,
        fault=fault,
        window=window,
        resume=None if walk.fault else resume,
    )


def _with_samples(info: bytes, samples: int) -> bytes:
    """Return the start of a stream whose only metadata is a STREAMINFO with this number of samples (0: unknown)."""
    packed = int.from_bytes(info[18:26], "big") >> 36 << 36 | samples
    return info[:4] + b"\x80" + info[5:18] + packed.to_bytes(8, "big") + info[26:42]


@dataclass(frozen=True)
class Frame:
    """The header of a frame.

    Attributes:
        at: Offset of the frame in the file.
        first: Number of its first sample.
        end: Number of the first sample after it.
        rate_hz: Sample rate; 0 if the header leaves it to STREAMINFO.
        channels: Number of channels.
    """

    at: int
    first: int
    end: int
    rate_hz: int
    channels: int


@dataclass(frozen=True)
class FrameWalk:
    """What the frame headers of a stream reveal.

    Attributes:
        samples: Samples up to the end of the last valid frame.
        parts: The bytes of the frames, (start, end), without damaged ones.
        fault: The stream changes, another one follows it, or frames are missing.
        frames: First sample and offset of each frame; empty if there is a fault.
    """

    samples: int
    parts: tuple[tuple[int, int], ...]
    fault: Fault | None = None
    frames: tuple[tuple[int, int], ...] = ()


def walk_frames(file: BinaryIO, size: int, metadata: Metadata) -> FrameWalk:
    """Follow the frames by their numbers.

    A frame does not state its length in bytes, and bytes that look like a header occur by chance a few times in a file.
    So a header only counts if it continues the frames before it, or if two in a row agree.
    """
    rate, begin = metadata.sample_rate, metadata.frames_at
    parts: list[tuple[int, int]] = []
    lost, expected, base, last, other = 0, 0, 0, begin, None
    first_loss, frames = None, []
    for frame in _frames(file, size, metadata):
        is_ours = frame.channels == metadata.channels and frame.rate_hz in (0, rate)
        if is_ours and frame.first == expected:
            expected, last, other = frame.end, frame.at, None
            frames.append((frame.first - base, frame.at))
        elif other and other.end == frame.first and (other.rate_hz, other.channels) == (frame.rate_hz, frame.channels):
            end = (*parts, (begin, other.at))
            if not is_ours:
                new = [f"{frame.rate_hz} Hz"] if frame.rate_hz not in (0, rate) else []
                many = "s" if frame.channels > 1 else ""
                new += [f"{frame.channels} channel{many}"] if frame.channels != metadata.channels else []
                at = f"changes to {' and '.join(new)} at {(expected - base) / rate:.1f} s"
                return FrameWalk(expected - base, end, Fault(UnsupportedAudio, at, "convert it to WAV"))
            if other.first < expected:
                return FrameWalk(expected - base, end, joined("FLAC streams", (expected - base) / rate))
            if expected:
                first_loss = expected if first_loss is None else first_loss
                lost += other.first - expected
                parts.append((begin, last))  # the frame before the gap is damaged
                begin = other.at
            else:
                frames = [(0, other.at), (frame.first - other.first, frame.at)]
                base = other.first  # cut from a longer stream, as radio recorders do
            expected, last, other = frame.end, frame.at, None
        else:
            other = frame
    parts.append((begin, size))
    if first_loss is None:
        return FrameWalk(expected - base, tuple(parts), frames=tuple(frames))
    what = f"is damaged at {first_loss / rate:.1f} s: at least {lost / rate:.2f} s is lost"
    return FrameWalk(expected - base, tuple(parts), Fault(UnreadableAudio, what))


def _frames(file: BinaryIO, size: int, metadata: Metadata) -> Iterator[Frame]:
    """Yield everything in the file that is valid as a frame header, including what only looks like one by chance."""
    position, checked = metadata.frames_at, 0
    while position < size:
        file.seek(position)
        block = file.read(BLOCK_BYTES + 16)
        for match in SYNC.finditer(block, 0, min(len(block), BLOCK_BYTES + 2)):
            checked += 1
            frame = block[match.start() : match.start() + 16]
            samples = _frame_samples(frame, metadata.largest_block_samples)
            if samples:
                channels = (frame[3] >> 4) + 1 if frame[3] >> 4 < 8 else 2
                yield Frame(position + match.start(), samples[0], sum(samples), _rate(frame), channels)
        if checked > MAX_SYNCS_PER_FILE:
            return
        position += BLOCK_BYTES


def has_last_frame(file: BinaryIO, size: int, start: int = 0) -> bool:
    """Whether the file holds the last frame that STREAMINFO announces; True if STREAMINFO states no length.

    Raises:
        Refused: The metadata is damaged or incomplete.
    """
    metadata = read_metadata(file, size, start)
    if metadata.frames_at >= size:
        return False
    if metadata.samples == 0:
        return True
    tail_at = max(metadata.frames_at, size - TAIL_BYTES)
    tail = bytes_at(file, tail_at, size - tail_at)
    position = len(tail)
    for _ in range(MAX_SYNCS):
        position = max(tail.rfind(sync, 0, position) for sync in FRAME_SYNC)
        if position < 0:
            break
        end = _frame_end(tail[position : position + 16], metadata.largest_block_samples)
        if end is not None:
            return end >= metadata.samples
    return False


def read_metadata(file: BinaryIO, size: int, start: int) -> Metadata:
    """Read the metadata blocks.

    Raises:
        Refused: STREAMINFO is not the first block or states no sample rate, or the file ends inside the metadata.
    """
    if bytes_at(file, start + 4, 1)[0] & 0x7F != 0:
        raise Refused(UnreadableAudio, "has a damaged header (no STREAMINFO); copy it again")
    info = bytes_at(file, start + 8, 34)
    packed = int.from_bytes(info[10:18], "big")  # rate 20 bits, channels - 1: 3, bits - 1: 5, samples: 36
    if not packed >> 44:
        raise Refused(UnreadableAudio, "has a damaged header (a sample rate of 0 Hz); copy it again")
    position, comments = start + 4, b""
    for number in range(MAX_BLOCKS):
        if position + 4 > size:
            break
        kind, *length = unpack_at(file, position, ">4B")
        block_bytes = int.from_bytes(bytes(length), "big")
        if number and kind & 0x7F == 0:  # a second STREAMINFO: zeros, because the metadata is not written yet
            break
        if kind & 0x7F == COMMENTS:
            comments = file.read(min(block_bytes, MAX_COMMENT_BYTES))
        position += 4 + block_bytes
        if kind & 0x80:
            return Metadata(
                sample_rate=packed >> 44,
                channels=(packed >> 41 & 7) + 1,
                samples=packed & (1 << 36) - 1,
                largest_block_samples=int.from_bytes(info[2:4], "big"),
                smallest_frame_bytes=max(int.from_bytes(info[4:7], "big"), SMALLEST_FRAME_BYTES),
                comments=comments,
                frames_at=position,
            )
    raise Refused(TruncatedAudio, "ends inside its header; copy it again")


def _frame_end(frame: bytes, fixed_block_samples: int) -> int | None:
    """Return the number of the first sample after this frame; None if these bytes are not a frame header."""
    found = _frame_samples(frame, fixed_block_samples)
    return None if found is None else sum(found)


def _frame_samples(frame: bytes, fixed_block_samples: int) -> tuple[int, int] | None:
    """Return this frame's first sample and number of samples; None if these bytes are not a frame header."""
    if len(frame) < 6:
        return None
    variable, block_code, rate_code = frame[1] & 1, frame[2] >> 4, frame[2] & 15
    number, length = _coded_number(frame[4:])
    if number is None or block_code == 0 or rate_code == 15:
        return None
    position = 4 + length
    block_samples = _block_samples(block_code, frame[position : position + 2])
    position += {6: 1, 7: 2}.get(block_code, 0) + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if block_samples is None or position >= len(frame) or _crc8(frame[:position]) != frame[position]:
        return None
    return (number if variable else number * fixed_block_samples), block_samples


def _rate(frame: bytes) -> int:
    """Return the sample rate that a valid frame header states; 0 if it leaves the rate to STREAMINFO."""
    code = frame[2] & 15
    if code < 12:
        return RATES_HZ[code]
    position = 4 + _coded_number(frame[4:])[1] + {6: 1, 7: 2}.get(frame[2] >> 4, 0)
    if code == 12:
        return 1000 * frame[position]
    return int.from_bytes(frame[position : position + 2], "big") * (1 if code == 13 else 10)


def _block_samples(code: int, extra: bytes) -> int | None:
    if code == 1:
        return 192
    if code <= 5:
        return 576 << (code - 2)
    if code == 6:
        return extra[0] + 1 if extra else None
    if code == 7:
        return int.from_bytes(extra, "big") + 1 if len(extra) == 2 else None
    return 256 << (code - 8)


def _coded_number(data: bytes) -> tuple[int | None, int]:
    """Decode a number in FLAC's extension of UTF-8 to 36 bits.

    Returns:
        The number, and its length in bytes; (None, 0) if it is invalid.
    """
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
