"""Writers for the delivery formats: WAV, FLAC, AIFF and MP3.

`open_writer` returns an `AudioWriter` for WAV and an `EncodedWriter` for everything else, with the same interface:
block-wise input, no partial file on failure, durable and verified after close. Reducing the bit depth adds TPDF dither
(see `dsp`).

Warnings report what a format cannot hold. Samples beyond full scale are clipped and counted (a float WAV has no such
limit). An MP3 has at most 48 kHz, so a higher sample rate is divided by 2, 4 or 8 where that gives 44.1 or 48 kHz. An
MP3 is not sample-exact: its LAME header states the encoder delay, and most players remove it.

Axes: (channels, samples), float32.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tsbs_daw.audio.dsp import Quantiser, Resampler, resampled_length
from tsbs_daw.audio.formats import DELIVERY_FORMATS, DeliveryFormat, delivery_format, file_ending
from tsbs_daw.audio.riff import acid_body, beats_in, build_chunk, smpl_body
from tsbs_daw.audio.tags import ROOM_COMMENT, Labels, label
from tsbs_daw.audio.writer import AudioWriter, Writer
from tsbs_daw.core.errors import OutputError, shown
from tsbs_daw.core.files import sha256_of, sync_file, write_error

if TYPE_CHECKING:
    import soundfile

__all__ = ["DELIVERY_FORMATS", "EncodedWriter", "delivery_format", "file_ending", "open_writer"]

MP3_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MP3_OPTIONS = {"bitrate_mode": "CONSTANT", "compression_level": 0.0}  # 320 kbit/s
MOST_CHANNELS = {"FLAC": 8, "AIFF": 32, "MP3": 2}
AIFF_LIMIT_BYTES = (1 << 32) - 4096  # AIFF sizes have 32 bits
PIECE_SAMPLES = 8192  # per call of the codec


class CodecFile:
    """A file object that a codec writes to through callbacks from C.

    An OSError inside such a callback would be lost, so it is stored and raised by `check`.

    Attributes:
        error: The first OSError inside a callback; None if there was none.
        broken: Whether to ignore further writes, because the file is about to be removed.
    """

    def __init__(self, path: Path):
        self._path, self._file = path, path.open("wb+")
        self.error: OSError | None = None
        self.broken = False

    def write(self, data: bytes) -> int:
        if self.broken or self.error:
            return len(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            return 0

    def read(self, count: int) -> bytes:
        return self._file.read(count)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:  # seeking flushes the buffer
            self.error = self.error or error
            return -1

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        """Do nothing, because `finish` flushes."""

    def check(self) -> None:
        """Raise the stored OSError of a callback, if there is one."""
        if self.error:
            raise self.error

    def label(self, container: str, labels: Labels) -> None:
        """Write labels into the encoded file.

        Raises:
            OutputError: The file cannot hold the labels; it is left unchanged.
            OSError: Writing failed, now or earlier inside a callback.
        """
        self.check()
        label(self._file, self._path, container, labels)

    def finish(self) -> tuple[int, str]:
        """Sync the file to disk, read it back, and close it.

        Returns:
            The samples per channel in the file, and its SHA-256.

        Raises:
            OSError: Writing or reading failed, now or earlier inside a callback.
            LibsndfileError: libsndfile cannot read the file.
        """
        import soundfile

        self.check()
        self._file.flush()
        sync_file(self._file.fileno())
        self._file.seek(0)
        samples = soundfile.info(self._file).frames
        self._file.seek(0)
        digest = sha256_of(self._file)
        self._file.close()
        return samples, digest

    def remove(self) -> None:
        """Close and remove the file."""
        with contextlib.suppress(OSError):
            self._file.close()
        if self._path.is_file():  # never remove a device
            self._path.unlink()


def open_writer(
    path: Path | str,
    fmt: str,
    sample_rate: int,
    channels: int,
    *,
    time_reference_samples: int = 0,
    description: str = "",
    tempo_bpm: float | None = None,
    beats: int | None = None,
    beats_per_bar: int = 4,
    key: str | None = None,
    dither: bool = True,
    labels: Labels | None = None,
) -> Writer:
    """Open a writer for a delivery format.

    After closing the writer, callers should check its `clipped_samples` and `warnings`.

    Args:
        path: File to write.
        fmt: A name from `DELIVERY_FORMATS`.
        sample_rate: Sample rate of the blocks, in Hz.
        channels: Number of channels.
        time_reference_samples: Start of the audio in its session, written to the BWF chunk of a WAV or a comment of a
            FLAC. AIFF and MP3 have no field for it.
        description: Text of the BWF chunk or the FLAC comment.
        tempo_bpm: Tempo for the `acid` chunk (WAV only; for other formats see `tags.write_tags`).
        beats: Length of a loop in beats, which adds a `smpl` chunk; None if the audio is not a loop.
        beats_per_bar: Meter for the `acid` chunk, in quarter notes: 3 means 3/4.
        key: Key, such as "A minor" or "F#"; gives the root note of `acid` and `smpl`.
        dither: False keeps audio that already has this bit depth bit-exact (WAV only).
        labels: Tags, tempo and key to write to the file.

    Raises:
        OutputError: The format is unknown, or cannot hold this audio.
        NoSpaceLeft: The disk is full.
    """
    chosen = delivery_format(fmt)
    if chosen.container != "WAV":
        return EncodedWriter(path, chosen, sample_rate, channels, time_reference_samples, description, labels)

    def tempo_chunks(samples: int) -> bytes:
        if not tempo_bpm:
            return b""
        count = beats_in(samples, sample_rate, tempo_bpm) if beats is None else beats
        acid = build_chunk(
            b"acid", acid_body(tempo_bpm, count, key=key, beats_per_bar=beats_per_bar, loop=beats is not None)
        )
        return acid if beats is None else acid + build_chunk(b"smpl", smpl_body(samples, sample_rate, key=key))

    return AudioWriter(
        path,
        sample_rate,
        channels,
        subtype=chosen.subtype,
        time_reference_samples=time_reference_samples,
        description=description,
        dither_seed=_seed(path) if chosen.bits and dither else None,
        chunks=tempo_chunks,
        labels=labels,
    )


def _seed(path: Path | str) -> int:
    """The dither seed of a file: it differs between stems, and stays the same when a file is written again."""
    return zlib.crc32(Path(path).name.encode("utf-8", "surrogateescape"))


class EncodedWriter(Writer):
    """Writes a FLAC, AIFF or MP3 file.

    Args:
        path: File to write.
        fmt: Delivery format.
        sample_rate: Sample rate of the blocks, in Hz.
        channels: Number of channels.
        time_reference_samples: Start of the audio in its session (FLAC only).
        description: Text of a comment (FLAC only).
        labels: Tags, tempo and key to write to the file.

    Attributes:
        sample_rate: Sample rate of the file, in Hz; for MP3 it may differ from that of the blocks.

    Raises:
        OutputError: The format cannot hold this audio, or the file cannot be written.
        NoSpaceLeft: The disk is full.
    """

    def __init__(
        self,
        path: Path | str,
        fmt: DeliveryFormat,
        sample_rate: int,
        channels: int,
        time_reference_samples: int = 0,
        description: str = "",
        labels: Labels | None = None,
    ):
        import soundfile

        super().__init__(path, channels)
        self.fmt, self.labels = fmt, labels or Labels()
        most = MOST_CHANNELS[fmt.container]
        if not 1 <= channels <= most:
            raise OutputError(
                f"{shown(path)} cannot have {channels} channels: {fmt.container} holds at most {most}. Use wav24."
            )
        self.source_rate, self.sample_rate = sample_rate, _rate_for(fmt, sample_rate)
        self._resampler = Resampler(sample_rate, self.sample_rate, channels)
        self._quantiser = Quantiser(fmt.bits, seed=_seed(path)) if fmt.bits else None
        self._stored = 0
        self._beyond = 0  # samples beyond full scale in an MP3
        if fmt.container == "FLAC" and (time_reference_samples or description):  # FFmpeg's names of the BWF fields
            session = {"TIME_REFERENCE": str(time_reference_samples)}
            session |= {"DESCRIPTION": description} if description else {}
            self.labels = replace(self.labels, session=session)
        self._file: CodecFile | None = None
        self._stream: soundfile.SoundFile | None = None
        try:
            self._file = CodecFile(self.path)
            options = MP3_OPTIONS if fmt.container == "MP3" else {}
            self._stream = soundfile.SoundFile(
                self._file, "w", self.sample_rate, channels, fmt.subtype, format=fmt.container, **options
            )
            if fmt.container == "FLAC" and self.labels:
                setattr(self._stream, ROOM_COMMENT, " " * self.labels.size_bytes)
        except (OSError, soundfile.LibsndfileError) as error:
            raise self._failed(error) from error

    @property
    def _opened(self) -> tuple[CodecFile, soundfile.SoundFile]:
        assert self._file is not None and self._stream is not None, "__init__ opens the file or raises"
        return self._file, self._stream

    @property
    def clipped_samples(self) -> int:
        """Number of samples beyond full scale. Integer formats clip them; MP3 leaves clipping to the player."""
        return self._quantiser.clipped_samples if self._quantiser else self._beyond

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of every writer, and one about a changed sample rate."""
        warning = f"{shown(self.path)} has {self.sample_rate} Hz, because an MP3 cannot hold {self.source_rate} Hz."
        return super().warnings + ((warning,) if self.sample_rate != self.source_rate else ())

    def _append(self, block: np.ndarray) -> None:
        samples = self.samples + block.shape[1]
        if self.fmt.container == "AIFF" and samples * self.channels * self.fmt.bits // 8 > AIFF_LIMIT_BYTES:
            self._discard()
            raise OutputError(f"{shown(self.path)} would exceed the size limit of AIFF (4 GB). Use wav24.")
        self._encode(self._resampler.process(block))

    def _finish(self) -> None:
        import soundfile

        self._encode(self._resampler.process(np.zeros((self.channels, 0), np.float32), last=True))
        file, stream = self._opened
        try:
            stream.close()
            self._write_labels()
            self._stored, self.sha256 = file.finish()
        except (OSError, soundfile.LibsndfileError) as error:
            raise self._failed(error) from error

    def _stored_samples(self) -> int:
        return self._stored

    def _write_labels(self) -> None:
        """Write all labels; if that fails, only the session's labels (FLAC)."""
        if not self.labels:
            return
        file, _ = self._opened
        try:
            file.label(self.fmt.container, self.labels)
        except OutputError as error:
            self.label_problem = str(error)
            if self.fmt.container == "FLAC":
                file.label("FLAC", Labels(session=self.labels.session))

    def _expected_samples(self) -> int:
        return resampled_length(self.samples, self.source_rate, self.sample_rate)

    def _encode(self, block: np.ndarray) -> None:
        """Encode a block at the file's sample rate.

        Shape:
            block: (channels, samples)
        """
        file, stream = self._opened
        for start in range(0, block.shape[1], PIECE_SAMPLES):
            frames = np.ascontiguousarray(block[:, start : start + PIECE_SAMPLES].T)
            if self._quantiser and self.fmt.bits:
                # libsndfile stores the upper bits of a 32-bit integer exactly.
                frames = self._quantiser.quantise(frames) << (32 - self.fmt.bits)
            else:
                self._beyond += int((np.abs(frames) > 1.0).sum())
            try:
                stream.write(frames)
                file.check()
            except (OSError, RuntimeError, AssertionError) as error:  # soundfile asserts that all was written
                raise self._failed(error) from error

    def _failed(self, error: Exception) -> OutputError:
        """Remove the file and return the error to raise. The disk's error takes precedence over the codec's."""
        cause = self._file.error if self._file and self._file.error else error
        self._discard()
        if isinstance(cause, OSError):
            return write_error(self.path, cause)
        return OutputError(f"{shown(self.path)} could not be written as {self.fmt.name}: {cause}. Use wav24.")

    def _remove(self) -> None:
        if self._file is None:
            return
        self._file.broken = True  # ignore what the codec writes while it closes
        if self._stream is not None:
            with contextlib.suppress(Exception):  # the original failure is reported instead
                self._stream.close()
        self._file.remove()


def _rate_for(fmt: DeliveryFormat, sample_rate: int) -> int:
    """The sample rate of the file: that of the blocks, unless the format is MP3 and does not support it.

    An unsupported rate is divided by 2, 4 or 8 if that gives 44.1 or 48 kHz. Otherwise, the next higher rate that MP3
    supports is used, or 48 kHz if there is none.
    """
    if fmt.container != "MP3" or sample_rate in MP3_RATES_HZ:
        return sample_rate
    for factor in (2, 4, 8):
        if sample_rate % factor == 0 and sample_rate // factor in (44100, 48000):
            return sample_rate // factor
    return min((rate for rate in MP3_RATES_HZ if rate >= sample_rate), default=48000)
