"""`tsbs-daw bench`: measure speed and memory on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.cli.json_output import AsJson, say_json

if TYPE_CHECKING:
    from tsbs_daw.lab.bench.row import Row


def command(
    model: Annotated[str, typer.Option(help="A model's name or file.")] = "default",
    preset: Annotated[str, typer.Option(help="An effect preset; `none` is stems only.")] = "none",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    seconds: Annotated[float, typer.Option(help="Length of the song that is timed.", min=1.0)] = 60.0,
    only: Annotated[list[str] | None, typer.Option(help="A row or a group of rows; may be repeated.")] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Everything, peers and growth too: an hour or more.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny lengths: shows that it runs, not how fast.")] = False,
    as_json: AsJson = False,
) -> int:
    """Measure speed and memory on this machine, each figure beside its target.

    Takes some minutes. Exit code 1 if a target is missed (not with --quick).

    Example: tsbs-daw bench --only separate --only memory.long
    """
    from tsbs_daw.lab.bench.measure import measure
    from tsbs_daw.lab.bench.row import Options

    options = Options(model, preset, device, seconds, quick, tuple(only or ()), complete)
    rows = []
    if not as_json:
        typer.echo(_line("row", "figure", "", "target", "", "ratio", "what"))
    for row in measure(options):
        rows.append(row)
        if not as_json:
            typer.echo(_text(row))
    if as_json:
        say_json(_report(options, rows))
    return 1 if any(row.ok is False for row in rows) and not quick else 0


def _line(name: str, figure: str, unit: str, target: str, ok: str, ratio: str, what: str) -> str:
    return f"{name:<32} {figure:>9} {unit:<11} {target:>8}  {ok:<4} {ratio:>6}  {what}"


def _text(row: Row) -> str:
    ok = {True: "ok", False: "MISS", None: ""}[row.ok]
    target = "" if row.target is None else f"{'>=' if row.larger_is_better else '<='} {row.target:g}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return _line(row.name, f"{row.figure:.2f}", row.unit, target, ok, ratio, row.what)


def _report(options: Any, rows: list[Row]) -> dict[str, Any]:
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
        "options": asdict(options),
        "rows": [row.to_dict() for row in rows],
    }
