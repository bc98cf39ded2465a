"""AIFF, AIFC, CAF and AU: formats with one chunk of sound whose length is stated."""

from __future__ import annotations

from typing import BinaryIO

from tsbs_daw.audio.headers.common import MAX_CHUNKS, Fault, Header, Refused, Window, bytes_at, cut, unpack_at
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio

# AIFC compression types whose samples have the size that COMM states.
PLAIN_AIFC = (b"NONE", b"twos", b"sowt", b"raw ", b"fl32", b"FL32", b"fl64", b"FL64", b"in24", b"in32")
MAX_HEADER_BYTES = 1 << 14  # what may travel to the decoder on its command line
CAF_TO_THE_END = (1 << 64) - 1
AU_UNKNOWN = 0xFFFFFFFF
AU_WIDTH_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}  # by encoding
UNFINISHED = "says that it holds no sound, and yet goes on: the program that recorded it did not finish it"


def read_aiff(file: BinaryIO, size: int) -> Header:
    """The header of an AIFF or AIFC file of `size` bytes. Raises: Refused"""
    compressed = bytes_at(file, 8, 4) == b"AIFC"
    position, common, data = 12, None, None
    for _ in range(MAX_CHUNKS):
        if position + 8 > size:
            break
        name, length = unpack_at(file, position, ">4sI")
        if name == b"COMM" and common is None:
            common = unpack_at(file, position + 8, ">HIHH8s")
            kind = bytes_at(file, position + 26, 4) if compressed else b"NONE"
        elif name == b"SSND" and data is None:
            offset = unpack_at(file, position + 8, ">I")[0]
            data = position + 16 + offset, length - 8 - offset
        position += 8 + length + length % 2
    if common is None or data is None:
        _nothing(position > size)
    channels, frames, bits, _, _ = common
    plain = kind in PLAIN_AIFC
    frame = channels * -(-bits // 8)
    declared, present = data[1], max(size - data[0], 0)
    fault = None
    if declared <= 0 < present:
        fault = Fault(UnreadableAudio, UNFINISHED, "repair it in the recording program")
    elif declared > present:
        fault = cut(declared, present)
    elif plain and frames * frame > declared:
        fault = Fault(TruncatedAudio, f"promises {frames} samples and has room for {declared // max(frame, 1)}")
    samples = min(declared, present) // frame if plain and frame and declared > 0 else None
    return Header("AIFF", channels=channels, samples=samples, seekable=plain, fault=fault)


def read_caf(file: BinaryIO, size: int) -> Header:
    """The header of a CAF file. Raises: Refused"""
    position, description, data = 8, None, None
    for _ in range(MAX_CHUNKS):
        if position + 12 > size:
            break
        name, length = unpack_at(file, position, ">4sQ")
        if name == b"desc" and description is None:
            description = unpack_at(file, position + 12, ">d4sIIIII")
        elif name == b"data" and data is None:
            data = position + 16, length  # behind the four bytes of an edit count
            if length == CAF_TO_THE_END:
                break
        position += 12 + length
    if description is None or data is None:
        _nothing(position > size)
    _, kind, _, packet_bytes, packet_samples, channels, _ = description
    present = max(size - data[0], 0)
    declared = present if data[1] == CAF_TO_THE_END else data[1] - 4
    fault, window = None, None
    if declared > present:
        fault = cut(declared, present)
        if data[0] < MAX_HEADER_BYTES:  # the decoder insists on a size that fits
            prefix = bytes_at(file, 0, data[0] - 12) + (present + 4).to_bytes(8, "big") + bytes(4)
            window = Window(data[0], size, prefix)
    plain = kind == b"lpcm" and packet_bytes > 0 and packet_samples == 1
    samples = max(min(declared, present), 0) // packet_bytes if plain else None
    return Header("CAF", channels=channels, samples=samples, seekable=plain, fault=fault, window=window)


def read_au(file: BinaryIO, size: int) -> Header:
    """The header of an AU file, of either byte order. Raises: Refused"""
    order = ">" if bytes_at(file, 0, 4) == b".snd" else "<"
    start, declared, encoding, rate, channels = unpack_at(file, 4, f"{order}IIIII")
    present = max(size - start, 0)
    warnings: tuple[str, ...] = ()
    fault = None
    if declared == AU_UNKNOWN:
        declared, warnings = present, ("does not say how long it is; everything to the end of the file is read",)
    elif declared > present:
        fault = cut(declared, present)
    elif declared == 0 < present:
        fault = Fault(UnreadableAudio, UNFINISHED, "repair it in the recording program")
    frame = channels * AU_WIDTH_BYTES.get(encoding, 0)
    return Header(
        "AU",
        channels=channels,
        sample_rate=rate,
        samples=min(declared, present) // frame if frame and declared else None,
        seekable=frame > 0,
        warnings=warnings,
        fault=fault,
    )


def _nothing(ended_early: bool) -> None:
    """Refuse a file in which a part is missing."""
    if ended_early:
        raise Refused(TruncatedAudio, "ends inside its header; copy it again")
    raise Refused(UnreadableAudio, "has a header and no sound; render it again")
