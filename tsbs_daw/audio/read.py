"""Read audio files: any common format in, float32 (channels, samples) out, in blocks.

Two opinions must agree before a sample is handed out: the header is read here (`header`), where it is compared with
the file's size, and the sound is decoded in a process of its own (`process`, `decoder`), where a hostile file can do no
harm. Nothing is allocated from a number that a file claims.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from tsbs_daw.audio.decoder.process import MEMORY_BYTES, STALL_S, DecoderProcess, document
from tsbs_daw.audio.headers.common import Header, Refused
from tsbs_daw.audio.headers.probe import check_limits, inspect
from tsbs_daw.core.errors import NonFiniteAudio, TruncatedAudio, UnreadableAudio, UnsupportedAudio, shown

log = logging.getLogger(__name__)

BLOCK_SAMPLES = 65536
UNKNOWN_SAMPLES = 1 << 62  # libsndfile says something near 2^63 when it does not know
STEP_SAMPLES, SALVAGE_STEP_SAMPLES = 8192, 1024  # what a decoder's error takes with it, at most
STRAY_BYTES = 1 << 16  # behind a FLAC's last sample; tags are smaller, and decoders read ahead
LATE_S = 0.001  # of sound behind its picture; below it, files merely count their time coarsely


def media_is_there() -> bool:
    """Whether the extra `[media]` is installed."""
    return importlib.util.find_spec("av") is not None


@dataclass(frozen=True)
class AudioInfo:
    """What a file is.

    samples:   per channel; None when only decoding can tell
    container: by content: "WAV", "RF64", "W64", "AIFF", "FLAC", "OGG", "MP3", "CAF", "AU", "MP4",
               "MATROSKA", "AAC"
    subtype:   of the samples, as libsndfile names it: "PCM_16", "FLOAT", "VORBIS", ...
    time_reference_samples: where the file starts in its session, from a BWF `bext` chunk; 0 without one
    warnings:  sentences about what is odd and was put up with
    """

    path: Path
    sample_rate: int
    channels: int
    samples: int | None
    container: str
    subtype: str
    time_reference_samples: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float | None:
        return None if self.samples is None else self.samples / self.sample_rate


def probe(path: Path | str, *, salvage: bool = False) -> AudioInfo:
    """What `path` is, as far as opening it tells.

    Raises: UnreadableAudio, TruncatedAudio, UnsupportedAudio; see `open_audio`
    """
    with open_audio(path, salvage=salvage) as reader:
        return reader.info


def open_audio(
    path: Path | str,
    *,
    start_samples: int = 0,
    length_samples: int | None = None,
    salvage: bool = False,
    stall_s: float = STALL_S,
    memory_bytes: int = MEMORY_BYTES,
) -> AudioReader:
    """Open a file, or a portion of it, for reading.

    Args:   start_samples, length_samples: the portion, at the file's rate; None: to the end
            salvage: read what is there of a cut or damaged file, with a warning, where it would be refused
            stall_s: how long the decoder may be silent
            memory_bytes: limit of the decoder's address space
    Raises: UnreadableAudio: not audio, empty, damaged; the decoder crashed or hung
            TruncatedAudio: shorter than its header promises
            UnsupportedAudio: channels, rate or format that cannot be separated; a portion outside of the file
    """
    return AudioReader(Path(path), start_samples, length_samples, salvage, stall_s, memory_bytes)


class AudioReader:
    """A file being read. A context manager; `close` stops the decoder at any point.

    info:    the whole file; its warnings grow when reading finds more
    samples: how many will come (those of the portion); None when only decoding can tell
    """

    def __init__(
        self,
        path: Path,
        start_samples: int,
        length_samples: int | None,
        salvage: bool,
        stall_s: float,
        memory_bytes: int,
    ):
        self._path, self._start, self._salvage = path, start_samples, salvage
        header = inspect(path, salvage=salvage)
        if header.demuxer and not media_is_there():
            raise UnsupportedAudio(
                f"{shown(path)} is {header.container}, which an extra reads: pip install 'tsbs-daw[media]', "
                "or convert it to WAV or FLAC."
            )
        self._slack, self._known_cut = header.slack_samples, header.fault is not None
        self._decoder = DecoderProcess(
            path,
            {
                "start_samples": start_samples,
                # Seeking is exact where each sample has its place; in the others it is a codec's best guess.
                "discard": not header.seekable,
                "block_samples": BLOCK_SAMPLES,
                "step_samples": SALVAGE_STEP_SAMPLES if salvage else STEP_SAMPLES,
                "window": asdict(header.window) | {"prefix": header.window.prefix.hex()} if header.window else None,
                "demuxer": header.demuxer,
                "length_s": [*header.length_s.as_integer_ratio()] if header.length_s else None,
            },
            stall_s=stall_s,
            memory_bytes=memory_bytes,
        )
        try:
            self.info = self._agree(header)
            self.samples = self._portion(start_samples, length_samples)
        except BaseException:
            self.close()
            raise
        self._given = 0
        self._ended = False
        self._pending = np.empty((0, self.info.channels), np.float32)

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._decoder.close()

    def read(self, samples: int) -> np.ndarray:
        """The next samples.

        Returns: (channels, n), n <= samples; n is 0 only at the end
        Raises:  NonFiniteAudio: NaN or infinity, with its place
                 TruncatedAudio, UnreadableAudio: the sound ends too early, or cannot be decoded further
        """
        if self._wanted is not None:
            samples = min(samples, self._wanted - self._given)
        if samples <= 0:
            return np.empty((self.info.channels, 0), np.float32)
        while len(self._pending) < samples and self._receive():
            pass
        block, self._pending = self._pending[:samples], self._pending[samples:]
        self._given += len(block)
        return np.ascontiguousarray(block.T)

    def blocks(self, samples: int = BLOCK_SAMPLES) -> Iterator[np.ndarray]:
        """The rest of the sound, (channels, n <= samples) at a time."""
        while (block := self.read(samples)).shape[1]:
            yield block

    def _agree(self, header: Header) -> AudioInfo:
        """What the file is, when header and decoder have both been heard."""
        tag, body = self._decoder.receive()
        found = document(body)
        if tag == b"X":
            raise self._failure(found)
        name, channels, rate = shown(self._path), found["channels"], found["sample_rate"]
        try:
            check_limits(channels, rate)
        except Refused as refused:
            raise refused.kind(f"{name} {refused.what}.") from refused
        samples = found["samples"] if found["samples"] < UNKNOWN_SAMPLES else None
        if samples == 0:
            raise UnreadableAudio(f"{name} holds no sound: it has a header and no samples.")
        claims = (header.samples, samples), (header.channels, channels), (header.sample_rate, rate)
        if any(None not in pair and pair[0] != pair[1] for pair in claims):
            raise UnreadableAudio(f"{name} has a header that can be understood in two ways; convert it to WAV or FLAC.")
        self._promised = samples
        late_s = found.get("late_s", 0.0)
        late = f"{name} starts {late_s:.3f} s later with its sound than with its picture; that gap is left out."
        return AudioInfo(
            self._path,
            rate,
            channels,
            # Of a file that may be cut, only what the header's reader counted itself is sure.
            header.samples if self._salvage else samples,
            header.container,
            found["subtype"],
            header.time_reference_samples,
            (*header.warnings, late) if late_s > LATE_S else header.warnings,
        )

    def _portion(self, start: int, length: int | None) -> int | None:
        """The number of samples to come; sets what `read` must not exceed."""
        total = self.info.samples
        self._wanted = length
        if start < 0 or (length is not None and length < 1):
            raise UnsupportedAudio(f"A portion of {shown(self._path)} must start at 0 or later and have a length.")
        if total is None:
            return length
        end = total if length is None else start + length
        if start >= total or end > total:
            raise UnsupportedAudio(
                f"The portion from sample {start} to {end} lies outside of {shown(self._path)}, which has {total}."
            )
        return end - start

    def _receive(self) -> bool:
        """Take one message in; False at the end of the sound."""
        if self._ended:
            return False
        tag, body = self._decoder.receive()
        if tag == b"D":
            block = np.frombuffer(body, np.float32).reshape(-1, self.info.channels)
            if self._wanted is not None:
                block = block[: self._wanted - self._given - len(self._pending)]
            self._check_finite(block)
            self._pending = np.concatenate((self._pending, block)) if len(self._pending) else block
            return True
        self._ended = True
        found = document(body)
        if tag == b"X":
            self._give_up(found)
        else:
            self._check_length(found["samples"], found["left_bytes"])
        return False

    def _check_finite(self, block: np.ndarray) -> None:
        if np.isfinite(block).all():
            return
        index, channel = np.argwhere(~np.isfinite(block))[0].tolist()
        at = self._start + self._given + len(self._pending) + index
        raise NonFiniteAudio(
            f"{shown(self._path)} holds {block[index, channel]} at sample {at} ({at / self.info.sample_rate:.3f} s) of "
            f"channel {channel + 1}; render it again."
        )

    def _check_length(self, decoded: int, left_bytes: int) -> None:
        """Compare what was decoded, counted from the file's start, with what was promised."""
        promised = self._promised
        if self.info.container == "FLAC" and left_bytes > STRAY_BYTES:
            self._warn(f"{shown(self._path)} holds {left_bytes} bytes after its sound; they are not read.")
        if self._nothing_came and (promised is None or self._salvage):
            raise UnreadableAudio(f"{shown(self._path)} holds no sound that can be read; copy it again.")
        if promised is None:
            return
        if promised - self._slack <= decoded < promised:
            self._warn(f"{shown(self._path)} holds {decoded} samples, {promised - decoded} fewer than its header says.")
        elif decoded < promised:
            self._cut(f"its header promises {promised} samples and {decoded} are there")

    @property
    def _nothing_came(self) -> bool:
        return self._given + len(self._pending) == 0

    def _give_up(self, found: dict) -> None:
        """The decoder failed: raise, or with `salvage` end the sound here."""
        if not self._salvage or self._nothing_came:
            raise self._failure(found)
        if found["at_end"]:
            self._cut(f"it ends after sample {found['samples']}")
        else:
            self._warn(f"{shown(self._path)} is damaged after sample {found['samples']}; what comes later is left out.")

    def _cut(self, how: str) -> None:
        name = shown(self._path)
        if not self._salvage:
            raise TruncatedAudio(
                f"{name} is cut short: {how}; copy it again, or take what is there with `--salvage` (separate, batch)."
            )
        if not self._known_cut:  # else the warning is there already
            self._warn(f"{name} is cut short: {how}.")

    def _warn(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self.info = replace(self.info, warnings=(*self.info.warnings, sentence))

    def _failure(self, found: dict) -> UnreadableAudio | TruncatedAudio:
        """The decoder's own words, in ours."""
        name, reason = shown(self._path), found["message"].strip().rstrip(".")
        if found["kind"] == "decode" and not found["samples"]:
            return UnreadableAudio(f"{name} is damaged from its first sample on ({reason}); copy it again.")
        if found["kind"] == "decode" and found["at_end"]:
            return TruncatedAudio(
                f"{name} is cut short: it ends after sample {found['samples']}; "
                "copy it again, or take what is there with `--salvage` (separate, batch)."
            )
        if found["kind"] == "decode":
            return UnreadableAudio(
                f"{name} is damaged after sample {found['samples']} ({reason}); copy it again, "
                "or take what comes before with `--salvage` (separate, batch)."
            )
        if found["kind"] == "memory":
            return UnreadableAudio(f"{name} asks for more memory than a song needs; it is damaged or hostile.")
        return UnreadableAudio(f"{name} cannot be read as audio ({reason}); convert it to WAV or FLAC.")
