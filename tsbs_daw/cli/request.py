"""What commands that separate have in common: groups of options, and the job that they make of a file."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.core.errors import AudioError, UnreadableAudio, UsageError, shown

if TYPE_CHECKING:
    from tsbs_daw.contracts.job import Job
    from tsbs_daw.core.config import Settings

DEFAULT_OUT = "stems"


class PrecisionName(str, Enum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


# Readable or not: of each file is told by itself.
Files = Annotated[list[Path], typer.Argument(help="Audio files.", show_default=False, metavar="FILE", readable=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder in which a folder for every song appears.")]
Preset = Annotated[str, typer.Option("--preset", "-p", help="An effect preset's name, or a YAML file.")]
Model = Annotated[str, typer.Option("--model", "-m", help="A model's name, or a .safetensors file.")]
Stage = Annotated[str, typer.Option(help="`full` runs both stages of the network, `mask` only the first.")]
Null = Annotated[bool, typer.Option("--null", help="Give the residual back, so that the stems sum to the source.")]
Salvage = Annotated[bool, typer.Option("--salvage", help="Separate what is there of a cut or damaged file.")]
Device = Annotated[str | None, typer.Option(help="`auto`, `cpu`, `cuda` or `mps`; else TSBS_DAW_DEVICE, else auto.")]
Precision = Annotated[
    PrecisionName | None,
    typer.Option(help="Of the matrix products; `auto`: the faster that costs no quality. Else TSBS_DAW_PRECISION."),
]
Start = Annotated[str, typer.Option(help="Where to begin: seconds, or minutes:seconds.", metavar="TIME")]
Length = Annotated[str, typer.Option(help="How much to separate; without it, to the end.", metavar="TIME")]
Song = Annotated[str, typer.Option(help="Name of the song's folder; without it, the file's name.")]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON for every file, for scripts.")]

_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


@dataclass(frozen=True)
class Treatment:
    """What is done to a song."""

    preset: Preset = "none"
    model: Model = "default"
    stage: Stage = "full"
    null: Null = False

    def checked(self) -> Treatment:
        """With whole paths. Raises: UsageError: there is no such stage"""
        if self.stage not in ("full", "mask"):
            raise UsageError(f"--stage is {self.stage!r}; choose `full` or `mask`.")
        preset, model = name_or_path(self.preset, (".yaml", ".yml")), name_or_path(self.model, (".safetensors",))
        return replace(self, preset=preset, model=model)


@dataclass(frozen=True)
class Excerpt:
    """How much of a file is separated, and what that is called."""

    salvage: Salvage = False
    start: Start = ""
    length: Length = ""
    song: Song = ""


@dataclass(frozen=True)
class Compute:
    """On what is computed, and how."""

    device: Device = None
    precision: Precision = None

    def settings(self) -> Settings:
        """The environment's settings, but for what the user chose."""
        from tsbs_daw.core.config import Settings

        found = Settings.from_environment()
        precision = self.precision.value if self.precision else found.precision
        return replace(found, device=self.device or found.device, precision=precision)


@dataclass(frozen=True)
class Options:
    """What the user chose, checked; the same for every file of one call."""

    out: Path
    treatment: Treatment
    salvage: bool
    start_s: float
    length_s: float | None
    song: str | None

    @classmethod
    def checked(cls, out: Path, treatment: Treatment, excerpt: Excerpt) -> Options:
        """Raises: UsageError: a choice that cannot be"""
        treatment = treatment.checked()
        length_s = seconds(excerpt.length, "--length") if excerpt.length else None
        if length_s is not None and length_s <= 0:
            raise UsageError("--length is zero; give it more, or leave it out to separate to the end.")
        start_s = seconds(excerpt.start, "--start") if excerpt.start else 0.0
        return cls(whole_path(out), treatment, excerpt.salvage, start_s, length_s, excerpt.song or None)


def seconds(text: str, option: str) -> float:
    """`90`, `90.5`, `1:30` or `1:02:03` in seconds. Raises: UsageError"""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{option} is {text!r}; write seconds (90.5) or minutes and seconds (1:30.5).")
    hours, minutes, rest = match.groups(default="0")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def name_or_path(text: str, endings: tuple[str, ...]) -> str:
    """A name as it is; what looks like a file, as an absolute path."""
    looks_like_a_file = text.lower().endswith(endings) or "/" in text or "\\" in text
    return str(whole_path(Path(text))) if looks_like_a_file else text


def whole_path(path: Path) -> Path:
    return path.expanduser().absolute()


def job_for(file: Path, options: Options, **fields: Any) -> Job:
    """The job that separates `file`.

    Raises: AudioError: no such file; with a portion, also when the file cannot be read
            UsageError: the portion lies behind the file's end
    """
    from pydantic import ValidationError

    from tsbs_daw.contracts.job import Job, Source

    path = whole_path(file)
    _check_is_a_file(path)
    start, length = _portion(path, options)
    try:
        return Job(
            source=Source(path=path, start_samples=start, length_samples=length),
            output=options.out,
            song=options.song,
            salvage=options.salvage,
            **vars(options.treatment),
            **fields,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{first['loc'][0]}: {first['msg']}.") from error


def _check_is_a_file(path: Path) -> None:
    """Raises: UnreadableAudio"""
    try:
        path.stat()
    except PermissionError as error:
        raise UnreadableAudio(f"{shown(path)} cannot be read ({error.strerror}); check its permissions.") from error
    except OSError:
        pass
    if os.path.isdir(path):  # noqa: PTH112 -- a Path's own raises for names that are too long
        raise UnreadableAudio(f"{shown(path)} is a folder; `tsbs-daw batch` and `tsbs-daw watch` take folders.")
    if not os.path.isfile(path):  # noqa: PTH113
        raise UnreadableAudio(f"{shown(path)} is not there; check its name.")


def submittable(job: Job) -> Job:
    """Raises: UnreadableAudio: the file's name cannot be written down in a request, which is JSON"""
    try:
        str(job.source.path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnreadableAudio(
            f"{shown(job.source.path)} has a name that is not UTF-8, which the daemon cannot be told; rename the file, "
            "or use `tsbs-daw separate`."
        ) from error
    return job


def _portion(path: Path, options: Options) -> tuple[int, int | None]:
    """(start, length) in samples; the file's own rate is needed only when a portion is asked for."""
    if options.start_s == 0 and options.length_s is None:
        return 0, None
    from tsbs_daw.audio.read import probe

    info = probe(path, salvage=options.salvage)
    start = round(options.start_s * info.sample_rate)
    length = None if options.length_s is None else max(round(options.length_s * info.sample_rate), 1)
    if info.samples is not None and start >= info.samples:
        raise AudioError(
            f"{shown(path)} is {info.samples / info.sample_rate:.1f} s long and --start is behind that; "
            "choose an earlier one."
        )
    return start, length
