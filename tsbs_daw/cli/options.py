"""Options that several commands share.

In a `grouped` command a dataclass stands for its fields:

    @grouped
    def command(files: Files, *, treatment: Treatment = Treatment(preset="crate"), as_json: Json = False) -> int:

has --preset, --model and every other field of `Treatment` as options, at this position of its help. The instance holds
the defaults; without one, the fields' own defaults apply.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from tsbs_daw.audio.formats import FORMAT_ALIASES
from tsbs_daw.core.errors import UsageError, first_problem
from tsbs_daw.presets.rules import FIELDS, FORMATS, LOUDEST_LUFS, QUALITIES, QUIETEST_LUFS, RESIDUALS, REST, SESSIONS

if TYPE_CHECKING:
    from pydantic import ValidationError

    from tsbs_daw.core.config import Settings
    from tsbs_daw.presets.delivery import DeliveryOptions

DEFAULT_OUT = "stems"
NONE = "none"
STAGES = ("full", "mask")
SONGS_ON_A_CLUSTER = 4


class PrecisionName(str, Enum):
    """Values of --precision."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


FormatName = Enum("FormatName", {name: name for name in (*FORMATS, *FORMAT_ALIASES)}, type=str)  # type: ignore[misc]

# `readable=False`: the commands report an unreadable file themselves and continue with the others.
Files = Annotated[list[Path], typer.Argument(help="Audio files.", show_default=False, metavar="FILE", readable=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output folder. Each song gets a folder of its own in it.")]
Preset = Annotated[str, typer.Option("--preset", "-p", help="Effect preset: a name or a YAML file.")]
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="Model: a name or a .safetensors file. Several with commas between them are averaged."
    ),
]
Stage = Annotated[str, typer.Option(help="Network stages to run: `full` runs both, `mask` only the first.")]
Null = Annotated[bool, typer.Option("--null", help="Same as `--residual share`, which is the default.")]
Salvage = Annotated[bool, typer.Option("--salvage", help="Separate what is readable of a truncated or damaged file.")]
Device = Annotated[
    str | None,
    typer.Option(
        help="Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`. Default: TSBS_DAW_DEVICE, or auto."
    ),
]
Precision = Annotated[
    PrecisionName | None,
    typer.Option(
        help="Precision of matrix products. `auto` picks the fastest that does not reduce quality. "
        "Default: TSBS_DAW_PRECISION, or auto."
    ),
]
Start = Annotated[str, typer.Option(help="Position to start at, as seconds or minutes:seconds.", metavar="TIME")]
Length = Annotated[
    str, typer.Option(help="Length to separate, as seconds or minutes:seconds. Default: to the end.", metavar="TIME")
]
Song = Annotated[str, typer.Option(help="Name of the song's folder. Default: the name of the file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON per file.")]
AtOnce = Annotated[
    int | None,
    typer.Option(
        "--at-once",
        "--workers",
        help="Songs to separate at the same time. Default: depends on the device; 1 on a CPU.",
        min=1,
        max=64,
    ),
]

Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Compute on the nodes of a Ray cluster: `auto` for the one this machine belongs to, or HOST:PORT of its "
        "head. The queue and the files stay here.",
    ),
]


class FallbackName(str, Enum):
    """Values of --cluster-fallback."""

    local = "local"
    wait = "wait"


ClusterFallback = Annotated[
    FallbackName,
    typer.Option(
        help="While the cluster has had no node for a minute: `local` computes on this machine, `wait` puts the songs "
        "back into the queue."
    ),
]

