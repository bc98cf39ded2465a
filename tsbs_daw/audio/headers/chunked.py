"""Formats with one chunk of audio whose length is stated: WAV and its 64-bit relatives, AIFF, CAF and AU.

Recorders and streaming programs leave the data size of a WAV at 0 or at a placeholder when they cannot seek back to it,
and plain WAVs beyond 4 GB state it modulo 2^32. In these cases the size of the file decides, and the decoder gets a
corrected header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import BinaryIO

from tsbs_daw.audio.headers.common import (
    LONGEST_REFERENCE_S,
    MAX_CHUNKS,
    Fault,
    Header,
    Refused,
    Section,
    Window,
    bytes_at,
    cut,
    joined,
    riff_chunks,
    unpack_at,
)
from tsbs_daw.audio.headers.frames import FrameReader
from tsbs_daw.audio.headers.mpeg import looks_like_mpeg, parse_frame, read_mpeg, skip_padding
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio, UnsupportedAudio

# Written as the data size by programs that do not know it: FFmpeg, two limits of 2 GB, SoX.
PLACEHOLDERS = (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000, (1 << 64) - 1)
EXTENSIBLE = 0xFFFE
FIXED_WIDTH = {1: "PCM", 3: "float", 6: "A-law", 7: "mu-law"}  # format tags with a fixed sample size
MPEG = (0x50, 0x55)  # layer I or II, layer III
# Samples per channel of a block, by format tag.
BLOCK_SAMPLES = {
    0x02: lambda block, channels: (block // channels - 7) * 2 + 2,  # Microsoft ADPCM
    0x11: lambda block, channels: (block // channels - 4) * 2 + 1,  # IMA ADPCM
    0x31: lambda block, channels: 320,  # GSM 6.10
}
TIME_REFERENCE_OFFSET = 338  # in `bext`: description 256, originator 32, reference 32, date 10, time 8
MAX_TRAILER_BYTES = 1 << 20  # most bytes of chunks after the audio of a WAV beyond 4 GB
STRAY_BYTES = 1024
WHOLE_FILES = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM")

W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # ends the GUID of every W64 chunk except the first
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")


@dataclass
class Chunks:
    """The chunks of a WAV or W64 file that matter here.

    Attributes:
        order: Byte order as in `struct`.
        reference: BWF time reference in samples.
        end: Offset at which the walk stopped.
        names_are_sane: False if a chunk after the audio has a name that is not printable.
        is_joined: Another file follows this one.
        unpadded: A chunk of odd length lacks its pad byte.
        fact_samples: From the `fact` chunk; needed by block codecs, which pad their last block.
        riff_end: Where the file ends according to its header.
    """

    container: str
    order: str
    size: int
    format: bytes | None = None
    reference: int = 0
    data_at: int | None = None
    data_bytes: int = 0
    end: int = 0
    names_are_sane: bool = True
    unpadded: bool = False
    is_joined: bool = False
    fact_samples: int | None = None
    riff_end: int = 0


def read_wav(file: BinaryIO, size: int) -> Header:
    """Read the header of a RIFF, RIFX, RF64 or BW64 file of `size` bytes. Raises: Refused"""
    magic = bytes_at(file, 0, 4)
    chunks = Chunks("RF64" if magic in (b"RF64", b"BW64") else "WAV", ">" if magic == b"RIFX" else "<", size)
    chunks.riff_end = 8 + unpack_at(file, 4, f"{chunks.order}I")[0]
    _walk_riff(file, chunks)
    if bytes_at(file, 8, 4) == b"RMP3" and chunks.data_at is not None:
        return _wrapped_mpeg(file, chunks, chunks.data_at, chunks.data_bytes)
    return _judge(file, chunks, must_rewrite=magic == b"BW64" or chunks.unpadded)


def read_w64(file: BinaryIO, size: int) -> Header:
    """Read the header of a W64 file of `size` bytes. Raises: Refused"""
    chunks = Chunks("W64", "<", size)
    position = 40
    for _ in range(MAX_CHUNKS):
        if position + 24 > size:
            break
        name, length = unpack_at(file, position, "<16sQ")
        if length < 24:
            break
        if name == W64_RIFF:
            chunks.is_joined = True
            break
        if name[4:] == W64_TAIL:
            _note(file, chunks, name[:4], position + 24, length - 24)
        position += -(-length // 8) * 8
    chunks.end = position
    return _judge(file, chunks)


def _walk_riff(file: BinaryIO, chunks: Chunks) -> None:
    for chunk in riff_chunks(file, chunks.size, chunks.order):
        if chunks.data_at is not None and chunk.name in WHOLE_FILES:
            chunks.is_joined = True
            break
        if chunks.data_at is not None and not all(32 <= byte < 127 for byte in chunk.name):
            chunks.names_are_sane = False
            break
        _note(file, chunks, chunk.name, chunk.body, chunk.size)
        chunks.end = chunk.end
        chunks.unpadded |= not chunk.padded


def _note(file: BinaryIO, chunks: Chunks, name: bytes, body: int, length: int) -> None:
    """Note what matters from a chunk, given its name and the offset and length of its body."""
    if name == b"fmt " and chunks.format is None:
        if length < 16:
            raise Refused(UnreadableAudio, "has a damaged header (its `fmt` chunk is too short); copy it again")
        chunks.format = bytes_at(file, body, min(length, 64))
    elif name == b"bext" and length >= TIME_REFERENCE_OFFSET + 8 and body + length <= chunks.size:
        chunks.reference = unpack_at(file, body + TIME_REFERENCE_OFFSET, f"{chunks.order}Q")[0]
    elif name == b"fact" and chunks.fact_samples is None:
        width = "Q" if chunks.container == "W64" and length >= 8 else "I"
        chunks.fact_samples = unpack_at(file, body, chunks.order + width)[0] if length >= 4 else None
    elif name == b"data" and chunks.data_at is None:
        chunks.data_at, chunks.data_bytes = body, length


def _judge(file: BinaryIO, chunks: Chunks, must_rewrite: bool = False) -> Header:
    """Check the chunks against each other and against the file's size."""
    if chunks.data_at is None and chunks.end > chunks.size:
        raise Refused(TruncatedAudio, "ends inside its header; copy it again")
    if chunks.format is None:
        raise Refused(UnreadableAudio, "does not state its sample format (no `fmt` chunk); render it again")
    if chunks.data_at is None:
        raise Refused(UnreadableAudio, "has no audio (no `data` chunk); render it again")
    tag, channels, rate, _, block, bits = struct.unpack_from(f"{chunks.order}HHIIHH", chunks.format)
    if tag == EXTENSIBLE and len(chunks.format) >= 26:
        tag = struct.unpack_from(f"{chunks.order}H", chunks.format, 24)[0]
    frame = _frame_bytes(tag, channels, block, bits)
    data_bytes, fault, warnings = _data_bytes(file, chunks, chunks.data_at, frame or block or 1)
    if chunks.is_joined and not fault:
        fault = joined(f"{chunks.container}s", data_bytes / (frame * rate) if frame and rate else None)
        must_rewrite = True
    if chunks.unpadded:
        warnings = (*warnings, UNPADDED)
    reference = chunks.reference
    if reference > LONGEST_REFERENCE_S * rate:
        warnings = (*warnings, f"has an implausible time reference ({reference} samples); 0 is used")
        reference = 0
    if tag in MPEG and data_bytes:
        inner = _wrapped_mpeg(file, chunks, chunks.data_at, data_bytes)
        return replace(
            inner,
            time_reference_samples=reference,
            warnings=(*warnings, *inner.warnings),
            fault=fault or inner.fault,
        )
    rewrite = must_rewrite or data_bytes != chunks.data_bytes
    return Header(
        chunks.container,
        channels=channels,
        sample_rate=rate,
        samples=data_bytes // frame if frame else None,
        seekable=frame is not None,
        length_samples=None if frame or fault else _coded_samples(chunks, tag, channels, block, data_bytes),
        time_reference_samples=reference,
        warnings=warnings,
        fault=fault,
        window=_rewritten(chunks.order, chunks.format, chunks.data_at, data_bytes) if rewrite else None,
    )


