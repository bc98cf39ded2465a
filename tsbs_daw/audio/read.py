"""Read audio files of any common format, in blocks of float32 (channels, samples).

Two readers must agree before any sample is returned: `probe` reads the header and compares it with the file's size,
and `decoder` decodes the audio in a separate process, where a malicious file can do no harm. No allocation depends on a
size that a file states.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from tsbs_daw.audio.decoder import MEMORY_BYTES, STALL_S, DecoderProcess, document
from tsbs_daw.audio.headers.common import Header, Refused, Window
from tsbs_daw.audio.probe import check_limits, inspect_open, open_source
from tsbs_daw.core.errors import (
    AudioError,
    NonFiniteAudio,
    SourceChanged,
    TruncatedAudio,
    UnreadableAudio,
    UnsupportedAudio,
    shown,
)
from tsbs_daw.core.files import HashedFile, content_state

log = logging.getLogger(__name__)

BLOCK_SAMPLES = 65536
MAX_RESUMPTIONS = 50  # after decoding errors in one file; each starts a process
UNKNOWN_SAMPLES = 1 << 62  # libsndfile reports something near 2^63 for an unknown length
STEP_SAMPLES, SALVAGE_STEP_SAMPLES = 8192, 1024  # a decoding error loses at most this many
STRAY_BYTES = 1 << 16  # after the audio of a FLAC: more than this gets a warning; tags are smaller
HELD_SLACK_S = 0.5  # a container may state a duration up to this much longer than its audio
LATE_S = 0.001  # smallest delay of the audio that gets a warning; containers round times


def media_is_installed() -> bool:
    """Whether PyAV, from the extra `[media]`, is installed."""
    return importlib.util.find_spec("av") is not None


@dataclass(frozen=True)
class AudioInfo:
    """The properties of an audio file.

    Attributes:
        samples: Samples per channel; None if unknown before decoding.
        container: "WAV", "RF64", "W64", "AIFF", "FLAC", "OGG", "MP3", "CAF", "AU", "MP4", "MATROSKA" or "AAC".
        subtype: Sample format or codec: libsndfile's "PCM_16", "FLOAT", "VORBIS", ..., or FFmpeg's codec name.
        time_reference_samples: Start of the file in its session, from a BWF `bext` chunk; 0 without one.
        warnings: One sentence for each irregularity that was tolerated.
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
    """The properties of a file that are known before decoding. Raises the same errors as `open_audio`."""
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
    source: HashedFile | None = None,
) -> AudioReader:
    """Open an audio file, or a portion of it.

    Args:
        path: File to read.
        start_samples: First sample of the portion, at the file's sample rate.
        length_samples: Length of the portion; None for the rest of the file.
        salvage: Read the intact part of a truncated or damaged file, with a warning, instead of refusing the file.
        stall_s: Seconds without output after which the decoder is killed.
        memory_bytes: Limit of the decoder's address space.
        source: Identity of the file when it was hashed; see `AudioReader.check_unchanged`.

    Raises:
        SourceChanged: The file is not the same as `source`, or was replaced while it was opened.
        SourceUnavailable: The disk or network share is temporarily unavailable.
        UnreadableAudio: The file is not audio, empty or damaged; or the decoder crashed or hung.
        TruncatedAudio: The file is shorter than its header promises.
        UnsupportedAudio: The format, channels or sample rate are not supported, or the portion is outside the file.
    """
    return AudioReader(Path(path), start_samples, length_samples, salvage, stall_s, memory_bytes, source)


