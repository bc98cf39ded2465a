"""MPEG frames: MP3 (and layers I and II) with its Xing header, and raw AAC (ADTS).

The decoder gets MP3 frames as a stream without a length. Given a file without a Xing header, it would estimate the
length from the bit rate of the first frame and stop there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from tsbs_daw.audio.headers.common import EMPTY_TAIL_BYTES, ByteSource, Fault, Header, Refused, Window, bytes_at, cut
from tsbs_daw.audio.headers.frames import MOST_PADDING_BYTES, Frame, FrameReader, Walk, walk_frames
from tsbs_daw.audio.headers.mp4 import LATE
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio, UnsupportedAudio

# In kbit/s by (is MPEG-1, layer), for bit rate indices 1 to 14.
BIT_RATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version bits
ADTS_RATES_HZ = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
MAX_PADDING_BYTES = 1 << 20
XING = (b"Xing", b"Info")
HAS_FRAMES, HAS_BYTES, HAS_TABLE, HAS_QUALITY = 1, 2, 4, 8
LAME_BYTES = 36
COUNT_SLACK = 2  # encoders disagree on which frames to count
MIN_FREE_BYTES, MAX_FREE_BYTES = 24, 8192  # frame lengths: mono at 8 kHz, and above layer III's limit
LEAD_FRAMES = 10  # most frames that a decoder may drop at the start of a part, because they refer to earlier ones


@lru_cache(maxsize=1024)  # a stream has few different headers
def parse_frame(head: bytes) -> Frame | None:
    """Parse the MPEG audio frame that starts with these four bytes; None if they are not a frame header."""
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
    channels = 1 if head[3] >> 6 == 3 else 2
    return Frame((version, layer, rate, channels), rate, channels, length, samples)


def looks_like_mpeg(file: ByteSource, start: int) -> bool:
    """Whether two frames of one kind follow each other at `start`; a single header proves nothing."""
    first = parse_frame(_some(file, start, 4))
    if first is None:
        return False
    if not first.bytes:
        return _repeats(file, start, first)
    second = parse_frame(_some(file, start + first.bytes, 4))
    return second is not None and second.kind == first.kind


def _repeats(file: ByteSource, start: int, first: Frame) -> bool:
    """Whether frames of a free bit rate start here: they do not state their length, but all are equally long."""
    found = _some(file, start, 2 * MAX_FREE_BYTES + 8)
    for length in range(MIN_FREE_BYTES, MAX_FREE_BYTES):
        if found[length : length + 1] != found[:1]:
            continue
        following = parse_frame(found[length : length + 4])
        if following == first and any(parse_frame(found[2 * length + n :][:4]) == first for n in (-4, -1, 0, 1, 4)):
            return True
    return False


def skip_padding(file: ByteSource, start: int) -> int:
    """Return the offset after the zeros that some taggers leave before the first frame."""
    found = _some(file, start, MAX_PADDING_BYTES)
    return start + len(found) - len(found.lstrip(b"\0"))


def read_mpeg(file: ByteSource, size: int, start: int = 0) -> Header:
    """Read an MP3 file whose first frame is at `start`, from its first frame to its last.

    Raises:
        Refused: There is no frame at `start` or after the header, or the bit rate is free.
    """
    first = parse_frame(bytes_at(file, start, 4))
    if first is None:
        raise Refused(UnreadableAudio, "has no MP3 frame where the first should be; copy it again")
    end = _without_tags(file, start, size)
    if not first.bytes:  # decoders lose sync in such a stream, or silently end early
        raise Refused(UnsupportedAudio, "is an MP3 with a free bit rate, which is not supported; convert it to WAV")
    count = read_count(bytes_at(file, start, min(first.bytes, size - start)), first)
    reader = FrameReader(file, end, parse_frame, 4)
    begin = start + first.bytes if count else start
    audio_at = reader.next_chain(begin) if count and not reader.frame(begin) else begin
    first = None if audio_at is None else reader.frame(audio_at)
    if audio_at is None or first is None:
        raise Refused(TruncatedAudio, "ends after its header; copy it again")
    walk = walk_frames(reader, audio_at, lambda head: bool(read_count(head, first)))
    fault = change_of(walk, first) or damage_of(walk, "MP3") or (count and _cut(walk, count, end - start))
    is_whole = count and count.frames and count.frames <= walk.frames
    fault = fault or (None if is_whole else zeros_of(walk)) or None
    parts, prefix = walk.parts, b""
    if count and count.frames == walk.frames and count.is_xing:
        parts = [(start, start + count.frame.bytes), *parts]  # the header is correct, and states the encoder's delay
    elif count:
        prefix = count.rewritten(walk.frames)
    return Header(
        "MP3",
        channels=first.channels,
        sample_rate=first.rate_hz,
        seekable=False,
        slack_samples=0 if walk.is_cut else 2 * first.samples,  # encoders disagree on which frames to count
        least_s=Fraction(max(walk.samples - LEAD_FRAMES * (1 + len(walk.parts)) * first.samples, 0), first.rate_hz),
        warnings=(*_joined(walk, count), *oddities(walk, "MP3", counted=bool(count))),
        fault=fault,
        window=Window(tuple(parts), prefix, pipe=True),
    )


def change_of(walk: Walk, first: Frame) -> Fault | None:
    """Return the fault of a stream whose sample rate or number of channels changes, with the place."""
    if walk.change is None:
        return None
    rate, channels = walk.change.rate_hz, walk.change.channels
    new = [f"{rate} Hz"] if rate != first.rate_hz else []
    new += [f"{channels} channel{'s' if channels != 1 else ''}"] if channels != first.channels else []
    new += [] if walk.change.bytes else ["a free bit rate"]
    what = " and ".join(new) or "another coding"
    return Fault(UnsupportedAudio, f"changes to {what} at {walk.samples / first.rate_hz:.1f} s", "convert it to WAV")


def damage_of(walk: Walk, name: str) -> Fault | None:
    """Return the fault of a stream with foreign bytes inside, with the first place and about how much is lost."""
    if not walk.damages:
        return None
    first, lost = walk.damages[0], sum(damage.bytes for damage in walk.damages)
    places = f" in {len(walk.damages)} places, the first" if len(walk.damages) > 1 else ""
    return Fault(
        UnreadableAudio,
        f"is damaged{places} at {first.at_samples / walk.rate_hz:.1f} s: {lost} bytes are not {name} "
        f"(about {_seconds(walk, lost):.2f} s is lost)",
    )


def zeros_of(walk: Walk) -> Fault | None:
    """Return the fault of a stream that ends in more zeros than any padding: an unfinished copy."""
    if walk.trailing_zeros < EMPTY_TAIL_BYTES:
        return None
    at_s, lost_s = walk.samples / walk.rate_hz, _seconds(walk, walk.trailing_zeros)
    return Fault(
        TruncatedAudio,
        f"is cut short at {at_s:.1f} s: the rest of its audio is zeros (about {lost_s:.1f} s)",
        "copy it again once it is complete",
    )


def _seconds(walk: Walk, count: int) -> float:
    """Estimate how many seconds of audio `count` bytes of this stream hold."""
    held = sum(end - start for start, end in walk.parts)
    return count * walk.samples / max(held, 1) / walk.rate_hz


def oddities(walk: Walk, name: str, *, counted: bool = False) -> list[str]:
    """Return warnings about the bytes after the last frame."""
    if walk.is_cut and not counted:
        return ["ends inside a frame and has no header that states its length"]
    if walk.trailing_bytes and not walk.change:
        return [f"has {walk.trailing_bytes} bytes after its last frame that are not {name}; they are ignored"]
    if walk.trailing_zeros > MOST_PADDING_BYTES and not counted:
        seconds = _seconds(walk, walk.trailing_zeros)
        return [f"ends in {walk.trailing_zeros} zeros; about {seconds:.1f} s of audio may be missing there"]
    return []


def _joined(walk: Walk, count: Count | None) -> list[str]:
    if count and count.frames and count.frames + COUNT_SLACK < walk.frames:
        return [f"has a header that counts {count.frames} of its {walk.frames} frames; all of them are read"]
    if walk.headers:
        return [f"consists of {walk.headers + 1} MP3s end to end; all of them are read"]
    return []


def _cut(walk: Walk, count: Count, present_bytes: int) -> Fault | None:
    """Return the fault of a file with fewer frames than its header counts."""
    missing = count.frames - walk.frames
    if missing > COUNT_SLACK or (walk.is_cut and missing > 0):
        return Fault(
            TruncatedAudio,
            f"is cut short: its header promises {count.frames} frames of audio and the file has {walk.frames}",
        )
    if not count.frames and count.stated_bytes > present_bytes + count.frame.bytes:
        return cut(count.stated_bytes, present_bytes)
    return None


@dataclass(frozen=True)
class Count:
    """The header in a stream's first frame (Xing, Info, VBRI). A number that it does not state is 0.

    Attributes:
        frame: The frame that holds the header.
        raw: The bytes of that frame.
        is_xing: Xing or Info, not VBRI.
        frames: Number of audio frames.
        stated_bytes: Length of the stream.
        lame: LAME's extension, with the encoder's delay and padding; empty without one.
    """

    frame: Frame
    raw: bytes
    is_xing: bool
    frames: int
    stated_bytes: int
    lame: bytes

    def rewritten(self, frames: int) -> bytes:
        """Return the frame as an Info header with the real number of frames.

        LAME's padding belongs to the last frame of the old count, so it is only kept if the new count is close.
        """
        lame = self.lame
        if lame and abs(frames - self.frames) > COUNT_SLACK:
            lame = lame[:22] + bytes([lame[22] & 0xF0, 0]) + lame[24:]
        head = bytes([self.raw[0], self.raw[1] | 1, *self.raw[2:4]])  # without a checksum
        info = b"Info" + struct.pack(">II", HAS_FRAMES, frames) + lame
        return (head + bytes(_side_bytes(self.frame)) + info).ljust(self.frame.bytes, b"\0")[: self.frame.bytes]


def read_count(raw: bytes, frame: Frame) -> Count | None:
    """Read the header that a frame holds in place of audio; None if the frame holds audio.

    Args:
        raw: First bytes of the frame; all of its bytes if the numbers matter.
        frame: The frame.
    """
    if raw[36:40] == b"VBRI":
        stated = struct.unpack(">II", raw[46:54]) if len(raw) >= 54 else (0, 0)
        return Count(frame, raw, False, stated[1], stated[0], b"")
    at = 4 + _side_bytes(frame)
    if raw[at + 2 : at + 6] in XING:  # after a checksum
        at += 2
    if raw[at : at + 4] not in XING:
        return None
    flags = int.from_bytes(raw[at + 4 : at + 8], "big")
    numbers, place = [], at + 8
    for flag, width in ((HAS_FRAMES, 4), (HAS_BYTES, 4), (HAS_TABLE, 100), (HAS_QUALITY, 4)):
        numbers.append(int.from_bytes(raw[place : place + 4], "big") if flags & flag else 0)
        place += width if flags & flag else 0
    lame = raw[place : place + LAME_BYTES]
    has_lame = len(lame) == LAME_BYTES and lame[:1] != b"\0"
    return Count(frame, raw, True, numbers[0], numbers[1], lame if has_lame else b"")


def _side_bytes(frame: Frame) -> int:
    """Return the length of a layer III frame's side information, which the Xing header follows."""
    if frame.kind[0] == 3:
        return 17 if frame.channels == 1 else 32
    return 9 if frame.channels == 1 else 17


