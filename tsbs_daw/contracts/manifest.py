"""manifest.json: where a set of stems came from, how it was made, and what was measured on it.

It is written last into a song's folder, so a folder that has one is complete. Levels are in dB relative to full
scale; None stands for minus infinity, that is silence, which JSON cannot say.
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

# What decides how a result sounds. Read from the installed packages' metadata; nothing is imported for it.
_PACKAGES = ("tsbs-daw", "torch", "numpy", "soundfile", "soxr", "pedalboard", "safetensors")


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _printable(path: Any) -> Any:
    """A path as text that JSON can hold; bytes that are not UTF-8 appear as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace") if isinstance(path, (str, Path)) else path


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Level = Annotated[float | None, BeforeValidator(_finite_or_none)]
PrintablePath = Annotated[str, BeforeValidator(_printable)]


class SourceEntry(Part):
    """The file that was separated.

    sample_rate, channels, samples: of the portion that was separated, and of every stem
    start_samples, length_samples:  the portion that was asked for; length None means to the end
    time_reference_samples:         where the portion starts in the session it came from (BWF), at sample_rate
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
    """A model or a preset: what it is called, and what it exactly was."""

    name: str
    sha256: Sha256


class AudioFile(Part):
    """One audio file of a song, from rendering to the manifest, the result, the catalogue and the sessions.

    Attributes:
        name: As a session shows it.
        kind: A dry stem, an output of the preset, or the song itself beside them.
        file: Its path, relative to the manifest's folder.
        muted: A dry stem beside outputs or beside its own parts, or the song itself.
        size_bytes, sha256: Once it is written; 0 and None before, and in a catalogue.
        sample_peak_db, true_peak_db, rms_db, loudness_lufs: As delivered.
        folders: The folders that sessions show it in, outermost first, each named like the stem that a pass took
            apart: of that stem itself and of its parts.
        sources: The stems that it is made of; known while a job runs, and not written down.
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
    """A stem that went through another model, which took it apart."""

    stem: str
    model: NamedHash
    parts: tuple[str, ...]


class OtherFile(Part):
    """What was made beside the stems, relative to the manifest's folder."""

    kind: Literal["loop", "stem.mp4"]
    file: str


class Manifest(Document):
    """The whole document.

    identity:    equal for two runs that must give the same result; see `identity_of`
    residual:    what became of what the network gave to no stem: shared among the dry stems, written as a stem of its
                 own, or dropped; None: written by a version that shared it in equal parts with `null`, else dropped it
    quality:     steps of the separation; None: written by a version that had none but normal
    artist, title: from the source's tags, else from its name
    format:      of the audio files, as presets name it
    gain_db:     the one gain that all files share; 0 unless a loudness was asked for, or the format made it necessary
    stems:       every audio file that a session shows
    sessions:    relative to the folder, the preferred one first; None: written by a version that did not say
    passes:      the stems that went through other models, in order
    analysis:    the file with tempo, key and levels before the gain, if the song was analysed
    others:      what was made beside the stems
    residual_db: RMS of the source minus the sum of the dry stems, relative to the source's RMS
    timings_s:   seconds per step
    precision:   of the matrix products; empty: written by a version that did not say
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
    """The hash of everything that decides what a run delivers. Two runs with the same identity are the same run.

    Args:
        source_sha256, model_sha256, preset_sha256: What was really loaded.
        treatment: For its options; preset and model count by their content.
        start_samples, length_samples: The portion.
        delivery: What is delivered, preset and options merged, as one text; None for what every song gets.
        precision: See `separation.forms.mark`.
        passes: The hashes of the models that stems go through; which stems, the preset says.
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
    # Only then: a run without one is equal to those of versions that knew of none.
    decisive |= {name: said for name, said in (("delivery", delivery), ("precision", precision)) if said is not None}
    decisive |= {"passes": list(passes)} if passes else {}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of the program, of what it computes with, and of Python and the machine."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in `folder`; None when there is none that this version understands.

    The name is common, so whatever has it is read with care: see `Document.read`.
    """
    try:
        return Manifest.read(folder / FILE_NAME)
    except (OSError, JobFormatError):
        return None
