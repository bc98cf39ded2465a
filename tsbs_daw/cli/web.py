"""`tsbs-daw web`: serve the page with the queue, the songs, watch folders and models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tsbs_daw.cli import options


def command(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Output folder for the stems of files that are dropped onto the page.")
    ] = Path(options.DEFAULT_OUT),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any that is free.", min=0, max=65535)] = 8765,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Further host name that the page is opened under. Needed beyond loopback. May be repeated."),
    ] = None,
    most_gb: Annotated[float, typer.Option(help="Largest file that can be dropped, in GB.", min=0.001)] = 4.0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the default browser.")] = False,
    link: Annotated[bool, typer.Option("--link", help="Print a new link to the page that runs already.")] = False,
    new_token: Annotated[bool, typer.Option("--new-token", help="Make a new token: sign out every browser.")] = False,
    lifeline: Annotated[
        bool, typer.Option("--lifeline", hidden=True, help="Stop when standard input is closed.")
    ] = False,
) -> None:
    """Serve a page that shows the queue and plays the stems.

    Prints a link that can be used once, within ten minutes; the browser then stays signed in. The page can be opened
    from this machine only. Press Ctrl-C to stop; the jobs go on.

    Example: tsbs-daw web --open
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.web.app import Options
    from tsbs_daw.web.server import Address, link_to_running, page_server

    settings = Settings.from_environment()
    if link:
        typer.echo(link_to_running(settings.home))
        return
    chosen = Options(settings, options.absolute(out), int(most_gb * 1e9))
    with page_server(settings, Address(host, port, tuple(name or ())), chosen, renew=new_token) as server:
        _greet(server.access.link(), host, open_browser=open_browser)
        if lifeline:
            server.stop_with(sys.stdin.buffer)
        server.run()


def _greet(url: str, host: str, *, open_browser: bool) -> None:
    print(f"Open {url}", flush=True)
    print("The link works once, within ten minutes; `tsbs-daw web --link` prints another.", file=sys.stderr)
    if host not in ("127.0.0.1", "localhost", "::1"):
        print(
            "Other machines can reach this page, unencrypted. An SSH tunnel or a TLS proxy is safer.", file=sys.stderr
        )
    print("Press Ctrl-C to stop. The jobs go on.", file=sys.stderr, flush=True)
    if open_browser:
        import webbrowser

        webbrowser.open(url)


@contextmanager
def beside_daemon(out: Path | None, *, wanted: bool) -> Iterator[None]:
    """The page in a process of its own, which ends with this one: what harms it does not harm the daemon."""
    if not wanted:
        yield
        return
    import starlette  # noqa: F401 -- says now that the extra is missing, in one sentence

    place = ["--out", str(options.absolute(out))] if out else []
    child = subprocess.Popen(
        [sys.executable, "-m", "tsbs_daw", "web", "--lifeline", *place],
        stdin=subprocess.PIPE,
        stdout=sys.stderr,
        start_new_session=True,  # Ctrl-C is for the daemon, which then ends it
    )
    try:
        yield
    finally:
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