def _some(file: ByteSource, offset: int, count: int) -> bytes:
    """Read up to `count` bytes at `offset`."""
    file.seek(offset)
    return file.read(count)


def _without_tags(file: ByteSource, start: int, size: int) -> int:
    """Return the offset at which the audio ends and the tags at the end of the file begin (ID3v1, APE)."""
    end = size
    if end - start > 128 and _some(file, end - 128, 3) == b"TAG":
        end -= 128
    footer = _some(file, max(end - 32, start), 32)
    if footer[:8] == b"APETAGEX" and len(footer) == 32:
        length, _, flags = struct.unpack_from("<III", footer, 12)
        end -= min(length + (32 if flags >> 31 else 0), end - start)
    return end


def parse_adts(head: bytes) -> Frame | None:
    """Parse the ADTS frame (AAC) that starts with these seven bytes; None if they are not a frame header."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return None
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if length <= 7:
        return None
    rate = ADTS_RATES_HZ[head[2] >> 2 & 15]
    layout = (head[2] & 1) << 2 | head[3] >> 6
    channels = 8 if layout == 7 else layout
    return Frame((rate, layout), rate, channels, length, 1024 * ((head[6] & 3) + 1))


def looks_like_adts(file: ByteSource, start: int) -> bool:
    """Whether two ADTS frames follow each other at `start`."""
    first = parse_adts(_some(file, start, 7))
    return first is not None and parse_adts(_some(file, start + first.bytes, 7)) is not None


def read_adts(file: ByteSource, size: int, start: int = 0) -> Header:
    """Read raw AAC whose first frame is at `start`, from its first frame to its last.

    Raises:
        Refused: There is no frame at `start`.
    """
    first = parse_adts(bytes_at(file, start, 7))
    if first is None:
        raise Refused(UnreadableAudio, "has no AAC frame where the first should be; copy it again")
    walk = walk_frames(FrameReader(file, _without_tags(file, start, size), parse_adts, 7), start)
    return Header(
        "AAC",
        seekable=False,
        least_s=Fraction(max(walk.samples - 2 * (1 + len(walk.parts)) * first.samples, 0), first.rate_hz),
        warnings=(LATE, *oddities(walk, "AAC")),
        fault=change_of(walk, first) or damage_of(walk, "AAC") or zeros_of(walk),
        window=Window(tuple(walk.parts)),
        demuxer="aac",
    )
