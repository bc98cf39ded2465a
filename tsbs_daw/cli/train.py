"""`tsbs-daw train`: run a training recipe, and export the weights of a run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer


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
        typer.Option(min=0, help="Minutes to train for. The learning rate falls to its end by then."),
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
            help="File to write the best weights to, in half precision, whenever they improve. Without --data, once."
        ),
    ] = None,
    calibrate_on: Annotated[
        Path | None,
        typer.Option(help="Folder of songs not used for training, to calibrate the map stage on. Needs --export."),
    ] = None,
    keep: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the first weights to keep, 0 to 1. Needs --export and --init.")
    ] = 0.0,
) -> None:
    """Train a model on songs whose true stems are known.

    Example: tsbs-daw train bundled --data songs --out runs/next --minutes 600
    """
    from tsbs_daw.core.errors import UsageError
    from tsbs_daw.lab.training.recipe import load_recipe

    if data is None and export is None:
        raise UsageError("Nothing to do. Use --data to train, or --export to write the weights of the run in --out.")
    if keep and (init is None or export is None):
        raise UsageError("--keep needs both --init and --export.")
    settings = load_recipe(recipe, changes or [])
    begin_from = _resolved(init)
    if data is not None:
        from tsbs_daw.lab.training.trainer import RunOptions, train

        options = RunOptions(
            tuple(data), out, resume, max_minutes, device, devices, skip_broken, begin_from, minutes, export
        )
        progress = train(settings, options, StopOnSignal(), _print_row)
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return  # several processes run this very command; the first one speaks and exports for all
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
    """One line of progress."""
    if row["kind"] == "step":
        typer.echo(f"step {row['step']}  loss {row['loss']:.4f}  {row['step_s']:.2f} s a step")
        return
    stems = "  ".join(
        f"{stem} {value:.2f} (mask {row['mask_sdr_db'][stem]:.2f}, mixture {row['mixture_sdr_db'][stem]:.2f})"
        for stem, value in row["sdr_db"].items()
    )
    typer.echo(f"step {row['step']}  validation SDR {row['mean_sdr_db']:.2f} dB: {stems}")


class StopOnSignal:
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
