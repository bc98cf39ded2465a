"""manifest.json: where a set of stems came from, how it was made, and what was measured on it.

It is written last into a song's folder, so a folder that has one is complete. Levels are in dB relative to full
scale; None stands for minus infinity (silence), which JSON cannot represent.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BeforeValidator, Field

from tsbs_daw.contracts import Document, Part
from tsbs_daw.contracts.job import JobId, Treatment
from tsbs_daw.core.errors import JobFormatError

FILE_NAME = "manifest.json"

# Packages that affect how a result sounds. Versions come from the packages' metadata, without importing them.
_PACKAGES = ("tsbs-daw", "torch", "numpy", "soundfile", "soxr", "pedalboard", "safetensors")


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _printable(path: Any) -> Any:
    """Return a path as text that JSON can hold; bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace") if isinstance(path, (str, Path)) else path


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Level = Annotated[float | None, BeforeValidator(_finite_or_none)]
PrintablePath = Annotated[str, BeforeValidator(_printable)]


class SourceEntry(Part):
    """The file that was separated.

    Attributes:
        path: The file; bytes that are not UTF-8 are written as \\xNN.
        sha256: Hash of the file.
        container: Format of the file.
        subtype: Encoding of its samples.
        sample_rate: Of the portion that was separated, and of every stem.
        channels: Of the portion, and of every stem.
        samples: Length of the portion, and of every stem.
        start_samples: Start of the requested portion.
        length_samples: Length of the requested portion; None: to the end.
        time_reference_samples: Where the portion starts in the session it came from (BWF), at `sample_rate`.
    """

    path: PrintablePath
    sha256: Sha256
    container: str
    subtype: str
    sample_rate: int
    channels: int
    samples: int
    start_samples: int = 0
    length_samples: int | None = None
    time_reference_samples: int = 0


class NamedHash(Part):
    """A model or a preset: its name, and the hash of its content."""

    name: str
    sha256: Sha256


class AudioFile(Part):
    """One audio file of a song, from rendering to the manifest, the result, the catalogue and the sessions.

    Attributes:
        name: As a session shows it.
        kind: A dry stem, an output of the preset, or the song itself beside them.
        file: Path, relative to the manifest's folder.
        color: As #rrggbb.
        muted: True for the song itself, and for a dry stem beside outputs or beside its own parts.
        size_bytes: Size of the file; 0 until it is written, and in a catalogue.
        sha256: Hash of the file; None until it is written, and in a catalogue.
        sample_peak_db: Highest sample, as delivered.
        true_peak_db: True peak, as delivered.
        rms_db: RMS level, as delivered.
        loudness_lufs: Integrated loudness, as delivered.
        folders: Folders in which sessions show it, outermost first. Each is named after a stem that a pass has split,
            and holds that stem and its parts.
        sources: Stems that it is made of. Only known while a job runs; not written to JSON.
    """

    name: str
    kind: Literal["stem", "output", "source"]
    file: str
    color: str = "#999999"
    muted: bool = False
    size_bytes: int = 0
    sha256: Sha256 | None = None
    sample_peak_db: Level = None
    true_peak_db: Level = None
    rms_db: Level = None
    loudness_lufs: Level = None
    folders: tuple[str, ...] = ()
    sources: tuple[str, ...] = Field((), exclude=True)


class PassEntry(Part):
    """A stem that another model has split into parts."""

    stem: str
    model: NamedHash
    parts: tuple[str, ...]


class OtherFile(Part):
    """A file made in addition to the stems; its path is relative to the manifest's folder."""

    kind: Literal["loop", "stem.mp4"]
    file: str


class Manifest(Document):
    """The whole document.

    Attributes:
        job: The job's id.
        song: Name of the song.
        artist: From the source's tags, or else from its file name.
        title: From the source's tags, or else from its file name.
        identity: Equal for two runs that must give the same result; see `identity_of`.
        created: When the manifest was written.
        residual: What happened to the part of the song that the network assigned to no stem: it was shared among the
            dry stems, written as a stem of its own, or dropped. None: written by a version that shared it in equal
            parts with `null` and dropped it without.
        quality: Steps of the separation. None: written by a version that only had "normal".
        format: Format of the audio files, by its name in presets.
        gain_db: The one gain that all files share; 0 unless a loudness was requested or the format required it.
        stems: Every audio file that a session shows.
        sessions: Session files relative to the folder, the preferred one first. None: written by a version that did
            not record them.
        passes: Stems that other models have split, in order.
        analysis: File with tempo, key and levels before the gain, if the song was analysed.
        others: Files made in addition to the stems.
        residual_db: RMS of the source minus the sum of the dry stems, relative to the source's RMS.
        timings_s: Seconds per step.
        precision: Precision of matrix products. Empty: written by a version that did not record it.
    """

    job: JobId
    song: str
    artist: str = ""
    title: str = ""
    identity: Sha256
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(timezone.utc))
    source: SourceEntry
    model: NamedHash
    preset: NamedHash
    stage: Literal["full", "mask"]
    null: bool
    residual: Literal["share", "separate", "drop"] | None = None
    quality: Literal["fast", "normal", "best"] | None = None
    salvage: bool
    format: str = "wav32f"
    gain_db: float = 0.0
    stems: tuple[AudioFile, ...]
    sessions: tuple[str, ...] | None = None
    passes: tuple[PassEntry, ...] = ()
    analysis: str | None = None
    others: tuple[OtherFile, ...] = ()
    residual_db: Level = None
    timings_s: dict[str, float] = Field(default_factory=dict)
    device: str = ""
    precision: str = ""
    versions: dict[str, str] = Field(default_factory=lambda: versions())
    warnings: tuple[str, ...] = ()


def identity_of(
    *,
    source_sha256: str,
    model_sha256: str,
    preset_sha256: str,
    treatment: Treatment,
    start_samples: int = 0,
    length_samples: int | None = None,
    delivery: str | None = None,
    precision: str | None = None,
    passes: Sequence[str] = (),
) -> str:
    """Hash everything that decides what a run delivers. Two runs with the same identity give the same result.

    Args:
        source_sha256: Hash of the source that was really loaded.
        model_sha256: Hash of the model that was really loaded.
        preset_sha256: Hash of the preset that was really loaded.
        treatment: Supplies the options; preset and model count by their content.
        start_samples: Start of the portion.
        length_samples: Length of the portion; None: to the end.
        delivery: What is delivered, preset and options merged, as one text; None for the default.
        precision: See `separation.forms.mark`.
        passes: Hashes of the models that split stems; the preset says which stems.

    Returns:
        The hash in hexadecimal.
    """
    decisive: dict[str, Any] = {
        "source": source_sha256,
        "model": model_sha256,
        "preset": preset_sha256,
        "stage": treatment.stage,
        "null": treatment.null,
        "salvage": treatment.salvage,
        "portion": [start_samples, length_samples],
    }
    # Only added if set: a run without them has the same identity as in versions without these options.
    decisive |= {name: said for name, said in (("delivery", delivery), ("precision", precision)) if said is not None}
    decisive |= {"passes": list(passes)} if passes else {}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the program, of the packages it computes with, and of Python and the platform."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest in `folder`; None if there is none that this version understands.

    The file name is common, so the file may be anything and is read with care: see `Document.read`.
    """
    try:
        return Manifest.read(folder / FILE_NAME)
    except (OSError, JobFormatError):
        return None
