"""`tsbs-daw train`: run a recipe, and export what a run gave."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer


def command(
    recipe: Annotated[str, typer.Argument(help="A recipe of the package (tiny-bundled, ...) or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: weights, state, curve.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of songs: song/vocals.wav ..., or train/ and valid/ with songs. May be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Train for this long; the learning rate falls to its end by then.")
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop cleanly after this long.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(help="How many devices (on a CPU: processes) train as one.")] = 1,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Leave broken songs out.")] = False,
    init: Annotated[str | None, typer.Option(help="Begin from a model's weights: a name or a file.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: optimiser.batch=2.")] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Write the best weights in half precision, whenever they improve; without --data, do only that."
        ),
    ] = None,
    calibrate_on: Annotated[
        Path | None,
        typer.Option(help="With --export: a folder of songs not trained on, to fit how much the map stage may add."),
    ] = None,
    keep: Annotated[
        float, typer.Option(min=0, max=1, help="With --export and --init: the share of those first weights to keep.")
    ] = 0.0,
) -> None:
    """Train a model on songs whose stems are known.

    Example: tsbs-daw train bundled --data songs --out runs/next --minutes 600
    """
    from tsbs_daw.core.errors import UsageError
    from tsbs_daw.lab.training.recipe import load_recipe

    if data is None and export is None:
        raise UsageError("Nothing to do: give --data to train, or --export to write the weights of the run in --out.")
    if keep and (init is None or export is None):
        raise UsageError("--keep is a share of the weights of --init in what --export writes; give both.")
    settings = load_recipe(recipe, changes or [])
    begin_from = _resolved(init)
    if data is not None:
        from tsbs_daw.lab.training.trainer import RunOptions, train

        options = RunOptions(
            tuple(data), out, resume, max_minutes, device, devices, skip_broken, begin_from, minutes, export
        )
        progress = train(settings, options, _StopOnSignal(), _print_row)
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return  # several processes run this very command; the first one speaks and exports for all
        typer.echo(f"{progress.step} steps are done; the run is in {out}")
        if progress.best_sdr_db is None:
            typer.echo("No best.safetensors yet: it stopped before its first validation; go on with --resume.")
    if export is not None:
        from tsbs_daw.lab.training.export import export_best

        size = export_best(out, export, calibrate_on, init=begin_from, keep=keep)
        typer.echo(f"wrote {export}, {size / 1e6:.2f} MB")


def _resolved(model: str | None) -> Path | None:
    from tsbs_daw.models.registry import resolve

    return None if model is None else resolve(model)


def _print_row(row: dict) -> None:
    """One line of progress."""
    if row["kind"] == "step":
        typer.echo(f"step {row['step']}  loss {row['loss']:.4f}  {row['step_s']:.2f} s a step")
        return
    stems = "  ".join(
        f"{stem} {value:.2f} (mask {row['mask_sdr_db'][stem]:.2f}, mixture {row['mixture_sdr_db'][stem]:.2f})"
        for stem, value in row["sdr_db"].items()
    )
    typer.echo(f"step {row['step']}  validation SDR {row['mean_sdr_db']:.2f} dB: {stems}")


class _StopOnSignal:
    """True after the first SIGINT or SIGTERM; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, _frame) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __call__(self) -> bool:
        return self.asked
