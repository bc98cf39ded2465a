"""`tsbs-daw train`: run a recipe, or export what a run gave."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer


def command(
    recipe: Annotated[str, typer.Argument(help="A recipe of the package (tiny-bundled, ...) or a YAML file.")],
    data: Annotated[Path, typer.Option(help="Folder of songs: song/vocals.wav ..., or train/ and valid/ with songs.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: weights, state, curve.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    max_minutes: Annotated[float | None, typer.Option(help="Stop cleanly after this long.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(help="How many devices; several train as one.")] = 1,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Leave broken songs out.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: optimiser.batch=2.")] = None,
) -> None:
    """Train a model.

    Example: tsbs-daw train tiny-bundled --data songs --out runs/tiny --max-minutes 60
    """
    from tsbs_daw.training.recipe import load_recipe
    from tsbs_daw.training.trainer import RunOptions, train

    # With several devices each runs this very command again; the first one speaks for all.
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if first else logging.ERROR, format="%(asctime)s %(message)s", stream=sys.stderr
    )
    stopping = _StopOnSignal()
    options = RunOptions(data, out, resume, max_minutes, device, devices, skip_broken)
    progress = train(load_recipe(recipe, set_ or []), options, stopping)
    if not first:
        return
    best = "none yet" if progress.best_sdr_db is None else f"{progress.best_sdr_db:.2f} dB at {progress.best_step}"
    typer.echo(f"{progress.step} steps done; best validation SDR: {best}; the run is in {out}")


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


if __name__ == "__main__":
    typer.run(command)
