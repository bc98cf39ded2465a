"""Write songs in the formats that they are delivered in: WAV, FLAC, AIFF, MP3.

`open_writer` gives an `AudioWriter` for WAV, and for the others an `EncodedWriter` of the same manners: blocks in, no
torso of a file left behind, durable and read back at the end. Where bits are cut there is TPDF dither (see `dither`).

What cannot be held is said: samples beyond full scale are cut off and counted (a float WAV has no such limit), an MP3
has at most 48 kHz, so that a higher rate is halved or quartered, and it is not the same sound: the encoder's delay is
undone by what its LAME header says, which players mostly heed.

Axes: (channels, samples), float32.
"""

from __future__ import annotations

import contextlib
import errno
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tsbs_daw.audio.codec_file import CodecFile
from tsbs_daw.audio.delivery_format import DELIVERY_FORMATS, DeliveryFormat, delivery_format, file_ending
from tsbs_daw.audio.dither import Quantiser
from tsbs_daw.audio.resample import Resampler, resampled_length
from tsbs_daw.audio.tempo_chunks import acid_body, beats_in, smpl_body
from tsbs_daw.audio.wav_writer import AudioWriter, chunk, write_error
from tsbs_daw.audio.writer import Writer
from tsbs_daw.core.errors import OutputError, shown
from tsbs_daw.core.files import sync_file

if TYPE_CHECKING:
    import soundfile

__all__ = ["DELIVERY_FORMATS", "EncodedWriter", "delivery_format", "file_ending", "open_writer"]

MP3_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MP3_OPTIONS = {"bitrate_mode": "CONSTANT", "compression_level": 0.0}  # 320 kbit/s
MOST_CHANNELS = {"FLAC": 8, "AIFF": 32, "MP3": 2}
AIFF_LIMIT_BYTES = (1 << 32) - 4096  # its sizes have 32 bits
PIECE_SAMPLES = 8192  # what the codec gets at once


def open_writer(
    path: Path | str,
    form: str,
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
) -> Writer:
    """A writer for one of `DELIVERY_FORMATS`. Its `clipped_samples` and, once closed, `warnings` are worth a look.

    Args:   time_reference_samples: where the sound starts in its session: BWF in WAV, a comment in FLAC; AIFF and MP3
                have no place for it
            description: of the BWF chunk, or the FLAC's comment
            tempo_bpm: into an `acid` chunk (WAV); the others carry it in tags, see `tags.write_tags`
            beats: the sound is a loop of so many beats, and a `smpl` chunk says so
            beats_per_bar: for `acid`, as quarters: 3 becomes 3/4
            key: "A minor", "F#", ...: the root note of `acid` and `smpl`
            dither: False for sound of as many bits already, which is then kept bit by bit (WAV)
    Raises: OutputError: no such format, or it cannot hold this sound; NoSpaceLeft
    """
    chosen = delivery_format(form)
    if chosen.container != "WAV":
        return EncodedWriter(path, chosen, sample_rate, channels, time_reference_samples, description)

    def tempo_chunks(samples: int) -> bytes:
        if not tempo_bpm:
            return b""
        count = beats_in(samples, sample_rate, tempo_bpm) if beats is None else beats
        acid = chunk(b"acid", acid_body(tempo_bpm, count, key=key, beats_per_bar=beats_per_bar, loop=beats is not None))
        return acid if beats is None else acid + chunk(b"smpl", smpl_body(samples, sample_rate, key=key))

    return AudioWriter(
        path,
        sample_rate,
        channels,
        subtype=chosen.subtype,
        time_reference_samples=time_reference_samples,
        description=description,
        dither_seed=_seed(path) if chosen.bits and dither else None,
        chunks=tempo_chunks,
    )


def _seed(path: Path | str) -> int:
    """Of a file's dither: another for each stem, the same when the same is written again."""
    return zlib.crc32(Path(path).name.encode("utf-8", "surrogateescape"))


