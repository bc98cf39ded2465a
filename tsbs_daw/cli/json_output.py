"""Answers that scripts and people ask several commands for: one JSON document, and whether a daemon is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tsbs_daw.contracts.job import Heartbeat

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


def say_json(document: Any) -> None:
    """On stdout, indented."""
    typer.echo(json.dumps(document, indent=2))


def about_the_daemon(alive: Heartbeat | None) -> str:
    """One sentence. alive: as `living_daemon` finds it"""
    if alive is None:
        return "No daemon is running: `tsbs-daw watch` is one."
    return f"A daemon (process {alive.pid}) is at work."
