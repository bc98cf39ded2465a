"""`tsbs-daw doctor`: check this installation, and say how to fix each problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tsbs_daw.cli.console import AsJson, counted, print_json

if TYPE_CHECKING:
    from tsbs_daw.doctor import Finding

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
            _show(finding)
    report = Report(tuple(found))
    if as_json:
        print_json(report.to_dict())
    else:
        problems = sum(finding.status == "problem" for finding in found)
        typer.echo(
            "Everything that is needed works." if report.ok else f"Found {counted(problems, 'problem')}; see above."
        )
    return 0 if report.ok else 1


def _show(finding: Finding) -> None:
    typer.echo(f"{_MARKS[finding.status.value]} {finding.topic:<9} {finding.what}")
    if finding.advice:
        typer.echo(f"{'':19}-> {finding.advice}")
