"""`tsbs-daw models`: list, download and convert models."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.cli.console import AsJson, StopOnSignal, print_json

if TYPE_CHECKING:
    from tsbs_daw.core.config import Settings
    from tsbs_daw.models.registry import Entry

app = typer.Typer(no_args_is_help=True, help="List, download and convert models.")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the known models: stems, size, licence, quality, and what each needs here.

    The speed is in multiples of real time, as last measured on this machine; with ~, it is an estimate from the speed
    of the bundled model.

    Example: tsbs-daw models list
    """
    from tsbs_daw.models.registry import list_models

    entries = list_models(_settings())
    if as_json:
        print_json([_facts(entry) for entry in entries])
        return
    rows = [_HEAD, *(_row(entry) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    typer.echo("\n`tsbs-daw models show NAME` shows the full licence, its source, and the songs of the SDR;")
    typer.echo("figures measured on different songs are not comparable.")


_HEAD = ("model", "state", "network", "stems", "size", "SDR", "speed", "memory", "licence")


def _row(entry: Entry) -> tuple[str, ...]:
    facts = _facts(entry)
    sdr = facts.get("sdr_db") or {}
    mean = sdr.get("mean", next(iter(sdr.values())) if len(sdr) == 1 else None)
    size = facts.get("bytes") or facts.get("download_bytes")
    return (
        entry.name,
        entry.state,
        facts.get("kind", ""),
        ",".join(facts.get("stems", ())),
        f"{size / 1e6:,.0f} MB" if size else "",
        "" if mean is None else f"{mean:.2f} dB",
        _speed(facts),
        f"{facts['memory_bytes'] / 1e9:.1f} GB" if facts.get("memory_bytes") else "",
        _short(facts.get("licence", "")),
    )


def _speed(facts: dict[str, Any]) -> str:
    """Format the measured speed or, if there is none, the expected one."""
    if measured := facts.get("times_real_time"):
        return f"{measured:.1f}x"
    expected = facts.get("expected_times_real_time")
    return f"~{expected:.1g}x" if expected else ""


def _short(licence: str) -> str:
    """Truncate a licence to 40 characters."""
    return licence if len(licence) <= 40 else f"{licence[:39].rstrip()}…"


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="Model: a name or a .safetensors file.")], as_json: AsJson = False
) -> None:
    """Show a model's stems, size, licence, source and quality.

    Example: tsbs-daw models show musdb18
    """
    from tsbs_daw.models.registry import find

    facts = _facts(find(model, _settings()))
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        if value not in (None, "", {}, []):
            typer.echo(f"{key.replace('_', ' '):<15} {_plain(value)}")


@app.command()
def pull(
    model: Annotated[
        str, typer.Argument(help="Name of a known model, such as htdemucs, or a YAML file that describes one.")
    ] = "musdb18",
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licence of a model that asks for it.")
    ] = False,
) -> None:
    """Download a known model, verify it and convert it.

    An interrupted download resumes where it stopped. Nothing else ever downloads a model.

    Example: tsbs-daw models pull musdb18
    """
    from tsbs_daw.models.pull import pull as pull_model
    from tsbs_daw.models.registry import find

    with _progress(f"Downloading {model}") as progress:
        path = pull_model(model, _settings(), accept_licence=accept_licence, progress=progress)
    entry = find(path.stem, _settings())
    if entry.known and entry.known.url:
        typer.echo(f"Licence: {entry.known.licence} ({entry.known.licence_source or 'no source is stated'})")
        if entry.known.sha256 is None:
            typer.echo("No SHA-256 is published for this file. It was recorded now, to verify later downloads.")
    typer.echo(f"{path.stem} is ready: {path}")


