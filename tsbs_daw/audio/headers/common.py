"""What every format's reader gives back, and how it reads."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO

from tsbs_daw.core.errors import AudioError, TruncatedAudio

MAX_CHUNKS = 10_000  # a real file has a dozen; an endless row of empty ones is an attack on patience
LONGEST_REFERENCE_S = 7 * 86400  # BWF counts from midnight; more than a week of it is an uninitialised field


class Refused(Exception):
    """A header that cannot be used at all.

    kind: the error to raise; what: how the sentence that starts with the file's name goes on
    """

    def __init__(self, kind: type[AudioError], what: str):
        self.kind, self.what = kind, what
        super().__init__(what)


@dataclass(frozen=True)
class Fault:
    """Something wrong that `salvage` puts up with; fields as in `Refused`."""

    kind: type[AudioError]
    what: str
    remedy: str = "copy it again"


@dataclass(frozen=True)
class Window:
    """What the decoder sees in place of the whole file: `prefix`, then the file's bytes from `start` up to `end`.

    pipe: hand it over as a stream without a length, so that the decoder cannot guess one
    """

    start: int
    end: int
    prefix: bytes = b""
    pipe: bool = False


@dataclass(frozen=True)
class Header:
    """What a file says about itself, checked against its size.

    container: "WAV", "RF64", ...
    channels, sample_rate: None where only the decoder can tell
    samples:  per channel, that are really there; None where only the decoder can tell
    seekable: each sample has its place, so that seeking is exact
    slack_samples: how many samples fewer than promised are no reason to call the file cut
    warnings: how sentences that start with the file's name go on
    demuxer:  FFmpeg's name for the container, where FFmpeg is to decode it; None: libsndfile does
    length_s: how long the sound is, where the rate that it is decoded to is not known yet
    """

    container: str
    channels: int | None = None
    sample_rate: int | None = None
    samples: int | None = None
    seekable: bool = True
    slack_samples: int = 0
    time_reference_samples: int = 0
    warnings: tuple[str, ...] = ()
    fault: Fault | None = None
    window: Window | None = None
    demuxer: str | None = None
    length_s: Fraction | None = None


def bytes_at(file: BinaryIO, offset: int, count: int) -> bytes:
    """`count` bytes at `offset`. Raises: Refused: the file ends before"""
    file.seek(offset)
    found = file.read(count)
    if len(found) < count:
        raise Refused(TruncatedAudio, "ends inside its header; copy it again")
    return found


def unpack_at(file: BinaryIO, offset: int, layout: str) -> tuple[Any, ...]:
    """The values at `offset`, by a `struct` layout. Raises: Refused: the file ends before"""
    return struct.unpack(layout, bytes_at(file, offset, struct.calcsize(layout)))


def cut(promised_bytes: int, present_bytes: int) -> Fault:
    """The fault of sound that ends too early."""
    return Fault(
        TruncatedAudio,
        f"is cut short: its header promises {promised_bytes} bytes of sound and {present_bytes} are there",
    )
