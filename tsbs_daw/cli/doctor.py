"""`tsbs-daw doctor`: check the installation. `bench`: measure its speed. `cluster`: show the machines of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.cli.console import AsJson, counted, print_json, table

if TYPE_CHECKING:
    from tsbs_daw.doctor import Finding
    from tsbs_daw.lab.bench.groups import Row

_MARKS = {"ok": "ok      ", "note": "note    ", "problem": "PROBLEM "}


def command(
    model: Annotated[
        str, typer.Option(help="Model to run the test job with: a name or a .safetensors file.")
    ] = "default",
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Also have every node of this Ray cluster compute a chunk: `auto` or HOST:PORT."
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Check this installation, and say how to fix each problem.

    Runs a real computation on the device that will be used, and separates one second of audio. The exit code is 0 if
    everything that is needed works, else 1.

    Example: tsbs-daw doctor
    """
    from tsbs_daw.cluster import check_address
    from tsbs_daw.core.config import Settings
    from tsbs_daw.doctor import Report, examine

    found = []
    address = None if cluster is None else check_address(cluster)
    for finding in examine(Settings.from_environment(), model, address):
        found.append(finding)
        if not as_json:
            _show_finding(finding)
    report = Report(tuple(found))
    if as_json:
        print_json(report.to_dict())
    else:
        problems = sum(finding.status == "problem" for finding in found)
        typer.echo(
            "Everything that is needed works." if report.ok else f"Found {counted(problems, 'problem')}; see above."
        )
    return 0 if report.ok else 1


def _show_finding(finding: Finding) -> None:
    typer.echo(f"{_MARKS[finding.status.value]} {finding.topic:<9} {finding.what}")
    if finding.advice:
        typer.echo(f"{'':19}-> {finding.advice}")


# ---- bench -----------------------------------------------------------------------------------------------------------


def bench(
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
        typer.echo(_bench_line("row", "figure", "", "target", "", "ratio", "what"))
    for row in measure(chosen):
        rows.append(row)
        if not as_json:
            typer.echo(_bench_row(row))
    if as_json:
        print_json(_bench_report(chosen, rows))
    return 1 if any(row.ok is False for row in rows) and not quick else 0


def _bench_line(name: str, figure: str, unit: str, target: str, ok: str, ratio: str, what: str) -> str:
    return f"{name:<32} {figure:>9} {unit:<11} {target:>8}  {ok:<4} {ratio:>6}  {what}"


def _bench_row(row: Row) -> str:
    ok = {True: "ok", False: "MISS", None: ""}[row.ok]
    target = "" if row.target is None else f"{'>=' if row.larger_is_better else '<='} {row.target:g}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    figure = "-" if row.figure is None else f"{row.figure:.2f}" if row.figure >= 0.01 else f"{row.figure:.2g}"
    return _bench_line(row.name, figure, row.unit, target, ok, ratio, row.what)


def _bench_report(chosen: Any, rows: list[Row]) -> dict[str, Any]:
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


# ---- cluster ---------------------------------------------------------------------------------------------------------

cluster = typer.Typer()


@cluster.callback()
def _cluster() -> None:
    """Show the machines that compute for `--cluster`."""


@cluster.command("status")
def cluster_status(
    address: Annotated[
        str, typer.Option(help="Head of the Ray cluster: `auto` for the one this machine belongs to, or HOST:PORT.")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Show nodes, cards, models, songs and speed.

    Models, songs and speed are those of the daemons that use the cluster now. The speed is seconds of sound per second,
    over the last minute.

    Example: tsbs-daw cluster status --address 10.0.0.1:6379
    """
    from tsbs_daw.cluster import check_address
    from tsbs_daw.cluster.status import ask

    found = ask(check_address(address, "--address"))
    if as_json:
        print_json({"schema": 1, **found})
        return
    typer.echo(table(("node", "cards", "cores", "program", "models", "songs", "chunks", "speed"), _cluster_rows(found)))
    if not any(node["actors"] for node in found["nodes"]):
        typer.echo("No daemon uses the cluster now; `tsbs-daw watch --cluster` starts one.", err=True)


def _cluster_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Format one row for each node, and one for each of its actors."""
    rows: list[tuple[str, ...]] = []
    for node in found["nodes"]:
        gone = "" if node["alive"] else " (gone)"
        cards = f"{node['gpus']} {node['card']}".strip() if node["gpus"] else "-"
        rows.append((f"{node['name']} {node['address']}{gone}", cards, str(node["cpus"]), "", "", "", "", ""))
        for actor in node["actors"]:
            if "error" in actor:
                rows.append((f"  {actor['share']}", "", "", actor["error"], "", "", "", ""))
                continue
            models = ", ".join(sha256[:12] for sha256 in actor["models"]) or "-"
            busy = str(actor["songs"]), str(actor["chunks"]), f"{actor['speed']:.1f}x"
            rows.append((f"  {actor['share']}", actor["device"], "", actor["version"], models, *busy))
    return rows