def _wrapped_mpeg(file: BinaryIO, chunks: Chunks, data_at: int, data_bytes: int) -> Header:
    """Read the header of the MP3 in the `data` chunk. Raises: Refused"""
    section = Section(file, data_at, min(data_at + data_bytes, chunks.size))
    begin = skip_padding(section, 0)
    reader = FrameReader(section, section.size, parse_frame, 4)
    start = begin if looks_like_mpeg(section, begin) else reader.next_chain(0)
    if start is None:
        raise Refused(UnreadableAudio, "is marked as MP3 but has no MP3 frames; copy it again")
    header = read_mpeg(section, section.size, start)
    window = header.window and header.window.shifted(data_at)
    return replace(header, container=chunks.container, window=window)


def _coded_samples(chunks: Chunks, tag: int, channels: int, block: int, data_bytes: int) -> int | None:
    """Return a block codec's number of samples from `fact`; None if `fact` is off by more than the last block."""
    layout = BLOCK_SAMPLES.get(tag)
    if layout is None or not chunks.fact_samples or not block or not channels:
        return None
    samples = layout(block, channels)
    blocks = -(-data_bytes // block)
    return chunks.fact_samples if (blocks - 1) * samples < chunks.fact_samples <= blocks * samples else None


def _frame_bytes(tag: int, channels: int, block: int, bits: int) -> int | None:
    """Return the bytes of one sample across all channels; None for codecs without a fixed size."""
    if tag not in FIXED_WIDTH:
        return None
    frame = channels * -(-bits // 8)
    if channels and block not in (0, frame):
        raise Refused(
            UnsupportedAudio,
            f"states {block} bytes per frame for {channels} channels of {bits} bits, a contradiction; render it again",
        )
    return frame or None


def _data_bytes(file: BinaryIO, chunks: Chunks, data_at: int, frame: int) -> tuple[int, Fault | None, tuple[str, ...]]:
    """Return the real number of bytes of audio, the fault if there is one, and warnings."""
    declared, present = chunks.data_bytes, chunks.size - data_at
    if declared in PLACEHOLDERS and present != declared:
        return present, None, ("does not state its length; it is read to the end of the file",)
    if declared == 0 and present >= frame:
        if chunks.names_are_sane and chunks.end == chunks.size:
            return 0, None, ()
        return present, Fault(UnreadableAudio, UNFINISHED, "repair it in the recording program"), ()
    if declared > present:
        return present, cut(declared, present), ()
    beyond = present - declared
    if chunks.container == "WAV" and beyond >> 32 and beyond % (1 << 32) < MAX_TRAILER_BYTES:
        data_bytes = declared + (beyond >> 32 << 32)
        return data_bytes, None, ("exceeds the 4 GB limit of WAV; its length is taken from the file size",)
    stray = not chunks.is_joined and (not chunks.names_are_sane or chunks.end > chunks.size + 1)
    if not stray or beyond <= STRAY_BYTES:
        return declared, None, ()
    if not _is_tag(bytes_at(file, data_at + declared, 16)):
        what = f"counts {declared} of its {present} bytes of audio"
        if chunks.riff_end >= chunks.size - 1 or chunks.riff_end <= 8:
            return present, None, (f"has a header that {what}; all of them are read",)
        if beyond > declared // 1000:
            return present, Fault(UnreadableAudio, f"has a header that {what}", "save it again in an editor"), ()
    return declared, None, (f"has {beyond} stray bytes after its audio; they are ignored",)


def _is_tag(head: bytes) -> bool:
    """Whether these bytes start a tag or are all zeros, rather than audio that the header does not count."""
    return head[:3] in (b"TAG", b"ID3") or head[:8] == b"APETAGEX" or not any(head)


def _rewritten(order: str, form: bytes, data_at: int, data_bytes: int) -> Window:
    """Return the audio with a header that states its real length; `form` is the body of the `fmt` chunk."""
    size = struct.pack(f"{order}I", len(form))
    fmt = b"fmt " + size + form + b"\0" * (len(form) % 2)
    whole = 4 + len(fmt) + 8 + data_bytes
    if whole < 1 << 32:
        start = (b"RIFX" if order == ">" else b"RIFF") + struct.pack(f"{order}I", whole) + b"WAVE"
        prefix = start + fmt + b"data" + struct.pack(f"{order}I", data_bytes)
    else:
        long = b"ds64" + struct.pack("<IQQQI", 28, whole + 36, data_bytes, 0, 0)
        start = b"RF64" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE"
        prefix = start + long + fmt + b"data" + struct.pack("<I", 0xFFFFFFFF)
    return Window(((data_at, data_at + data_bytes),), prefix)


# AIFC compression types whose sample size is what COMM states.
PLAIN_AIFC = (b"NONE", b"twos", b"sowt", b"raw ", b"fl32", b"FL32", b"fl64", b"FL64", b"in24", b"in32")
MAX_HEADER_BYTES = 1 << 14  # most that is passed to the decoder on its command line
CAF_TO_THE_END = (1 << 64) - 1
AU_UNKNOWN = 0xFFFFFFFF
AU_WIDTH_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}  # by encoding
UNPADDED = "has a chunk of odd length without its pad byte; it is read as intended"
UNFINISHED = "states a length of 0 but goes on: the recording was not finished"


def read_aiff(file: BinaryIO, size: int) -> Header:
    """Read the header of an AIFF or AIFC file of `size` bytes. Raises: Refused"""
    compressed = bytes_at(file, 8, 4) == b"AIFC"
    end, common, data, padded, is_joined = 12, None, None, True, False
    for chunk in riff_chunks(file, size, ">"):
        padded &= chunk.padded
        if chunk.name == b"COMM" and common is None:
            common, raw = unpack_at(file, chunk.body, ">HIHH8s"), bytes_at(file, chunk.start, 8 + min(chunk.size, 256))
            kind = bytes_at(file, chunk.body + 18, 4) if compressed else b"NONE"
        elif chunk.name in WHOLE_FILES and data is not None:
            is_joined = True
            break
        elif chunk.name == b"SSND" and data is None:
            offset = unpack_at(file, chunk.body, ">I")[0]
            data = chunk.body + 8 + offset, chunk.size - 8 - offset
        end = chunk.end
    if common is None or data is None:
        raise _incomplete(ended_early=end > size)
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
        fault = Fault(TruncatedAudio, f"promises {frames} samples but holds {declared // max(frame, 1)}")
    samples = min(declared, present) // frame if plain and frame and declared > 0 else None
    if is_joined and not fault:
        fault = joined("AIFFs")
    window, warnings = None, () if padded else (UNPADDED,)
    if (not padded or is_joined) and declared > 0:
        sound = min(declared, present)
        head = b"SSND" + struct.pack(">III", 8 + sound, 0, 0)
        body = bytes_at(file, 8, 4) + raw + b"\0" * (len(raw) % 2) + head
        prefix = b"FORM" + struct.pack(">I", len(body) + sound) + body
        window = Window(((data[0], data[0] + sound),), prefix)
    return Header(
        "AIFF", channels=channels, samples=samples, seekable=plain, fault=fault, window=window, warnings=warnings
    )


def read_caf(file: BinaryIO, size: int) -> Header:
    """Read the header of a CAF file of `size` bytes. Raises: Refused"""
    position, description, data, fault = 8, None, None, None
    for _ in range(MAX_CHUNKS):
        if position + 12 > size:
            break
        name, length = unpack_at(file, position, ">4sQ")
        if name == b"caff" and data is not None:
            fault = joined("CAFs")
            break
        if name == b"desc" and description is None:
            description = unpack_at(file, position + 12, ">d4sIIIII")
        elif name == b"data" and data is None:
            data = position + 16, length  # after the four bytes of an edit count
            if length == CAF_TO_THE_END:
                break
        position += 12 + length
    if description is None or data is None:
        raise _incomplete(ended_early=position > size)
    _, kind, _, packet_bytes, packet_samples, channels, _ = description
    present = max(size - data[0], 0)
    declared = present if data[1] == CAF_TO_THE_END else data[1] - 4
    window = None
    if declared > present:
        fault = cut(declared, present)
        if data[0] < MAX_HEADER_BYTES:  # the decoder rejects a size that does not match
            prefix = bytes_at(file, 0, data[0] - 12) + (present + 4).to_bytes(8, "big") + bytes(4)
            window = Window(((data[0], size),), prefix)
    plain = kind == b"lpcm" and packet_bytes > 0 and packet_samples == 1
    samples = max(min(declared, present), 0) // packet_bytes if plain else None
    return Header("CAF", channels=channels, samples=samples, seekable=plain, fault=fault, window=window)


def read_au(file: BinaryIO, size: int) -> Header:
    """Read the header of an AU file of `size` bytes, in either byte order. Raises: Refused"""
    order = ">" if bytes_at(file, 0, 4) == b".snd" else "<"
    start, declared, encoding, rate, channels = unpack_at(file, 4, f"{order}IIIII")
    present = max(size - start, 0)
    warnings: tuple[str, ...] = ()
    fault, window = None, None
    if declared == AU_UNKNOWN:
        declared, warnings = present, ("does not state its length; it is read to the end of the file",)
    elif declared > present:
        fault = cut(declared, present)
    elif declared == 0 < present:
        fault = Fault(UnreadableAudio, UNFINISHED, "repair it in the recording program")
    elif present > declared + STRAY_BYTES:  # nothing follows the audio of an AU
        if bytes_at(file, start + declared, 4) == bytes_at(file, 0, 4):
            fault = joined("AUs")
        else:
            warnings = (f"has a header that counts {declared} of its {present} bytes of audio; all of them are read",)
            prefix = bytes_at(file, 0, min(start, MAX_HEADER_BYTES))
            prefix = prefix[:8] + struct.pack(f"{order}I", present) + prefix[12:]
            window, declared = Window(((start, size),), prefix), present
    frame = channels * AU_WIDTH_BYTES.get(encoding, 0)
    return Header(
        "AU",
        channels=channels,
        sample_rate=rate,
        samples=min(declared, present) // frame if frame and declared else None,
        seekable=frame > 0,
        warnings=warnings,
        fault=fault,
        window=window,
    )


def _incomplete(*, ended_early: bool) -> Refused:
    """Return the refusal of a file that lacks a chunk."""
    if ended_early:
        return Refused(TruncatedAudio, "ends inside its header; copy it again")
    return Refused(UnreadableAudio, "has a header and no audio; render it again")
