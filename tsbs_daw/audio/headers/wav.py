"""WAV and its 64-bit relatives: RIFF, RIFX, RF64, BW64, W64.

Recorders and streaming programs leave the data size at 0 or at a placeholder when they could not come back to it, and
plain WAVs beyond 4 GB carry it modulo 2^32; here the file's own size decides, and the decoder gets a header that is
right.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from tsbs_daw.audio.headers.common import (
    LONGEST_REFERENCE_S,
    MAX_CHUNKS,
    Fault,
    Header,
    Refused,
    Window,
    bytes_at,
    cut,
    unpack_at,
)
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio, UnsupportedAudio

# What programs write as the data size when they do not know it: ffmpeg, two limits of 2 GB, SoX.
PLACEHOLDERS = (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000, (1 << 64) - 1)
EXTENSIBLE = 0xFFFE
FIXED_WIDTH = {1: "PCM", 3: "float", 6: "A-law", 7: "mu-law"}  # format tags whose samples all have one size
TIME_REFERENCE_OFFSET = 338  # in `bext`: description 256, originator 32, reference 32, date 10, time 8
MAX_TRAILER_BYTES = 1 << 20  # of chunks behind the sound of a WAV that is too large
STRAY_BYTES = 1024

W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of every W64 chunk's GUID but the first
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")


@dataclass
class Chunks:
    """What was found on the way through a file."""

    container: str
    order: str
    size: int
    format: bytes | None = None
    reference: int = 0
    long_data: int | None = None  # of `ds64`
    data_at: int | None = None
    data_bytes: int = 0
    end: int = 0  # where the row of chunks stopped making sense
    names_are_sane: bool = True


def read_wav(file: BinaryIO, size: int) -> Header:
    """The header of a RIFF, RIFX, RF64 or BW64 file of `size` bytes. Raises: Refused"""
    magic = bytes_at(file, 0, 4)
    chunks = Chunks("RF64" if magic in (b"RF64", b"BW64") else "WAV", ">" if magic == b"RIFX" else "<", size)
    _walk_riff(file, chunks)
    return _judge(chunks, must_rewrite=magic == b"BW64")


def read_w64(file: BinaryIO, size: int) -> Header:
    """The header of a W64 file. Raises: Refused"""
    chunks = Chunks("W64", "<", size)
    position = 40
    for _ in range(MAX_CHUNKS):
        if position + 24 > size:
            break
        name, length = unpack_at(file, position, "<16sQ")
        if length < 24:
            break
        if name[4:] == W64_TAIL:
            _note(file, chunks, name[:4], position + 24, length - 24)
        position += -(-length // 8) * 8
    chunks.end = position
    return _judge(chunks)


def _walk_riff(file: BinaryIO, chunks: Chunks) -> None:
    position = 12
    for _ in range(MAX_CHUNKS):
        if position + 8 > chunks.size:
            break
        name, length = unpack_at(file, position, f"{chunks.order}4sI")
        if chunks.data_at is not None and not all(32 <= byte < 127 for byte in name):
            chunks.names_are_sane = False
            break
        if name == b"ds64" and length >= 24:
            chunks.long_data = unpack_at(file, position + 8, "<QQQ")[1]
        elif name == b"data" and chunks.long_data is not None and length == 0xFFFFFFFF:
            length = chunks.long_data
        _note(file, chunks, name, position + 8, length)
        position += 8 + length + length % 2
    chunks.end = position


def _note(file: BinaryIO, chunks: Chunks, name: bytes, body: int, length: int) -> None:
    """Keep what matters of one chunk."""
    if name == b"fmt " and chunks.format is None:
        if length < 16:
            raise Refused(UnreadableAudio, "has a damaged header (its `fmt` chunk is too short); copy it again")
        chunks.format = bytes_at(file, body, min(length, 64))
    elif name == b"bext" and length >= TIME_REFERENCE_OFFSET + 8 and body + length <= chunks.size:
        chunks.reference = unpack_at(file, body + TIME_REFERENCE_OFFSET, f"{chunks.order}Q")[0]
    elif name == b"data" and chunks.data_at is None:
        chunks.data_at, chunks.data_bytes = body, length


def _judge(chunks: Chunks, must_rewrite: bool = False) -> Header:
    """Compare what the chunks say with each other and with the file's size."""
    if chunks.data_at is None and chunks.end > chunks.size:
        raise Refused(TruncatedAudio, "ends inside its header; copy it again")
    if chunks.format is None:
        raise Refused(UnreadableAudio, "does not say what its samples are (it has no `fmt` chunk); render it again")
    if chunks.data_at is None:
        raise Refused(UnreadableAudio, "holds no sound (it has no `data` chunk); render it again")
    tag, channels, rate, _, block, bits = struct.unpack_from(f"{chunks.order}HHIIHH", chunks.format)
    if tag == EXTENSIBLE and len(chunks.format) >= 26:
        tag = struct.unpack_from(f"{chunks.order}H", chunks.format, 24)[0]
    frame = _frame_bytes(tag, channels, block, bits)
    data_bytes, fault, warnings = _data_bytes(chunks, frame or block or 1)
    reference = chunks.reference
    if reference > LONGEST_REFERENCE_S * rate:
        reference, warnings = 0, (*warnings, f"claims to start at sample {reference} of its session; 0 is used instead")
    rewrite = must_rewrite or data_bytes != chunks.data_bytes
    return Header(
        chunks.container,
        channels=channels,
        sample_rate=rate,
        samples=data_bytes // frame if frame else None,
        seekable=frame is not None,
        time_reference_samples=reference,
        warnings=warnings,
        fault=fault,
        window=_rewritten(chunks, data_bytes) if rewrite else None,
    )


