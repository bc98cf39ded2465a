"""`tsbs-daw bench`: measure speed and memory on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.cli.console import AsJson, print_json

if TYPE_CHECKING:
    from tsbs_daw.lab.bench.groups import Row


def command(
    model: Annotated[str, typer.Option(help="Model: a name or a .safetensors file.")] = "default",
    preset: Annotated[
        str, typer.Option(help="Effect preset: a name or a YAML file. `none` delivers stems only.")
    ] = "none",
    device: Annotated[
        str, typer.Option(help="Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.")
    ] = "auto",
    seconds: Annotated[float, typer.Option(help="Length of the song to time, in seconds.", min=1.0)] = 60.0,
    only: Annotated[
        list[str] | None, typer.Option(help="Measure only this row or group of rows. May be repeated.")
    ] = None,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete",
            help="Also measure other networks, the paper's sizes and how cost grows. Takes an hour or more.",
        ),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Use tiny lengths, to check only that it runs.")] = False,
    as_json: AsJson = False,
) -> int:
    """Measure speed and memory on this machine, and compare each figure with its target.

    Takes a few minutes. The exit code is 1 if a target is missed (never with --quick).

    Example: tsbs-daw bench --only separate --only memory.long
    """
    from tsbs_daw.lab.bench.groups import Options
    from tsbs_daw.lab.bench.measure import measure

    chosen = Options(model, preset, device, seconds, quick, tuple(only or ()), complete)
    rows = []
    if not as_json:
        typer.echo(_line("row", "figure", "", "target", "", "ratio", "what"))
    for row in measure(chosen):
        rows.append(row)
        if not as_json:
            typer.echo(_text(row))
    if as_json:
        print_json(_report(chosen, rows))
    return 1 if any(row.ok is False for row in rows) and not quick else 0


def _line(name: str, figure: str, unit: str, target: str, ok: str, ratio: str, what: str) -> str:
    return f"{name:<32} {figure:>9} {unit:<11} {target:>8}  {ok:<4} {ratio:>6}  {what}"


def _text(row: Row) -> str:
    ok = {True: "ok", False: "MISS", None: ""}[row.ok]
    target = "" if row.target is None else f"{'>=' if row.larger_is_better else '<='} {row.target:g}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return _line(row.name, f"{row.figure:.2f}", row.unit, target, ok, ratio, row.what)


def _report(chosen: Any, rows: list[Row]) -> dict[str, Any]:
    import datetime
    import importlib.metadata
    from dataclasses import asdict

    from tsbs_daw import __version__
    from tsbs_daw.core import machine

    return {
        "schema": 1,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {"tsbs-daw": __version__, **{n: importlib.metadata.version(n) for n in ("torch", "numpy")}},
        "machine": machine.describe(),
        "options": asdict(chosen),
        "rows": [row.to_dict() for row in rows],
    }