Format = Annotated[
    FormatName | None,
    typer.Option(
        "--format", case_sensitive=False,
        help="Output format; " + ", ".join(f"`{alias}` is `{name}`" for alias, name in FORMAT_ALIASES.items())
        + ". Overrides the preset.",
    ),
]  # fmt: skip
Loudness = Annotated[
    float | None,
    typer.Option(
        metavar="LUFS", min=QUIETEST_LUFS, max=LOUDEST_LUFS,
        help="Target loudness in LUFS; one gain for every file of the song. Overrides the preset.",
    ),
]  # fmt: skip
Sessions = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help=f"Session files to write: `{'`, `'.join(SESSIONS)}`, both with a comma, or `none`. Overrides the preset.",
    ),
]
Loops = Annotated[
    str | None,
    typer.Option(
        metavar="BARS",
        help="Lengths of loops to cut from every stem, in bars: `4,8,16`, or `none`. Overrides the preset.",
    ),
]
StemMp4 = Annotated[
    bool | None,
    typer.Option(
        "--stem-mp4/--no-stem-mp4", help="Write a .stem.mp4 of each song, for DJ software. Overrides the preset."
    ),
]
Names = Annotated[
    str | None,
    typer.Option(
        metavar="TEMPLATE",
        help="Template for the names of files. Fields: " + ", ".join(f"{{{field}}}" for field in FIELDS)
        + ". Overrides the preset.",
    ),
]  # fmt: skip

Stems = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Dry stems to write, as in `vocals,drums`; `rest` is the sum of the others, `none` writes only the "
        "preset's outputs. Overrides the preset.",
    ),
]
TwoStems = Annotated[
    str | None, typer.Option(metavar="NAME", help="Write this stem and the sum of the others: `--stems NAME,rest`.")
]
ResidualName = Enum("ResidualName", {name: name for name in RESIDUALS}, type=str)  # type: ignore[misc]
Residual = Annotated[
    ResidualName | None,
    typer.Option(
        help="Treatment of the part of a song that is in no stem: `share` it among the stems, so that they sum to "
        "the song, write it as a `separate` stem, or `drop` it. Default: share. Overrides the preset.",
    ),
]

QualityName = Enum("QualityName", {name: name for name in QUALITIES}, type=str)  # type: ignore[misc]
Quality = Annotated[
    QualityName | None,
    typer.Option(
        help="Quality against speed: `best` applies a mask that improved the stems of real songs, `fast` overlaps "
        "chunks less. Default: normal. Overrides the preset.",
    ),
]

# ---- groups ----------------------------------------------------------------------------------------------------------


def grouped(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command for typer: replace each dataclass parameter by an option for each of its fields."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, Any] = {
        parameter.name: parameter.annotation for parameter in parameters if is_dataclass(parameter.annotation)
    }
    members = {name: [field.name for field in fields(group)] for name, group in groups.items()}
    signature = inspect.Signature([option for parameter in parameters for option in _options(parameter)])

    @functools.wraps(command)
    def with_each_option(**given: Any) -> Any:
        bound = signature.bind(**given)
        bound.apply_defaults()
        values = bound.arguments
        for name, group in groups.items():
            values[name] = group(**{member: values.pop(member) for member in members[name]})
        return command(**values)

    # typer reads both, and resolves string annotations in neither.
    with_each_option.__signature__ = signature  # type: ignore[attr-defined]
    with_each_option.__annotations__ = {option.name: option.annotation for option in signature.parameters.values()}
    return with_each_option


