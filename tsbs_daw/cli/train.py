"""`tsbs-daw train`: run a training recipe, and export its weights. `tsbs-daw evaluate`: measure a model.

Both need songs whose true stems are known.
"""

from __future__ import annotations

import json
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.cli import options
from tsbs_daw.cli.console import StopOnSignal
from tsbs_daw.core.errors import UsageError

if TYPE_CHECKING:
    from tsbs_daw.separation.separator import Separator


def command(
    recipe: Annotated[str, typer.Argument(help="Recipe: a name, such as tiny-bundled, or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the run, for its weights, state and curve.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of songs (SONG/vocals.wav ...), or of train/ and valid/ with songs. May be repeated."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out.")] = False,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Minutes to train for. The learning rate reaches its final value by then."),
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop cleanly after this many minutes.")] = None,
    device: Annotated[str, typer.Option(help="Device to train on: `auto`, `cpu`, `cuda` or `mps`.")] = "auto",
    devices: Annotated[int, typer.Option(help="Number of devices to train on together (on a CPU: processes).")] = 1,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Skip broken songs instead of stopping.")] = False,
    init: Annotated[str | None, typer.Option(help="Model to start from: a name or a .safetensors file.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a setting of the recipe, as in optimiser.batch=2. May be repeated."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            help="File for the best weights, in half precision, rewritten whenever they improve. Without --data, "
            "written once."
        ),
    ] = None,
    calibrate_on: Annotated[
        Path | None,
        typer.Option(help="Folder of songs not used for training, to calibrate the map stage on. Needs --export."),
    ] = None,
    keep: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the weights of --init to keep, 0 to 1. Needs --export and --init."),
    ] = 0.0,
) -> None:
    """Train a model on songs whose true stems are known.

    Example: tsbs-daw train bundled --data songs --out runs/next --minutes 600
    """
    from tsbs_daw.lab.training.recipe import load_recipe

    if data is None and export is None:
        raise UsageError("Nothing to do. Use --data to train, or --export to write the weights of the run in --out.")
    if keep and (init is None or export is None):
        raise UsageError("--keep needs both --init and --export.")
    settings = load_recipe(recipe, changes or [])
    begin_from = _resolved(init)
    if data is not None:
        from tsbs_daw.lab.training.trainer import RunOptions, train

        run_options = RunOptions(
            tuple(data), out, resume, max_minutes, device, devices, skip_broken, begin_from, minutes, export
        )
        progress = train(settings, run_options, StopOnSignal(), _print_row)
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return  # each device has a process that runs this command; only the first one prints and exports
        typer.echo(f"Trained {progress.step} steps. The run is in {out}.")
        if progress.best_sdr_db is None:
            typer.echo("No best.safetensors yet: the run stopped before its first validation. Continue with --resume.")
    if export is not None:
        from tsbs_daw.lab.training.run_folder import export_best

        size = export_best(out, export, calibrate_on, init=begin_from, keep=keep)
        typer.echo(f"Wrote {export} ({size / 1e6:.2f} MB).")


def _resolved(model: str | None) -> Path | None:
    from tsbs_daw.core.config import Settings
    from tsbs_daw.models.registry import resolve

    return None if model is None else resolve(model, Settings.from_environment())


def _print_row(row: dict) -> None:
    """Print a line of progress."""
    if row["kind"] == "step":
        typer.echo(f"step {row['step']}  loss {row['loss']:.4f}  {row['step_s']:.2f} s a step")
        return
    stems = "  ".join(
        f"{stem} {value:.2f} (mask {row['mask_sdr_db'][stem]:.2f}, mixture {row['mixture_sdr_db'][stem]:.2f})"
        for stem, value in row["sdr_db"].items()
    )
    typer.echo(f"step {row['step']}  validation SDR {row['mean_sdr_db']:.2f} dB: {stems}")


# ---- evaluate --------------------------------------------------------------------------------------------------------


class Listening(str, Enum):
    """Values of --analysis: the audio that is analysed."""

    separated = "separated"
    true = "true"
    none = "none"


