"""catalogue.json: the outcome of every song of a batch, and where its files are.

Paths inside a catalogue are relative to the batch's output folder and have forward slashes, so that the folder can be
moved or shared. Levels are in dB relative to full scale; None means silence, or not measured.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Literal

from pydantic import AwareDatetime, Field, field_serializer

from tsbs_daw.contracts import Document, Part
from tsbs_daw.contracts.analysis import Analysis
from tsbs_daw.contracts.manifest import AudioFile
from tsbs_daw.core.filenames import safe_name

JSON = "catalogue.json"
CSV = "catalogue.csv"  # the same data as a table

SongState = Literal["done", "failed", "duplicate", "waiting"]


# What a catalogue says about an audio file: enough to find, show and play it.
FILE_FIELDS = {"name", "kind", "file", "color", "muted", "loudness_lufs", "true_peak_db"}


class SongEntry(Part):
    """One song.

    Attributes:
        source: Path of the song, as it was found.
        sha256: Hash of the source file.
        state: Whether it is done.
        reason: Why it is not done, or what it waits for: one plain sentence. None when it is done.
        duplicate_of: Source of the song with the same content, if this one is a duplicate.
        folder: Where its files are; None until it is done.
        residual_db: RMS of the source minus the sum of the dry stems, relative to the source's RMS.
        gain_db: The one gain that all its files share.
        files: Its audio files, relative to the output folder of the batch.
        sessions: Its session files.
        loops: Number of loops cut from it.
        loops_folder: Where the loops are.
        stem_mp4: Its file for DJ decks.
    """

    source: str
    sha256: str | None = None
    state: SongState = "waiting"
    reason: str | None = None
    duplicate_of: str | None = None
    folder: str | None = None
    artist: str = ""
    title: str = ""
    duration_s: float | None = None
    sample_rate: int | None = None
    channels: int | None = None
    analysis: Analysis | None = None
    residual_db: float | None = None
    gain_db: float = 0.0
    files: tuple[AudioFile, ...] = ()
    sessions: tuple[str, ...] = ()
    loops: int = 0
    loops_folder: str | None = None
    stem_mp4: str | None = None
    warnings: tuple[str, ...] = ()

    @field_serializer("files")
    def _files(self, files: tuple[AudioFile, ...]) -> list[dict[str, Any]]:
        return [file.model_dump(mode="json", include=FILE_FIELDS) for file in files]


class Catalogue(Document):
    """The whole batch.

    Attributes:
        created: When the catalogue was written.
        crate: Name of the batch.
        preset: Name of the preset that it was made with.
        songs: Its songs.
    """

    created: AwareDatetime = Field(default_factory=lambda: datetime.now(timezone.utc))
    crate: str
    preset: str
    songs: tuple[SongEntry, ...] = ()

    @property
    def session(self) -> str:
        """File name of the session with all songs, which is beside the catalogue."""
        return f"{safe_name(self.crate, fallback='crate')}.RPP"