def _frame_bytes(tag: int, channels: int, block: int, bits: int) -> int | None:
    """Bytes of one sample of all channels; None for codecs that have no such number."""
    if tag not in FIXED_WIDTH:
        return None
    frame = channels * -(-bits // 8)
    if channels and block not in (0, frame):
        raise Refused(
            UnsupportedAudio,
            f"gives {block} bytes to {channels} x {bits} bits, which decoders read in different ways; render it again",
        )
    return frame or None


def _data_bytes(chunks: Chunks, frame: int) -> tuple[int, Fault | None, tuple[str, ...]]:
    """How many bytes of sound there really are, what is wrong with that, and what is merely odd."""
    declared, present = chunks.data_bytes, chunks.size - chunks.data_at
    if declared in PLACEHOLDERS and present != declared:
        return present, None, ("does not say how long it is; everything to the end of the file is read",)
    if declared == 0 and present >= frame:
        if chunks.names_are_sane and chunks.end == chunks.size:
            return 0, None, ()
        what = "says that it holds no sound, and yet goes on: the program that recorded it did not finish it"
        return present, Fault(UnreadableAudio, what, "repair it in the recording program"), ()
    if declared > present:
        return present, cut(declared, present), ()
    beyond = present - declared
    if chunks.container == "WAV" and beyond >> 32 and beyond % (1 << 32) < MAX_TRAILER_BYTES:
        data_bytes = declared + (beyond >> 32 << 32)
        return data_bytes, None, ("is larger than a WAV's header can say; its length is taken from the file's size",)
    stray = not chunks.names_are_sane or chunks.end > chunks.size + 1
    if stray and beyond > max(STRAY_BYTES, declared // 1000):
        return declared, None, (f"holds {beyond} bytes after its sound that belong to nothing; they are not read",)
    return declared, None, ()


def _rewritten(chunks: Chunks, data_bytes: int) -> Window:
    """The sound behind a header that says its true length."""
    size = struct.pack(f"{chunks.order}I", len(chunks.format))
    form = b"fmt " + size + chunks.format + b"\0" * (len(chunks.format) % 2)
    whole = 4 + len(form) + 8 + data_bytes
    if whole < 1 << 32:
        order = chunks.order
        start = (b"RIFX" if order == ">" else b"RIFF") + struct.pack(f"{order}I", whole) + b"WAVE"
        prefix = start + form + b"data" + struct.pack(f"{order}I", data_bytes)
    else:
        long = b"ds64" + struct.pack("<IQQQI", 28, whole + 36, data_bytes, 0, 0)
        start = b"RF64" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE"
        prefix = start + long + form + b"data" + struct.pack("<I", 0xFFFFFFFF)
    return Window(chunks.data_at, chunks.data_at + data_bytes, prefix)