def evaluate(
    data: Annotated[
        Path, typer.Option(help="Folder of songs (SONG/vocals.wav ...), or of test/ or valid/ with songs.")
    ],
    model: Annotated[str, typer.Option(help="Model: a name or a .safetensors file.")] = "default",
    out: Annotated[Path | None, typer.Option(help="JSON file to write every measure of every song to.")] = None,
    songs: Annotated[
        int | None, typer.Option(min=1, help="Number of songs to measure, in order of name. Default: all.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help="Seconds to measure from the middle of each song. Default: the whole song."),
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Image file to write, with spectrograms of one song.")] = None,
    device: Annotated[
        str, typer.Option(help="Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.")
    ] = "auto",
    precision: Annotated[
        options.PrecisionName,
        typer.Option(help="Precision of matrix products. `auto` picks the fastest that does not reduce quality."),
    ] = options.PrecisionName.auto,
    analysis: Annotated[
        Listening | None,
        typer.Option(
            help="Measure tempo, beats and key instead, from the separated stems, the true stems, or the mixture alone."
        ),
    ] = None,
    real: Annotated[
        bool,
        typer.Option("--real", help="Score the benchmark's real songs: median SDR of active seconds, and leaks."),
    ] = False,
    compare_quality: Annotated[
        bool,
        typer.Option(
            "--compare-quality",
            help="Measure the gain and the cost of each step of `--quality`. Needs --real. With several models, "
            "their means are measured as well.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of text.")] = False,
) -> None:
    """Measure a model on songs whose true stems are known.

    Prints uSDR, cSDR and SI-SDR for each stem and both stages, beside the mixture and an ideal ratio mask.

    Example: tsbs-daw evaluate --data songs --model default --songs 20 --seconds 30 --out result.json

    Example: tsbs-daw evaluate --real --data real-songs --out real.json

    Example: tsbs-daw evaluate --real --compare-quality --data real-songs --out quality.json

    Example: tsbs-daw evaluate --data songs --analysis separated --out analysis.json
    """
    from tsbs_daw.separation.separator import Separator

    if compare_quality and not real:
        raise UsageError("--compare-quality needs --real: each step is measured on real songs.")
    separates = analysis in (None, Listening.separated)
    separator = Separator.load(model, device, precision=precision.value) if separates else None
    if analysis is not None:
        document = _measure_analysis(data, separator, analysis, songs)
        _write(document, out)
        typer.echo(json.dumps(document["summary"], indent=1))
        return
    assert separator is not None, "it is loaded unless --analysis is given"
    if compare_quality:
        document = _compare_qualities(data, separator)
        _write(document, out)
        _print_qualities(document)
        return
    if real:
        document = _measure_real(data, model, separator)
        _write(document, out)
        if as_json:
            typer.echo(json.dumps(document["summary"], indent=1))
        else:
            _print_real(document)
        return
    document = _measure_stems(data, model, separator, songs, seconds)
    _write(document, out)
    if picture is not None:
        _draw_first_song(data, separator, picture)
    if as_json:
        typer.echo(json.dumps({key: value for key, value in document.items() if key != "songs"}, indent=1))
    else:
        _print_table(document)


def _measure_stems(
    data: Path, model: str, separator: Separator, songs: int | None, seconds: float | None
) -> dict[str, Any]:
    from tsbs_daw import __version__
    from tsbs_daw.lab.evaluation.evaluate import evaluate

    def say(song: dict) -> None:
        scores = "  ".join(f"{stem} {part['full']['usdr_db']:.2f}" for stem, part in song["stems"].items())
        typer.echo(f"{song['name']}: {scores}", err=True)

    result = evaluate(data, separator, songs=songs, seconds=seconds, progress=say)
    document = {**result, "model": model, "data": str(data), "device": str(separator.device), "version": __version__}
    return document | {"precision": separator.precision}


def _measure_real(data: Path, model: str, separator: Separator) -> dict[str, Any]:
    from tsbs_daw import __version__
    from tsbs_daw.lab.evaluation.real import evaluate_real

    def report(song: dict) -> None:
        scores = [f"{stem} {part['full']['frame_sdr_db']}" for stem, part in song["scored"].items()]
        scores += [f"{stem} leaks at {level} dB" for stem, level in song["leak_db"].items()]
        typer.echo(f"{song['name']}: {', '.join(scores)}", err=True)

    result = evaluate_real(data, separator, progress=report)
    return {**result, "model": model, "version": __version__, "precision": separator.precision}


def _compare_qualities(data: Path, separator: Separator) -> dict[str, Any]:
    from tsbs_daw import __version__
    from tsbs_daw.lab.evaluation.quality import compare_qualities

    found = compare_qualities(data, separator, progress=lambda line: typer.echo(line, err=True))
    return {**found, "version": __version__, "precision": separator.precision}


def _print_qualities(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    stems = list(document["rows"][0]["won_db"])
    table = Table(title=f"Frame SDR won over normal quality on {len(document['songs'])} real songs (dB)")
    for column in ("step", "time", *stems, "mean", "least"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for row in document["rows"]:
        won = [*(row["won_db"][stem] for stem in stems), row["mean_won_db"], row["least_won_db"]]
        table.add_row(row["step"], f"{row['times_normal']:.2f} x", *(f"{value:+.2f}" for value in won))
    Console().print(table)


def _print_real(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    summary = document["summary"]
    table = Table(title=f"{document['model']} on {summary['songs']} real songs (dB; silence scores 0)")
    for column in ("stem", "songs", "frame SDR", "worst song", "SDR", "SI-SDR", "map stage adds", "loudest leak"):
        table.add_column(column, justify="left" if column == "stem" else "right")
    for stem, part in summary["stems"].items():
        full = part["full"]
        values = (full["frame_sdr_db"], part["worst_frame_sdr_db"], full["sdr_db"], full["si_sdr_db"])
        cells = ["-" if value is None else f"{value:.2f}" for value in (*values, part["map_stage_adds_db"])]
        leak = summary["leak_db"].get(stem)
        table.add_row(stem, str(part["songs"]), *cells, "-" if leak is None else f"{leak:.1f}")
    console = Console()
    console.print(table)
    console.print(f"Loudest stem against the mixture in any 0.1 s: {summary['stem_over_mixture_db']} dB")


def _measure_analysis(
    data: Path, separator: Separator | None, listening: Listening, songs: int | None
) -> dict[str, Any]:
    from tsbs_daw.lab.evaluation.analysis import evaluate_analysis

    def say(song: dict) -> None:
        tempo, key = song["tempo"], song["key"]
        typer.echo(
            f"{song['name']}: {tempo['bpm']} BPM (true {tempo['true_bpm']}), {key['key']} (true {key['true_key']}), "
            f"beats {song['beats']['f_measure']}",
            err=True,
        )

    return evaluate_analysis([data], separator, listening=listening.value, songs=songs, progress=say)


def _draw_first_song(data: Path, separator: Separator, picture: Path) -> None:
    from tsbs_daw.lab.evaluation.evaluate import draw_picture
    from tsbs_daw.lab.evaluation.songs import find_test_songs, read_song

    first = find_test_songs(data, separator.stems)[0]
    draw_picture(read_song(first, separator.stems, 10.0), separator, picture)


def _write(document: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _print_table(document: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    summary = document["summary"]
    table = Table(title=f"{document['model']} on {summary['songs']} songs of {document['data']} (dB)")
    names = {"full": "mask + map", "mask": "mask alone", "mixture": "the mixture", "oracle": "ideal ratio mask"}
    for column in ("stem", "estimate", "uSDR", "cSDR", "SI-SDR", "over the mixture"):
        table.add_column(column, justify="left" if column in ("stem", "estimate") else "right")
    for stem, part in summary["stems"].items():
        for kind, name in names.items():
            gain = part["improvement_db"].get(kind)
            scores = [part[kind][measure] for measure in ("usdr_db", "csdr_db", "si_sdr_db")]
            cells = ["" if score is None else f"{score:.2f}" for score in scores]
            table.add_row(
                stem if kind == "full" else "", name, *cells, "" if gain is None else f"{gain:+.2f}",
                end_section=kind == "oracle",
            )  # fmt: skip
    console = Console()
    console.print(table)
    over, silence = summary["stem_over_mixture_db"], document["silence"]["noise_at_minus_100_db"]
    console.print(f"Loudest stem relative to the mixture in any 0.1 s: {'-' if over is None else f'{over:+.2f} dB'}")
    console.print(f"Loudest stem of noise at -100 dBFS: {'silence' if silence is None else f'{silence:.1f} dBFS'}")
    console.print(f"Separated at {summary['times_real_time']} x real time on {document['device']}")