@app.command()
def convert(
    checkpoint: Annotated[
        Path, typer.Argument(help="Published checkpoint: .ckpt, .pt, .pth, .th, or another program's .safetensors.")
    ],
    output: Annotated[
        str,
        typer.Argument(help="A .safetensors file to write, or a name for it among your models."),
    ],
    config: Annotated[
        str,
        typer.Option(
            help="Network size: `full`, `lite`, `tiny`, or `auto` to read it from the weights; or the model's YAML "
            "config, as Music-Source-Separation-Training publishes it."
        ),
    ] = "auto",
    network: Annotated[
        str, typer.Option(help="Kind of network: `ts-bs-mamba2`, `htdemucs`, `bs-roformer`, `mel-band-roformer`.")
    ] = "",
    stems: Annotated[
        str | None,
        typer.Option(
            help="Names of the stems in the checkpoint's order, separated by commas. "
            "Default: those of the config, or drums,bass,other,vocals."
        ),
    ] = None,
    normalised: Annotated[
        bool,
        typer.Option(
            "--normalised",
            help="The weights expect chunks of zero mean and unit deviation (`training: normalize: true`).",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert a published checkpoint to safetensors.

    A pickle is read in a separate process with a restricted reader, so that no code in it runs.

    Example: tsbs-daw models convert model_bs_mamba2.ckpt mine --stems drums,bass,other,vocals
    """
    from tsbs_daw.models.convert import convert_into
    from tsbs_daw.models.registry import find

    options: dict[str, Any] = {"config": config, "network": network, "overwrite": overwrite}
    if stems is not None:
        options["stems"] = tuple(name.strip() for name in stems.split(",") if name.strip())
    if normalised:
        options["values"] = {"standardised": True}
    path = convert_into(checkpoint, output, _settings(), **options)
    if as_json:
        print_json(_facts(find(str(path), _settings())))
    else:
        typer.echo(f"Wrote {path}.")


@app.command()
def teach(
    name: Annotated[str, typer.Argument(help="Name of the new model.")],
    teacher: Annotated[str, typer.Option("--from", help="Model that teaches: a name or a .safetensors file.")],
    songs: Annotated[Path, typer.Option(help="Folder of songs, in any audio format; subfolders are included.")],
    student: Annotated[str, typer.Option(help="Model to start from. The new one has its size and speed.")] = "default",
    minutes: Annotated[float, typer.Option(min=0.0, help="Minutes of training after the songs are separated.")] = 480.0,
    work: Annotated[
        Path | None, typer.Option(help="Folder for the stems and the run. Default: beside your models.")
    ] = None,
    device: Annotated[str, typer.Option(help="Device to train on: `auto`, `cpu`, `cuda` or `mps`.")] = "auto",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Override a setting of the recipe: optimiser.batch=2.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model of this name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Teach a fast model to separate your songs like a slow one.

    Some songs are kept back to measure the result on. An interrupted run resumes where it stopped.

    Example: tsbs-daw models teach studio --from htdemucs --songs ~/Music/mixes
    """
    from dataclasses import asdict

    from tsbs_daw.lab.training.teach import Lesson
    from tsbs_daw.lab.training.teach import teach as teach_model

    lesson = Lesson(name, teacher, songs, student, minutes, work, device, tuple(changes or ()), overwrite)
    taught = teach_model(lesson, _settings(), StopOnSignal(), lambda line: typer.echo(line, err=True))
    if taught is None:
        typer.echo("Stopped. Rerun the command to resume.", err=True)
        raise typer.Exit(130)
    if as_json:
        print_json({**asdict(taught), "path": str(taught.path)})
        return
    typer.echo(f"{name} is ready: {taught.path}")
    typer.echo(f"SDR of the teacher's stems on {len(taught.kept_back)} songs that were kept back:")
    for stem, after in taught.after_db.items():
        typer.echo(f"  {stem:<8} {taught.before_db[stem]:6.2f} dB before, {after:6.2f} dB now")
    ratio = taught.seconds["teacher"] / max(taught.seconds["student"], 1e-9)
    typer.echo(f"{name} is {ratio:.1f} times as fast as {teacher}.")


@app.command()
def path(model: Annotated[str, typer.Argument(help="Model: a name or a .safetensors file.")] = "default") -> None:
    """Print the path of a model's file.

    Example: tsbs-daw models path default
    """
    from tsbs_daw.models.registry import resolve

    typer.echo(resolve(model, _settings()))


def _settings() -> Settings:
    from tsbs_daw.core.config import Settings

    return Settings.from_environment()


def _facts(entry: Entry) -> dict[str, Any]:
    """Collect everything known about a model, for text and JSON."""
    from tsbs_daw.models.kinds import KINDS
    from tsbs_daw.models.registry import expected_speed, speed_here

    facts: dict[str, Any] = {"name": entry.name, "state": entry.state, "file": str(entry.path) if entry.path else None}
    if entry.known:
        facts |= {
            "description": entry.known.description,
            "kind": KINDS[entry.known.network].title,
            "stems": list(entry.known.stems),
            "licence": entry.known.licence,
            "licence_source": entry.known.licence_source,
            "source": entry.known.url,
            "sha256": entry.known.sha256,
            "download_bytes": entry.known.size_bytes or None,
            "sdr_db": entry.known.sdr_db,
            "measured_on": entry.known.measured_on,
            "memory_bytes": entry.known.memory_bytes or None,
            "expected_times_real_time": expected_speed(entry.known, _settings()),
        }
    if entry.path:
        facts |= {"times_real_time": speed_here(entry.path, _settings())}
        facts |= _facts_of_file(entry.path)
    return facts


def _facts_of_file(path: Path) -> dict[str, Any]:
    """Collect what the file records: the network's shape, and notes in its metadata."""
    from tsbs_daw.models.kinds import kind_of, read_config
    from tsbs_daw.network.checkpoint import KIND, read_metadata

    config = read_config(path)
    notes = {key: value for key, value in read_metadata(path).items() if key not in ("config", "format", "name", KIND)}
    return {
        "bytes": path.stat().st_size,
        "kind": kind_of(path).title,
        "stems": list(config.stems),
        "sample_rate": config.sample_rate,
        "network": config.describe(),
        **notes,
    }


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {number:.2f}" for key, number in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a download's progress: a bar in a terminal, a line for every tenth in a pipe."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(label), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            line = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(line, completed=done, total=total)
        return
    said = -1

    def say(done: int, total: int | None) -> None:
        nonlocal said
        tenth = 10 * done // total if total else 0
        if tenth > said:
            said = tenth
            typer.echo(f"{label}: {done / 1e6:.1f} MB" + (f" of {total / 1e6:.1f} MB" if total else ""), err=True)

    yield say
