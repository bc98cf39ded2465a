"""FLAC: the STREAMINFO block, and of the comments the place in the session."""

from __future__ import annotations

import re
from typing import BinaryIO

from tsbs_daw.audio.headers.common import LONGEST_REFERENCE_S, Fault, Header, Refused, bytes_at, unpack_at
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio

MAX_BLOCKS = 10_000
COMMENTS, MAX_COMMENT_BYTES = 4, 1 << 20
TIME_REFERENCE = re.compile(rb"TIME_REFERENCE=(\d{1,18})(?!\d)", re.IGNORECASE)  # what ffmpeg makes of a BWF's
SMALLEST_FRAME_BYTES = 10  # header 6, one constant subframe 2, checksum 2


def read_flac(file: BinaryIO, size: int, start: int) -> Header:
    """The header of a FLAC stream that starts at `start`. Raises: Refused

    A total of 2^36 samples costs a forger five bytes, so it is held against the bytes that are there: each frame takes
    at least some, and holds at most so many samples. A smaller lie shows when the sound has been decoded.
    """
    if bytes_at(file, start + 4, 1)[0] & 0x7F != 0:
        raise Refused(UnreadableAudio, "has a damaged header (no STREAMINFO); copy it again")
    info = bytes_at(file, start + 8, 34)
    largest_block = int.from_bytes(info[2:4], "big")
    smallest_frame = max(int.from_bytes(info[4:7], "big"), SMALLEST_FRAME_BYTES)
    packed = int.from_bytes(info[10:18], "big")  # rate 20 bits, channels - 1: 3, bits - 1: 5, samples: 36
    rate, channels, samples = packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1
    sound, comments = _walk(file, start, size)
    if sound >= size:
        raise Refused(TruncatedAudio, "ends inside its header; copy it again")
    most = ((size - sound) // smallest_frame + 1) * max(largest_block, 16)
    fault = None
    if samples > most:
        what = f"is cut short: its header promises {samples} samples, and its {size} bytes cannot hold them"
        fault = Fault(TruncatedAudio, what)
    place = TIME_REFERENCE.search(comments)
    reference = int(place[1]) if place else 0
    if reference > LONGEST_REFERENCE_S * rate:
        reference = 0
    return Header("FLAC", channels=channels, sample_rate=rate, time_reference_samples=reference, fault=fault)


def _walk(file: BinaryIO, start: int, size: int) -> tuple[int, bytes]:
    """Where the metadata ends, and the block of comments."""
    position, comments = start + 4, b""
    for _ in range(MAX_BLOCKS):
        if position + 4 > size:
            break
        kind, *length = unpack_at(file, position, ">4B")
        block_bytes = int.from_bytes(bytes(length), "big")
        if kind & 0x7F == COMMENTS:
            comments = file.read(min(block_bytes, MAX_COMMENT_BYTES))
        position += 4 + block_bytes
        if kind & 0x80:
            return position, comments
    raise Refused(TruncatedAudio, "ends inside its header; copy it again")