class AudioReader:
    """Reader of an audio file. A context manager; `close` may be called at any point and stops the decoder.

    Attributes:
        info: Properties of the whole file; reading may add warnings.
        samples: Length of the portion; None if unknown before decoding.
    """

    def __init__(
        self,
        path: Path,
        start_samples: int,
        length_samples: int | None,
        salvage: bool,
        stall_s: float,
        memory_bytes: int,
        source: HashedFile | None = None,
    ):
        self._path, self._start, self._salvage, self._source = path, start_samples, salvage, source
        self._file = open_source(path)
        try:
            self._state = content_state(os.fstat(self._file.fileno()))
            header = inspect_open(self._file, path, salvage=salvage)
            if header.demuxer and not media_is_installed():
                raise UnsupportedAudio(
                    f"{shown(path)} is {header.container}, which needs an extra: pip install 'tsbs-daw[media]', "
                    "or convert it to WAV or FLAC."
                )
        except BaseException:
            self._file.close()
            raise
        self._slack, self._known_cut = header.slack_samples, header.fault is not None
        self._least_s = header.least_s
        self._resume, self._resumed_at, self._resumptions = header.resume if salvage else None, 0, 0
        self._plan = {
            # Seeking is exact only if every sample has a fixed position; otherwise the codec estimates it.
            "discard": not header.seekable,
            "block_samples": BLOCK_SAMPLES,
            "step_samples": SALVAGE_STEP_SAMPLES if salvage else STEP_SAMPLES,
            "resume": salvage,
            "demuxer": header.demuxer,
            "length_s": [*header.length_s.as_integer_ratio()] if header.length_s else None,
        }
        self._stall_s, self._memory_bytes = stall_s, memory_bytes
        self._decoder = self._start_decoder(header.window, start_samples)
        try:
            self.info = self._compare(header)
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
        self._file.close()

    def check_unchanged(self) -> None:
        """Check that the file is still the one that was hashed, if `open_audio` got a `source`. Call it after reading.

        Raises:
            SourceChanged: The file was modified after it was hashed.
        """
        if self._source and not self._source.is_same(self._file):
            raise self._source.error()

    def read(self, samples: int) -> np.ndarray:
        """Read the next samples.

        Args:
            samples: Maximum number to return.

        Shape:
            returns: (channels, n), n <= samples; n is 0 only at the end

        Raises:
            NonFiniteAudio: A sample is NaN or infinite; the message states where.
            TruncatedAudio: The audio ends too early.
            UnreadableAudio: The rest of the audio cannot be decoded.
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
        """Yield the rest of the audio in blocks of shape (channels, n), n <= samples."""
        while (block := self.read(samples)).shape[1]:
            yield block

    def _start_decoder(self, window: Window | None, start_samples: int) -> DecoderProcess:
        plan = self._plan | {"start_samples": start_samples, "window": window and window.to_plan()}
        return DecoderProcess(self._path, plan, stall_s=self._stall_s, memory_bytes=self._memory_bytes)

    def _resumes(self, message: dict) -> bool:
        """Try to resume after a decoding error, at the next intact position in the file. Returns whether it did."""
        samples = message["samples"] + self._resumed_at
        place = self._resume(samples) if self._resume and self._resumptions < MAX_RESUMPTIONS else None
        if place is None:
            return False
        first, window = place
        self._decoder.close()
        self._decoder = self._start_decoder(window, max(self._start - first, 0))
        if self._decoder.receive()[0] != b"H":
            return False
        at_s, lost_s = samples / self.info.sample_rate, (first - samples) / self.info.sample_rate
        lost = f"{first - samples} samples ({lost_s:.2f} s) are lost"
        self._warn(f"{shown(self._path)} is damaged at {at_s:.1f} s: {lost}.")
        self._resumed_at, self._resumptions = first, self._resumptions + 1
        return True

    def _compare(self, header: Header) -> AudioInfo:
        """Compare the decoder's header message with the header reader's result, and return the file's properties."""
        tag, body = self._decoder.receive()
        message = document(body)
        if tag == b"X":
            raise self._failure(message)
        if message["state"] != self._state or (self._source and self._source.state != self._state):
            raise SourceChanged(f"{shown(self._path)} changed while it was read; try again once it is complete.")
        name, channels, rate = shown(self._path), message["channels"], message["sample_rate"]
        try:
            check_limits(channels, rate)
        except Refused as refused:
            raise refused.kind(f"{name} {refused.what}.") from refused
        samples = message["samples"] if message["samples"] < UNKNOWN_SAMPLES else None
        if samples == 0:
            raise UnreadableAudio(f"{name} has no audio: no samples follow its header.")
        if self._least_s is None and message.get("held_s"):
            self._least_s = Fraction(max(message["held_s"] - HELD_SLACK_S, 0))
        claims = (header.samples, samples), (header.channels, channels), (header.sample_rate, rate)
        if any(None not in pair and pair[0] != pair[1] for pair in claims):
            raise UnreadableAudio(f"{name} has an ambiguous header; convert it to WAV or FLAC.")
        self._promised = samples
        self._limit = header.length_samples
        if samples is not None and self._limit is not None:
            samples = min(samples, self._limit)
        late_s = message.get("late_s", 0.0)
        late = f"{name} has audio that starts {late_s:.3f} s after its video; the gap is left out."
        return AudioInfo(
            self._path,
            rate,
            channels,
            # If the file may be truncated, only the header reader's count is reliable.
            header.samples if self._salvage else samples,
            header.container,
            message["subtype"],
            header.time_reference_samples,
            (*header.warnings, late) if late_s > LATE_S else header.warnings,
        )

    def _portion(self, start: int, length: int | None) -> int | None:
        """Check the portion, set the limit for `read`, and return the portion's length; None if unknown."""
        total = self.info.samples
        self._wanted = length if length is not None or self._limit is None else self._limit - start
        if start < 0 or (length is not None and length < 1):
            raise UnsupportedAudio(
                f"A portion of {shown(self._path)} must start at sample 0 or later and not be empty."
            )
        if total is None:
            return length
        end = total if length is None else start + length
        if start >= total or end > total:
            raise UnsupportedAudio(
                f"Samples {start} to {end} are outside {shown(self._path)}, which has {total} samples."
            )
        return end - start

    def _receive(self) -> bool:
        """Receive one message from the decoder. Returns False at the end of the audio."""
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
        message = document(body)
        if tag == b"X" and self._resumes(message):
            return True
        self._ended = True
        if tag == b"X":
            self._give_up(message)
        else:
            if message.get("losses"):
                lost = f"about {message['lost_s']:.2f} s of audio in {message['losses']} of its packets"
                self._warn(f"{shown(self._path)} is damaged: {lost} could not be decoded and is left out.")
                self._slack = max(self._slack, round((message["lost_s"] + 1) * self.info.sample_rate))
            self._check_length(message["samples"] + self._resumed_at, message["left_bytes"])
        return False

    def _check_finite(self, block: np.ndarray) -> None:
        if np.isfinite(block).all():
            return
        index, channel = np.argwhere(~np.isfinite(block))[0].tolist()
        at = self._start + self._given + len(self._pending) + index
        raise NonFiniteAudio(
            f"{shown(self._path)} has {block[index, channel]} at sample {at} ({at / self.info.sample_rate:.3f} s) of "
            f"channel {channel + 1}; render it again."
        )

    def _check_length(self, decoded: int, left_bytes: int) -> None:
        """Compare the number of samples decoded since the start of the file with the header."""
        promised = self._promised
        if self.info.container == "FLAC" and left_bytes > STRAY_BYTES:
            self._warn(f"{shown(self._path)} has {left_bytes} bytes after its audio; they are ignored.")
        if self._is_empty and (promised is None or self._salvage):
            raise UnreadableAudio(f"{shown(self._path)} has no readable audio; copy it again.")
        if promised is None:
            held = self._least_s or 0
            if decoded < held * self.info.sample_rate:
                self._truncated(f"its frames hold {float(held):.3f} s, but only {decoded} samples were decoded")
            return
        if promised - self._slack <= decoded < promised:
            self._warn(f"{shown(self._path)} has {decoded} samples, {promised - decoded} fewer than its header states.")
        elif decoded < promised:
            self._truncated(f"its header promises {promised} samples, but the file has {decoded}")

    @property
    def _is_empty(self) -> bool:
        return self._given + len(self._pending) == 0

    def _give_up(self, message: dict) -> None:
        """Handle a final decoding error: raise it, or with `salvage` warn and end the audio here."""
        if not self._salvage or self._is_empty:
            raise self._failure(message)
        samples = message["samples"] + self._resumed_at
        if message["kind"] == "change":
            at_s = samples / self.info.sample_rate
            self._warn(f"{shown(self._path)} changes to {message['message']} at {at_s:.1f} s; the rest is left out.")
        elif message["at_end"]:
            self._truncated(f"it ends after sample {samples}")
        else:
            self._warn(f"{shown(self._path)} is damaged after sample {samples}; the rest is left out.")

    def _truncated(self, how: str) -> None:
        name = shown(self._path)
        if not self._salvage:
            advice = "copy it again, or use the readable part with `--salvage`"
            raise TruncatedAudio(f"{name} is cut short: {how}; {advice}.")
        if self._known_cut and self._promised and self._wanted is None:
            lost_s = max(self._promised - self._given - len(self._pending) - self._start, 0) / self.info.sample_rate
            self._warn(f"{name}: about {lost_s:.2f} s is lost.")
        elif not self._known_cut:  # otherwise the header reader has warned already
            self._warn(f"{name} is cut short: {how}.")

    def _warn(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self.info = replace(self.info, warnings=(*self.info.warnings, sentence))

    def _failure(self, message: dict) -> AudioError:
        """Translate the decoder's failure message into the error to raise."""
        name, reason = shown(self._path), message["message"].strip().rstrip(".")
        if message["kind"] == "change":
            return UnsupportedAudio(
                f"{name} changes to {reason} at {message['samples'] / self.info.sample_rate:.1f} s; convert it to WAV, "
                "or use the part before that with `--salvage`."
            )
        if message["kind"] == "decode" and not message["samples"]:
            return UnreadableAudio(f"{name} is damaged from the first sample ({reason}); copy it again.")
        if message["kind"] == "decode" and message["at_end"]:
            return TruncatedAudio(
                f"{name} is cut short: it ends after sample {message['samples']}; "
                "copy it again, or use the readable part with `--salvage`."
            )
        if message["kind"] == "decode":
            return UnreadableAudio(
                f"{name} is damaged after sample {message['samples']} ({reason}); copy it again, "
                "or use the part before that with `--salvage`."
            )
        if message["kind"] == "memory":
            return UnreadableAudio(f"{name} needs too much memory to decode; it is probably damaged. Copy it again.")
        return UnreadableAudio(f"{name} cannot be decoded ({reason}); convert it to WAV or FLAC.")