def _options(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """Yield the fields of a group, or the parameter itself; keyword-only, so that their order does not matter."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    if not is_dataclass(parameter.annotation):
        yield parameter.replace(kind=keyword)
        return
    types = get_type_hints(parameter.annotation, include_extras=True)
    for field in fields(parameter.annotation):
        default = field.default if parameter.default is parameter.empty else getattr(parameter.default, field.name)
        default = parameter.empty if default is MISSING else default
        yield inspect.Parameter(field.name, keyword, default=default, annotation=types[field.name])


@dataclass(frozen=True)
class Treatment:
    """How to separate a song."""

    preset: Preset = "none"
    model: Model = "default"
    stage: Stage = "full"
    null: Null = False

    def checked(self) -> Treatment:
        """Return a copy with absolute paths. Raises `UsageError` if the stage is unknown."""
        if self.stage not in STAGES:
            raise UsageError(f"Unknown --stage {self.stage!r}. Choose `full` or `mask`.")
        return replace(self, preset=name_or_path(self.preset, (".yaml", ".yml")), model=models(self.model))


@dataclass(frozen=True)
class Excerpt:
    """The part of a file to separate, and its name."""

    salvage: Salvage = False
    start: Start = ""
    length: Length = ""
    song: Song = ""


@dataclass(frozen=True)
class Compute:
    """Device and precision to compute with."""

    device: Device = None
    precision: Precision = None

    def settings(self) -> Settings:
        """Return the settings from the environment, overridden by these options."""
        from tsbs_daw.core.config import Settings

        settings = Settings.from_environment()
        precision = self.precision.value if self.precision else settings.precision
        return replace(settings, device=self.device or settings.device, precision=precision)


@dataclass(frozen=True)
class Sharing:
    """Number of songs to separate at the same time, and the cluster to compute on."""

    at_once: AtOnce = None
    cluster: Cluster = None
    cluster_fallback: ClusterFallback = FallbackName.local

    def settings(self, settings: Settings) -> Settings:
        """Return the settings with the cluster's address.

        Raises:
            UsageError: The address is invalid, or Ray is not installed.
            SettingsError: `cluster.yaml` is invalid.
        """
        if self.cluster is None:
            return settings
        from tsbs_daw.cluster import check_address, read_paths

        read_paths(settings.home)
        return replace(settings, cluster=check_address(self.cluster), cluster_fallback=self.cluster_fallback.value)

    @property
    def songs_at_once(self) -> int:
        """Number of songs; 0 for the device's default. On a cluster, several: some are decoded or written meanwhile."""
        return self.at_once or (SONGS_ON_A_CLUSTER if self.cluster else 0)


@dataclass(frozen=True)
class Changes:
    """Options that override the preset's `delivery:` for one run."""

    form: Format = None
    loudness: Loudness = None
    sessions: Sessions = None
    loops: Loops = None
    stem_mp4: StemMp4 = None
    names: Names = None
    stems: Stems = None
    two_stems: TwoStems = None
    residual: Residual = None
    quality: Quality = None

    def options(self) -> DeliveryOptions | None:
        """Return the delivery options that were given; None if none were. Raises `UsageError` if one is invalid."""
        from pydantic import ValidationError

        from tsbs_daw.presets.delivery import DeliveryOptions

        given: dict[str, Any] = {
            "format": self.form and self.form.value,
            "loudness_lufs": self.loudness,
            "sessions": _parts(self.sessions),
            "loops": _parts(self.loops),
            "stem_mp4": self.stem_mp4,
            "names": self.names,
            "stems": self._stems(),
            "residual": self.residual and self.residual.value,
            "quality": self.quality and self.quality.value,
        }
        given = {name: value for name, value in given.items() if value is not None}
        try:
            return DeliveryOptions(**given) if given else None
        except ValidationError as error:
            raise invalid_option(error) from error

    def _stems(self) -> tuple[str, ...] | None:
        """Combine --stems and --two-stems. Raises `UsageError` if both were given."""
        if self.two_stems is None:
            return _parts(self.stems)
        if self.stems is not None:
            raise UsageError("--two-stems and --stems exclude each other. Use one of them.")
        return (self.two_stems, REST)


def invalid_option(error: ValidationError) -> UsageError:
    """Convert the error of a rejected field to one that names the option."""
    problem = first_problem(error)
    name = str(problem.steps[0]).removesuffix("_lufs").replace("_", "-")
    return UsageError(f"Invalid --{name}: {problem.requirement}.")


def _parts(text: str | None) -> tuple[str, ...] | None:
    """Split a list: `4,8` is ("4", "8"), `none` is (); None if the option was not given."""
    if text is None or text.strip() == NONE:
        return None if text is None else ()
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


def name_or_path(text: str, endings: tuple[str, ...]) -> str:
    """Return a name unchanged, and anything that looks like a file as an absolute path."""
    looks_like_a_file = text.lower().endswith(endings) or "/" in text or "\\" in text
    return str(absolute(Path(text))) if looks_like_a_file else text


def models(text: str) -> str:
    """Make the paths in a value of --model absolute."""
    from tsbs_daw.models.registry import members

    return ",".join(name_or_path(name, (".safetensors",)) for name in members(text))


def absolute(path: Path) -> Path:
    """Make a path absolute, with `~` expanded."""
    return path.expanduser().absolute()


def output_folder(out: Path) -> Path:
    """Make --out absolute, and check before any work that it can be written to. Raises `UsageError` if not."""
    from tsbs_daw.core.files import folder_problem

    path = absolute(out)
    if problem := folder_problem(path):
        raise UsageError(f"Invalid --out: {problem}.")
    return path