class EncodedWriter(Writer):
    """A FLAC, AIFF or MP3 being written, see `Writer`.

    sample_rate: of the file; for MP3 it may be lower than that of the blocks
    """

    def __init__(
        self,
        path: Path | str,
        form: DeliveryFormat,
        sample_rate: int,
        channels: int,
        time_reference_samples: int = 0,
        description: str = "",
    ):
        import soundfile

        super().__init__(path, channels)
        self.form = form
        most = MOST_CHANNELS[form.container]
        if not 1 <= channels <= most:
            raise OutputError(
                f"{shown(path)} cannot have {channels} channels: {form.container} holds {most} at most; choose wav24."
            )
        self.source_rate, self.sample_rate = sample_rate, _rate_for(form, sample_rate)
        self._resampler = Resampler(sample_rate, self.sample_rate, channels)
        self._quantiser = Quantiser(form.bits, seed=_seed(path)) if form.bits else None
        self._beyond = 0  # of an MP3
        self._comments = (time_reference_samples, description)
        self._file: CodecFile | None = None
        self._stream: soundfile.SoundFile | None = None
        try:
            self._file = CodecFile(self.path)
            options = MP3_OPTIONS if form.container == "MP3" else {}
            self._stream = soundfile.SoundFile(
                self._file, "w", self.sample_rate, channels, form.subtype, format=form.container, **options
            )
        except (OSError, soundfile.LibsndfileError) as error:
            raise self._failed(error) from error

    @property
    def clipped_samples(self) -> int:
        """How many lay beyond full scale. Integers are cut off there; an MP3 is by whatever plays it."""
        return self._quantiser.clipped_samples if self._quantiser else self._beyond

    @property
    def warnings(self) -> tuple[str, ...]:
        said = f"{shown(self.path)} is at {self.sample_rate} Hz: an MP3 cannot hold {self.source_rate} Hz."
        return super().warnings + ((said,) if self.sample_rate != self.source_rate else ())

    def _append(self, block: np.ndarray) -> None:
        samples = self.samples + block.shape[1]
        if self.form.container == "AIFF" and samples * self.channels * self.form.bits // 8 > AIFF_LIMIT_BYTES:
            self._discard()
            raise OutputError(f"{shown(self.path)} would be longer than an AIFF can be (4 GB); choose wav24.")
        self._encode(self._resampler.process(block))

    def _finish(self) -> None:
        import soundfile

        self._encode(self._resampler.process(np.zeros((self.channels, 0), np.float32), last=True))
        try:
            self._stream.close()
            self._file.finish()
            if self.form.container == "FLAC":
                _comment(self.path, *self._comments)
        except (OSError, soundfile.LibsndfileError) as error:
            raise self._failed(error) from error

    def _found_samples(self) -> int:
        import soundfile

        try:
            return soundfile.info(str(self.path)).frames
        except (OSError, soundfile.LibsndfileError) as error:
            raise self._failed(error) from error

    def _due_samples(self) -> int:
        return resampled_length(self.samples, self.source_rate, self.sample_rate)

    def _encode(self, block: np.ndarray) -> None:
        """Hand (channels, samples) at the file's rate to the codec."""

        for start in range(0, block.shape[1], PIECE_SAMPLES):
            frames = np.ascontiguousarray(block[:, start : start + PIECE_SAMPLES].T)
            if self._quantiser:
                # libsndfile takes the upper bits of a 32-bit integer, all of them exactly.
                frames = self._quantiser.quantise(frames) << (32 - self.form.bits)
            else:
                self._beyond += int((np.abs(frames) > 1.0).sum())
            try:
                self._stream.write(frames)
                self._file.check()
            except (OSError, RuntimeError, AssertionError) as error:  # soundfile asserts that all was taken
                raise self._failed(error) from error

    def _failed(self, error: Exception) -> OutputError:
        """The error to raise, once the file is gone. What the disk said counts more than what the codec made of it."""
        cause = self._file.error if self._file and self._file.error else error
        self._discard()
        if isinstance(cause, OSError):
            return write_error(self.path, cause)
        return OutputError(f"{shown(self.path)} could not be written as {self.form.name}: {cause}; choose wav24.")

    def _remove(self) -> None:
        if self._file is None:
            return
        self._file.broken = True  # what a codec still wants to write goes nowhere
        if self._stream is not None:
            with contextlib.suppress(Exception):  # what failed has been told
                self._stream.close()
        self._file.remove()


def _rate_for(form: DeliveryFormat, sample_rate: int) -> int:
    """The file's rate: the sound's own, but for an MP3 of a higher one, which is divided by 2, 4, ... where it can."""
    if form.container != "MP3" or sample_rate in MP3_RATES_HZ:
        return sample_rate
    for factor in (2, 4, 8):
        if sample_rate % factor == 0 and sample_rate // factor in (44100, 48000):
            return sample_rate // factor
    return min((rate for rate in MP3_RATES_HZ if rate >= sample_rate), default=48000)


def _comment(path: Path, time_reference_samples: int, description: str) -> None:
    """What BWF says in a WAV, as Vorbis comments, under the names that ffmpeg gives them. Raises: OSError"""
    if not time_reference_samples and not description:
        return
    from mutagen import MutagenError
    from mutagen.flac import FLAC

    try:
        file = FLAC(path)
        file["TIME_REFERENCE"] = str(time_reference_samples)
        if description:
            file["DESCRIPTION"] = description
        file.save()
    except MutagenError as error:
        raise error.__cause__ if isinstance(error.__cause__, OSError) else OSError(errno.EIO, str(error)) from error
    with path.open("rb+") as durable:
        sync_file(durable.fileno())
