"""`tsbs-daw demo`: make a song, drop it into a watch folder, let the daemon separate it, and measure the stems."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.cli import options
from tsbs_daw.cli.console import AsJson, print_json, table

if TYPE_CHECKING:
    import numpy as np

    from tsbs_daw.contracts.job import Result

SONG = "Demo Song"


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything that the demo makes.")] = Path(
        "tsbs-daw-demo"
    ),
    preset: options.Preset = "none",
    model: options.Model = "default",
    seed: Annotated[int, typer.Option(help="Seed of the song. Each number gives another song.")] = 9905,
    length_s: Annotated[float, typer.Option("--seconds", help="Length of the song, in seconds.")] = 20.0,
    as_json: AsJson = False,
) -> int:
    """Make a short song, separate it and show the result.

    The song is synthesized, so that its true stems are known and the separation can be measured. It is dropped into a
    watch folder, and the same daemon that `tsbs-daw watch` runs does the rest.

    Example: tsbs-daw demo --out tsbs-daw-demo
    """
    folder = out.expanduser().absolute()
    preset, model = (
        options.name_or_path(preset, (".yaml", ".yml")),
        _model_file(options.name_or_path(model, (".safetensors",))),
    )
    _say(f"Composing a song of {length_s:g} s ...")
    targets = _drop_song(folder, seed, length_s)
    _say(f"Dropped it into {folder / 'drop'}. Starting the daemon ...")
    result = _watch_once(folder, preset, model)
    if result is None or result.folder is None:
        return 1
    facts = _facts(folder, result, targets)
    if as_json:
        print_json(facts)
    else:
        typer.echo(_report(facts))
    return 0


def _model_file(model: str) -> str:
    """Resolve a model's name to its file, because the demo's daemon has its own home without the user's models."""
    if model == "default":
        return model
    from tsbs_daw.core.config import Settings
    from tsbs_daw.models.registry import resolve

    return str(resolve(model, Settings.from_environment()))


def _drop_song(folder: Path, seed: int, length_s: float) -> dict[str, np.ndarray]:
    """Write the true stems to originals/ and the mixture to drop/, and return the stems, (2, samples) each."""
    from tsbs_daw.audio.writer import AudioWriter
    from tsbs_daw.core.errors import OutputError
    from tsbs_daw.lab.songs import compose_demo

    stems, sample_rate = compose_demo(seed, length_s)
    try:
        for name in ("drop", "originals"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot create {folder} ({error.strerror}). Choose another folder with --out.") from error
    files = {folder / "originals" / f"{name}.wav": audio for name, audio in stems.items()}
    files[folder / "drop" / f"{SONG}.wav"] = _mix(stems)
    for path, audio in files.items():
        with AudioWriter(path, sample_rate, audio.shape[0]) as writer:
            writer.write(audio)
    return stems


def _watch_once(folder: Path, preset: str, model: str) -> Result | None:
    """Run the daemon as a user would, with a home of its own. None if it failed, which is reported."""
    from tsbs_daw.contracts.job import Result
    from tsbs_daw.core.config import Settings
    from tsbs_daw.queue.spool import Spool

    home = folder / ".home"
    shutil.rmtree(home, ignore_errors=True)
    arguments = ["watch", folder / "drop", "--out", folder / "stems", "--preset", preset, "--model", model, "--once"]
    presets = Settings.from_environment().presets
    environment = {**os.environ, "TSBS_DAW_HOME": str(home), "TSBS_DAW_PRESETS": str(presets)}
    # The child's output goes to stderr as progress; stdout is for the demo's own result.
    command_line = [sys.executable, "-m", "tsbs_daw", *map(str, arguments)]
    code = subprocess.run(command_line, env=environment, stdout=sys.stderr, check=False).returncode
    results = [done / "result.json" for done in Spool(Settings(home, home, home).spool).finished_folders()]
    if code or not results:
        _say(f"The daemon failed. Its logs are in {home / 'logs'}.")
        return None
    result = Result.from_json(results[-1].read_bytes(), str(results[-1]))
    shutil.rmtree(home, ignore_errors=True)
    return result


def _facts(folder: Path, result: Result, targets: dict[str, np.ndarray]) -> dict[str, Any]:
    """Collect the paths, and the SDR of every separated stem and, for comparison, of the mixture itself."""
    from tsbs_daw.audio.read import open_audio
    from tsbs_daw.contracts.manifest import read_manifest
    from tsbs_daw.lab.evaluation.evaluate import usdr

    assert result.folder is not None
    manifest = read_manifest(result.folder)
    mixture = _mix(targets)
    sdr_db = {}
    for stem in result.stems:
        target = targets.get(stem.name.removesuffix(" (dry)"))
        if stem.kind == "stem" and target is not None:
            with open_audio(stem.path) as reader:
                estimate = reader.read(target.shape[1])
            found = {"separated": usdr(target, estimate), "mixture": usdr(target, mixture)}
            sdr_db[stem.name] = {name: round(level, 2) for name, level in found.items()}
    return {
        "song": str(folder / "drop" / f"{SONG}.wav"),
        "originals": str(folder / "originals"),
        "stems": str(result.folder),
        "session": str(result.session),
        "sdr_db": sdr_db,
        "residual_db": manifest.residual_db if manifest else None,
    }


def _report(facts: dict[str, Any]) -> str:
    rows = [
        [stem, f"{levels['separated']:6.2f} dB", f"{levels['mixture']:6.2f} dB"]
        for stem, levels in facts["sdr_db"].items()
    ]
    return "\n".join(
        [
            "",
            table(["STEM", "SDR", "SDR OF THE MIXTURE"], rows),
            "",
            f"Stems:     {facts['stems']}",
            f"Session:   {facts['session']} (opens in REAPER)",
            f"Originals: {facts['originals']}",
        ]
    )


def _mix(stems: dict[str, np.ndarray]) -> np.ndarray:
    """Sum the stems."""
    first, *others = stems.values()
    return sum(others, first)


def _say(line: str) -> None:
    typer.echo(line, err=True)
