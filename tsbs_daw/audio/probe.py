"""Identify a file by its content and check that it is complete, before it is decoded.

Memory use does not depend on sizes that the file states, only a bounded part of the file is read, and neither numpy nor
a decoder is needed.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from tsbs_daw.audio.headers.chunked import W64_RIFF, read_aiff, read_au, read_caf, read_w64, read_wav
from tsbs_daw.audio.headers.common import EMPTY_TAIL_BYTES, Header, Refused, Section, Window, bytes_at, id3v2_bytes
from tsbs_daw.audio.headers.flac import has_last_frame, read_flac
from tsbs_daw.audio.headers.frames import FrameReader
from tsbs_daw.audio.headers.mp4 import looks_like_mp4, read_mp4
from tsbs_daw.audio.headers.mpeg import (
    looks_like_adts,
    looks_like_mpeg,
    parse_adts,
    parse_frame,
    read_adts,
    read_mpeg,
    skip_padding,
)
from tsbs_daw.audio.headers.streams import EBML, read_matroska, read_ogg
from tsbs_daw.core.errors import (
    AudioError,
    SourceUnavailable,
    TruncatedAudio,
    UnreadableAudio,
    UnsupportedAudio,
    shown,
)
from tsbs_daw.core.files import is_gone, may_pass, open_regular

MAX_CHANNELS = 32
MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 384_000
MAX_ID3_TAGS = 16
MAX_JUNK_BYTES = 1 << 20  # foreign data before the audio
TAGGED = ("MP3", "AAC", "FLAC")  # formats that usually have ID3v2 tags before their audio
# Magic bytes, with enough of the bytes that must follow them to make a match by chance unlikely.
SIGNATURE = re.compile(
    rb"(?:RIFF|RIFX|RF64|BW64).{4}(?:WAVE|RMP3)|FORM.{4}AIF[FC]|fLaC[\x00\x80]\x00\x00\x22|OggS\x00\x02"
    rb"|caff\x00\x01\x00\x00desc|\.snd\x00\x00|\x1a\x45\xdf\xa3[\x01\x80-\xff]|.{4}ftyp|" + re.escape(W64_RIFF),
    re.DOTALL,
)
HEAD_BYTES = 4096
MAY_END_IN_ZEROS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", b".snd", b"dns.", W64_RIFF)  # silence

# The usual extensions of each container. A file with another container's extension is read anyway, with a warning.
SUFFIXES = {
    "WAV": (".wav", ".wave", ".bwf", ".rf64"),
    "RF64": (".wav", ".wave", ".bwf", ".rf64", ".bw64"),
    "W64": (".w64",),
    "AIFF": (".aif", ".aiff", ".aifc", ".afc"),
    "CAF": (".caf",),
    "AU": (".au", ".snd"),
    "FLAC": (".flac", ".fla"),
    "OGG": (".ogg", ".oga", ".opus"),
    "MP3": (".mp3", ".mp2", ".mp1", ".mpga", ".mpa"),
    "MP4": (".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".alac"),
    "MATROSKA": (".mkv", ".mka", ".webm"),
    "AAC": (".aac", ".adts"),
}
AUDIO_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

# Magic bytes of unsupported files (at an offset), so that the error can name the format.
OTHER_SOUND = {
    (0, b"\x30\x26\xb2\x75"): "a Windows Media file",
    (0, b"MAC "): "a Monkey's Audio file",
    (0, b"wvpk"): "a WavPack file",
    (0, b"DSD "): "a DSD file",
    (0, b"FRM8"): "a DSD file",
    (0, b"TTA1"): "a True Audio file",
    (0, b"#!AMR"): "an AMR recording",
    (0, b"MThd"): "a MIDI file, which has notes but no audio",
    (8, b"AVI "): "a video",
    (0, b"Creative Voice File"): "a VOC file",
}
NOT_SOUND = {
    b"<!doctype": "a web page: the download failed",
    b"<html": "a web page: the download failed",
    b"<?xml": "an XML document",
    b"pk\x03\x04": "a ZIP archive: unpack it first",
    b"rar!": "a RAR archive: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"%pdf": "a PDF document",
    b"\x89png": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"gif8": "a picture",
    b"<reaper_project": "a REAPER project: render it to a file",
}


def inspect(path: Path, *, salvage: bool = False) -> Header:
    """Read and check a file's header.

    Args:
        path: File to inspect.
        salvage: Accept an incomplete or damaged file, with a warning.

    Returns:
        The header. Its warnings are complete sentences; with `salvage`, they include the fault.

    Raises:
        UnreadableAudio: The file is empty, damaged, not audio, not a regular file, or cannot be opened.
        TruncatedAudio: The file is shorter than its header promises.
        UnsupportedAudio: The format, number of channels or sample rate is not supported.
    """
    with open_source(path) as file:
        return inspect_open(file, path, salvage=salvage)


def open_source(path: Path) -> BinaryIO:
    """Open an audio file for reading.

    Raises:
        AudioError: The file cannot be opened; see `cannot_open`.
    """
    try:
        return open_regular(path)
    except OSError as error:
        raise cannot_open(path, error) from error


def inspect_open(file: BinaryIO, path: Path, *, salvage: bool = False) -> Header:
    """Read and check the header of an open file, like `inspect`. The file position afterwards is undefined."""
    name = shown(path)
    try:
        header = _read(file, os.fstat(file.fileno()).st_size)
        check_limits(header.channels, header.sample_rate)
    except Refused as refused:
        raise refused.kind(f"{name} {refused.what}.") from refused
    except OSError as error:
        raise cannot_open(path, error) from error
    warnings = list(header.warnings)
    if header.fault:
        if not salvage:
            fault = header.fault
            advice = f"{fault.remedy}, or use the readable part with `--salvage`"
            raise fault.kind(f"{name} {fault.what}; {advice}.")
        rest = "; the rest is left out" if header.fault.what.startswith("changes to") else ""
        warnings.append(header.fault.what + rest)
    suffix = path.suffix.lower()
    if suffix in AUDIO_SUFFIXES and suffix not in SUFFIXES[header.container]:
        warnings.append(f"is named {suffix} but is {header.container}; it is read as {header.container}")
    return replace(header, warnings=tuple(f"{name} {what}." for what in warnings))


def seems_unfinished(path: Path) -> bool:
    """Whether a file is probably still being written: empty, preallocated, or shorter than its header promises.

    This is a cheap check without decoding, for files that are being copied. It reports no faults; the reader does that
    later.

    Raises:
        OSError: The file cannot be opened.
    """
    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(HEAD_BYTES)
        if not head.strip(b"\0"):
            return True
        if size > EMPTY_TAIL_BYTES and not head.startswith(MAY_END_IN_ZEROS):
            file.seek(size - EMPTY_TAIL_BYTES)
            if not any(file.read(EMPTY_TAIL_BYTES)):
                return True
        if head[:4] == b"fLaC":
            try:
                return not has_last_frame(file, size)
            except Refused as refused:
                return refused.kind is TruncatedAudio
    try:
        inspect(path)
    except TruncatedAudio:
        return True
    except AudioError:
        return False
    return False


def cannot_open(path: Path, error: OSError) -> AudioError:
    """Translate an OSError from opening or reading `path` into the error to raise."""
    name = shown(path)
    if error.errno in (errno.EISDIR, errno.EINVAL):
        kind = "a folder" if error.errno == errno.EISDIR else "not a regular file"
        return UnreadableAudio(f"{name} is {kind}; choose an audio file.")
    if is_gone(path, error):
        return UnreadableAudio(f"{name} is missing from its folder; check whether it was moved, renamed or deleted.")
    translated: type[AudioError] = SourceUnavailable if may_pass(error) else UnreadableAudio
    return translated(f"Cannot open {name}: {error.strerror or error}.")


def check_limits(channels: int | None, sample_rate: int | None) -> None:
    """Check the number of channels and the sample rate, where they are known.

    Raises:
        Refused: One of them is outside the supported range.
    """
    if channels is not None and not 1 <= channels <= MAX_CHANNELS:
        raise Refused(UnsupportedAudio, f"has {channels} channels; between 1 and {MAX_CHANNELS} are supported")
    if sample_rate is not None and not MIN_RATE_HZ <= sample_rate <= MAX_RATE_HZ:
        raise Refused(
            UnsupportedAudio,
            f"has a sample rate of {sample_rate} Hz; convert it to between {MIN_RATE_HZ} and {MAX_RATE_HZ} Hz",
        )


def _read(file: BinaryIO, size: int) -> Header:
    """Find the start of the audio and read the header with the reader for its format.

    Raises:
        Refused: The file is empty, has no audio that a reader supports, or has an invalid header.
    """
    if size == 0:
        raise Refused(UnreadableAudio, "is empty (0 bytes); copy it again")
    tags_end, start = audio_start(file, size)
    reader = _reader_at(file, start)
    if reader is None:
        raise _unknown(file, size)
    if start == 0:
        return reader(file, size)
    header = reader(cast(BinaryIO, Section(file, start, size)), size - start)
    window = header.window or Window(((0, size - start),))
    padded = tags_end > 0 and not any(bytes_at(file, tags_end, start - tags_end))
    usual = header.container in TAGGED and (start == tags_end or padded)
    skipped = () if usual else (f"has {start} bytes before its audio; they are skipped",)
    section_resume = header.resume

    def resume(samples: int) -> tuple[int, Window] | None:
        place = section_resume(samples) if section_resume else None
        return place and (place[0], place[1].shifted(start))

    return replace(header, window=window.shifted(start), resume=resume, warnings=(*skipped, *header.warnings))


def audio_start(file: BinaryIO, size: int) -> tuple[int, int]:
    """Find the audio of a file.

    Returns:
        The offset after the ID3v2 tags at the start of the file, and the offset of the audio.

    Raises:
        Refused: The file has no audio that a reader supports.
    """
    tags_end = _after_id3(file, size)
    for start in (tags_end, skip_padding(file, tags_end)):
        if _reader_at(file, start):
            return tags_end, start
    if refused := _something_else(file):
        raise refused
    found = _find_audio(file, tags_end, size)
    if found is None:
        raise _unknown(file, size)
    return tags_end, found


def _reader_at(file: BinaryIO, start: int) -> Callable[[BinaryIO, int], Header] | None:
    """The reader for the format that starts at this offset; None if no known format does."""
    file.seek(start)
    reader = _reader(file.read(16))
    if reader is None and looks_like_mpeg(file, start):
        return read_mpeg
    return read_adts if reader is None and looks_like_adts(file, start) else reader


def _reader(magic: bytes) -> Callable[[BinaryIO, int], Header] | None:
    """The reader for the format with these magic bytes; None if they are unknown."""
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and magic[8:12] in (b"WAVE", b"RMP3"):
        return read_wav
    if looks_like_mp4(magic):
        return read_mp4
    if magic[:4] == b"FORM" and magic[8:12] in (b"AIFF", b"AIFC"):
        return read_aiff
    if magic == W64_RIFF:
        return read_w64
    names = {b"caff": read_caf, b".snd": read_au, b"dns.": read_au, b"fLaC": read_flac, b"OggS": read_ogg}
    return names.get(magic[:4]) or (read_matroska if magic[:4] == EBML else None)


def _find_audio(file: BinaryIO, start: int, size: int) -> int | None:
    """The offset of the first audio within `MAX_JUNK_BYTES` after `start`; None if there is none."""
    start = start if start < size else 0  # a tag that claims to fill the whole file states a wrong length
    file.seek(start)
    match = SIGNATURE.search(file.read(MAX_JUNK_BYTES))
    limit = start + (match.start() if match else MAX_JUNK_BYTES)
    found = start + match.start() if match else None
    for parse, head_bytes in ((parse_frame, 4), (parse_adts, 7)):
        chain = FrameReader(file, size, parse, head_bytes).next_chain(start, limit)
        found, limit = (found, limit) if chain is None else (chain, chain)
    return found


def _after_id3(file: BinaryIO, size: int) -> int:
    """The offset after the ID3v2 tags."""
    position = 0
    for _ in range(MAX_ID3_TAGS):
        file.seek(position)
        length = id3v2_bytes(file.read(10))
        if not length:
            break
        position = min(position + length, size)
    return position


def _something_else(file: BinaryIO) -> Refused | None:
    """The error for a file whose first bytes identify it as something other than supported audio; None otherwise."""
    file.seek(0)
    start = file.read(HEAD_BYTES)
    for (offset, magic), what in OTHER_SOUND.items():
        if start[offset:].startswith(magic):
            return Refused(UnsupportedAudio, f"is {what}, which is not supported; convert it to WAV or FLAC")
    for magic, what in NOT_SOUND.items():
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(magic):
            return Refused(UnreadableAudio, f"is not audio but {what}")
    return None


def _unknown(file: BinaryIO, size: int) -> Refused:
    """The error for a file in which no reader finds audio."""
    file.seek(0)
    start = file.read(HEAD_BYTES)
    if not start.strip(b"\0"):
        return Refused(UnreadableAudio, "starts with nothing but zeros: the copy or the recording is incomplete")
    if start[:3] == b"ID3":
        return Refused(UnreadableAudio, "has tags but no audio; copy it again")
    if size < 44:
        return Refused(UnreadableAudio, f"is too short for audio ({size} bytes); copy it again")
    return Refused(UnreadableAudio, "is not audio, or has an unknown format; convert it to WAV or FLAC")
