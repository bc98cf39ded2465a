"""`tsbs-daw cluster`: show the machines that compute."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tsbs_daw.cli.console import AsJson, print_json, table

app = typer.Typer()


@app.callback()
def group() -> None:
    """Show the machines that compute for `--cluster`."""


@app.command()
def status(
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
    typer.echo(table(("node", "cards", "cores", "program", "models", "songs", "chunks", "speed"), _rows(found)))
    if not any(node["actors"] for node in found["nodes"]):
        typer.echo("No daemon uses the cluster now; `tsbs-daw watch --cluster` starts one.", err=True)


def _rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line for each node, and one for each of its actors."""
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
