"""The rendered files of a song, as they are delivered: one gain for all, their format, their names, their tags."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from tsbs_daw.audio.encoders import MOST_CHANNELS, delivery_format, open_writer
from tsbs_daw.audio.measure import gain
from tsbs_daw.audio.tags import Tags, write_tags
from tsbs_daw.contracts.manifest import FileEntry
from tsbs_daw.core.errors import JobCancelled, NoSpaceLeft, TsbsDawError
from tsbs_daw.core.hashing import file_sha256
from tsbs_daw.pipeline.leveling import after_gain
from tsbs_daw.pipeline.render import Rendered
from tsbs_daw.pipeline.song_info import Facts, short_key

log = logging.getLogger(__name__)

BLOCK_SAMPLES = 65536
FALLBACK = "wav24"  # holds any number of channels


@dataclass(frozen=True)
class Encoding:
    """What all files of a song have in common.

    form:                   of `delivery_format.DELIVERY_FORMATS`
    time_reference_samples: where the song starts in its session
    tags:                   of the source; every file gets them, with its own title
    """

    form: str
    gain_db: float
    time_reference_samples: int
    facts: Facts
    tags: Tags

    @property
    def song_tags(self) -> Tags:
        """The source's tags, with what its name says where they say nothing."""
        return replace(self.tags, title=self.facts.title, artist=self.facts.artist)

    def encode(
        self, raw: Path, rendered: Rendered, path: Path, *, report: Callable[[int], None], cancelled: Callable[[], bool]
    ) -> tuple[FileEntry, tuple[str, ...]]:
        """Write one file, and what is to be said about it.

        Args:   raw: the rendered file
                report: told the samples that were done since
        Raises: OutputError, NoSpaceLeft, JobCancelled
        """
        key = self.facts.sure_key
        with soundfile.SoundFile(raw) as file, open_writer(
            path, self.form, file.samplerate, file.channels,
            time_reference_samples=self.time_reference_samples,
            description=f"{rendered.name} of {self.facts.song}",
            **self._tempo(),
            key=key.name if key else None,
        ) as writer:  # fmt: skip
            for block in _blocks(file, self.gain_db):
                if cancelled():
                    raise JobCancelled("The job was cancelled.")
                writer.write(block)
                report(block.shape[1])
            rate, asked = writer.sample_rate, file.samplerate
        warnings = self._tag(path, rendered)
        if rate != asked:
            warnings += (f"The {delivery_format(self.form).container} files have {rate} Hz: they cannot have {asked}.",)
        return entry_of(path, rendered, self.gain_db), warnings

    def _tempo(self) -> dict[str, float | int]:
        """What DAWs may stretch the file by: the tempo of a song that keeps it, and its bars."""
        analysis, bpm = self.facts.analysis, self.facts.sure_bpm
        if analysis is None or bpm is None or not analysis.tempo.steady:
            return {}
        beats = analysis.beats
        bars = {"beats_per_bar": beats.beats_per_bar} if beats.beats_per_bar and not beats.meter_doubtful else {}
        return {"tempo_bpm": bpm, **bars}

    def _tag(self, path: Path, rendered: Rendered) -> tuple[str, ...]:
        tags = self.song_tags
        if rendered.kind != "source":
            tags = replace(tags, title=f"{tags.title} ({rendered.name})")
        bpm, key = self.facts.sure_bpm, self.facts.sure_key
        try:
            write_tags(path, tags, bpm=bpm, key=short_key(key) if key else None)
        except NoSpaceLeft:
            raise
        except TsbsDawError as error:
            log.warning("%s gets no tags: %s", path, error)
            return ("The files have no tags: the source's could not be carried over.",)
        return ()


def entry_of(path: Path, rendered: Rendered, gain_db: float = 0.0) -> FileEntry:
    """What the manifest says of a delivered file. Args: gain_db: that it got after it was measured"""
    levels = after_gain(rendered.levels, gain_db)
    return FileEntry(
        name=rendered.name,
        kind=rendered.kind,
        file=path.name,
        color=rendered.color,
        muted=rendered.muted,
        size_bytes=path.stat().st_size,
        sha256=file_sha256(path),
        sample_peak_db=levels.sample_peak_db,
        true_peak_db=levels.true_peak_db,
        rms_db=levels.rms_db,
        loudness_lufs=levels.loudness_lufs,
    )


def format_for(form: str, channels: int) -> tuple[str, tuple[str, ...]]:
    """The format that was asked for, or one that holds so many channels, and what to say about it."""
    container = delivery_format(form).container
    if channels <= MOST_CHANNELS.get(container, channels):
        return form, ()
    return FALLBACK, (f"The files are {FALLBACK} and not {form}, which cannot hold {channels} channels.",)


def _blocks(file: soundfile.SoundFile, gain_db: float) -> Iterator[np.ndarray]:
    factor = np.float32(gain(gain_db))
    while True:
        block = file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True).T
        if not block.shape[1]:
            return
        yield block * factor if gain_db else block
