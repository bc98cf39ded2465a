"""Encoding of a song's rendered files for delivery: gain, format, names and tags.

All files of a song get the same gain, so their balance and the sum of the stems do not change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from tsbs_daw.audio.dsp import Levels, gain
from tsbs_daw.audio.encoders import MOST_CHANNELS, delivery_format, open_writer
from tsbs_daw.audio.tags import Labels, Tags
from tsbs_daw.contracts.manifest import AudioFile
from tsbs_daw.core.files import file_sha256
from tsbs_daw.pipeline.render import level_fields
from tsbs_daw.pipeline.resolve import JobContext
from tsbs_daw.pipeline.song_info import SongInfo, short_key
from tsbs_daw.presets.delivery import DeliveryOptions

log = logging.getLogger(__name__)

CEILING_DB = -1.0  # maximum true peak in dBTP, as EBU R 128 and streaming services require
BLOCK_SAMPLES = 65536
BEATS_PER_BAR = 4  # if the metre is unknown or doubtful
FALLBACK = "wav24"  # holds any number of channels
UNLIMITED = ("wav32f",)  # formats that hold samples beyond full scale


def shared_gain(
    delivery: DeliveryOptions, mixture: AudioFile | Levels | None, files: Iterable[AudioFile | Levels]
) -> tuple[float, tuple[str, ...]]:
    """Compute the gain that all files of a song get.

    With a loudness target, the gain brings the mixture to the target, or as close as possible with no true peak above
    -1 dBTP. Without one, it is 0 dB, unless the format would clip a peak: then it lowers the true peak to -1 dBTP.

    Args:
        delivery: The delivery options.
        mixture: Levels of the song; None if there is no target.
        files: Levels of all delivered files, and of the sum of the stems.

    Returns:
        The gain in dB, and warnings.
    """
    levels = [*files, *([mixture] if mixture else [])]
    true_peak_db = max((level.true_peak_db for level in levels if level.true_peak_db is not None), default=None)
    sample_peak_db = max((level.sample_peak_db for level in levels if level.sample_peak_db is not None), default=None)
    if true_peak_db is None:
        return 0.0, ()
    room_db = CEILING_DB - true_peak_db
    if delivery.loudness_lufs is None:
        if delivery.format in UNLIMITED or sample_peak_db is None or sample_peak_db <= 0:
            return 0.0, ()
        return room_db, (f"All files are {-room_db:.1f} dB lower, because {delivery.format} would clip their peaks.",)
    target = f"The loudness of {delivery.loudness_lufs:g} LUFS"
    if mixture is None or mixture.loudness_lufs is None:
        return min(0.0, room_db), (f"{target} cannot be reached: the song is too short or too quiet to have one.",)
    wanted_db = delivery.loudness_lufs - mixture.loudness_lufs
    if wanted_db <= room_db + 0.05:  # a difference that would be shown as 0.0 dB
        return min(wanted_db, room_db), ()
    return room_db, (f"{target} is missed by {wanted_db - room_db:.1f} dB to keep all peaks below -1 dBTP.",)


@dataclass(frozen=True)
class Encoding:
    """Settings that all files of a song share.

    Attributes:
        format: One of the delivery formats, see `audio.encoders`.
        gain_db: Gain for every file.
        time_reference_samples: Position of the song in its session.
        song: Name, tags and analysis of the song.
        tags: Tags of the source; every file gets them, with its own title.
    """

    format: str
    gain_db: float
    time_reference_samples: int
    song: SongInfo
    tags: Tags

    @property
    def song_tags(self) -> Tags:
        """The source's tags, with artist and title from the file name if they are missing."""
        return replace(self.tags, title=self.song.title, artist=self.song.artist)

    def encode(
        self, raw: Path, rendered: AudioFile, path: Path, *, report: Callable[[int], None], context: JobContext
    ) -> tuple[AudioFile, tuple[str, ...]]:
        """Encode one file.

        Args:
            raw: The rendered file.
            rendered: Its description, with its levels.
            path: The file to write.
            report: Called with the number of samples encoded since the last call.
            context: Checked for cancellation between blocks.

        Returns:
            The delivered file, and warnings about it.

        Raises:
            OutputError, NoSpaceLeft, JobCancelled
        """
        key, (tempo_bpm, beats_per_bar) = self.song.sure_key, self._tempo()
        with soundfile.SoundFile(raw) as file, open_writer(
            path, self.format, file.samplerate, file.channels,
            time_reference_samples=self.time_reference_samples,
            description=f"{rendered.name} of {self.song.song}",
            tempo_bpm=tempo_bpm,
            beats_per_bar=beats_per_bar,
            key=key.name if key else None,
            labels=self._labels(rendered),
        ) as writer:  # fmt: skip
            for block in _blocks(file, self.gain_db):
                context.check_cancelled()
                writer.write(block)
                report(block.shape[1])
            rate, asked = writer.sample_rate, file.samplerate
        warnings: tuple[str, ...] = ()
        if writer.label_problem:
            log.warning("%s gets no tags: %s", path, writer.label_problem)
            warnings = ("The files have no tags, because the source's tags could not be copied.",)
        if rate != asked:
            container = delivery_format(self.format).container
            warnings += (f"The {container} files have {rate} Hz, because {container} does not support {asked} Hz.",)
        return delivered(rendered, path, self.gain_db, writer.sha256), warnings

    def _tempo(self) -> tuple[float | None, int]:
        """Return tempo and beats per bar, from which DAWs may stretch the file; no tempo unless it is steady."""
        analysis, bpm = self.song.analysis, self.song.sure_bpm
        if analysis is None or bpm is None or not analysis.tempo.steady:
            return None, BEATS_PER_BAR
        beats = analysis.beats
        return bpm, BEATS_PER_BAR if beats.meter_doubtful else beats.beats_per_bar or BEATS_PER_BAR

    def _labels(self, rendered: AudioFile) -> Labels:
        tags = self.song_tags
        if rendered.kind != "source":
            tags = replace(tags, title=f"{tags.title} ({rendered.name})")
        bpm, key = self.song.sure_bpm, self.song.sure_key
        return Labels(tags, bpm, short_key(key) if key else None)


def delivered(rendered: AudioFile, path: Path, gain_db: float = 0.0, sha256: str | None = None) -> AudioFile:
    """Describe a delivered file.

    Args:
        rendered: The rendered file with its measured levels.
        path: The delivered file.
        gain_db: Gain applied since the levels were measured.
        sha256: Hash of the delivered file; None to compute it.
    """
    levels = level_fields(rendered, gain_db)
    written = {"file": path.name, "size_bytes": path.stat().st_size, "sha256": sha256 or file_sha256(path)}
    return rendered.model_copy(update=levels | written)


def format_for(fmt: str, channels: int) -> tuple[str, tuple[str, ...]]:
    """Return the requested format, or `FALLBACK` if that cannot hold so many channels, and warnings."""
    container = delivery_format(fmt).container
    if channels <= MOST_CHANNELS.get(container, channels):
        return fmt, ()
    return FALLBACK, (f"The files are {FALLBACK} and not {fmt}, which cannot hold {channels} channels.",)


def _blocks(file: soundfile.SoundFile, gain_db: float) -> Iterator[np.ndarray]:
    factor = np.float32(gain(gain_db))
    while True:
        block = file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True).T
        if not block.shape[1]:
            return
        yield block * factor if gain_db else block
