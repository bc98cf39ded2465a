"""`tsbs-daw watch`: run the daemon for watch folders and submitted jobs. `tsbs-daw web`: serve the page."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.cli import options
from tsbs_daw.cli.progress import Notices, listening

if TYPE_CHECKING:
    from tsbs_daw.contracts.job import Treatment
    from tsbs_daw.core.config import Settings
    from tsbs_daw.core.locks import HeldElsewhere
    from tsbs_daw.watch.folders import WatchFolder

Folders = Annotated[list[Path] | None, typer.Argument(help="Folders to watch.", metavar="FOLDER")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Output folder. Each song gets a folder of its own in it.")
]
Config = Annotated[
    Path | None,
    typer.Option(help="YAML file that lists several folders: `folders: [{path: ..., output: ..., preset: ...}]`."),
]
Once = Annotated[bool, typer.Option("--once", help="Separate the songs that are there now, then exit.")]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON per event.")]
Notify = Annotated[
    bool, typer.Option("--notify", help="Show a desktop notification when a song is done or has failed.")
]
Web = Annotated[bool, typer.Option("--web", help="Also serve the page in the browser, and print its link.")]

After = Annotated[
    str | None,
    typer.Option(
        help="Handling of a song's file once its stems are published and verified: `keep`, `move PATH` or "
        "`delete`. Default: keep.",
        show_default=False,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(help="Separate only files that match this pattern, such as `*.wav`. May be repeated."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(help="Skip files and folders that match this pattern, such as `demos`. May be repeated."),
]
OpenHours = Annotated[
    str | None,
    typer.Option(
        help="Start songs from the folders only in these hours, local time, such as `22:00-06:00`. Songs from a DAW "
        "start at any time."
    ),
]


@dataclass(frozen=True)
class Rules:
    """Rules of the folders: which files to separate, when, and what to do with them afterwards."""

    after: After = None
    include: Include = None
    exclude: Exclude = None
    hours: OpenHours = None

    def values(self) -> dict[str, Any]:
        """Convert the options to fields of a `WatchFolder`. Raises `UsageError` if one is invalid."""
        from tsbs_daw.core.errors import UsageError
        from tsbs_daw.watch.rules import After, Hours, Patterns, check_pattern

        name = ""
        try:
            name = "after"
            after = After.parse(self.after if self.after is not None else "keep", Path.cwd())
            name = "hours"
            hours = Hours.parse(self.hours) if self.hours is not None else None
            name = "include"
            include = tuple(map(check_pattern, self.include or ()))
            name = "exclude"
            exclude = tuple(map(check_pattern, self.exclude or ()))
        except ValueError as error:
            raise UsageError(f"Invalid --{name}: {error}.") from error
        return {"after": after, "hours": hours, "patterns": Patterns(include, exclude)}


@options.grouped
def command(
    folders: Folders = None,
    *,
    out: Out = None,
    treatment: options.Treatment,
    salvage: options.Salvage = False,
    rules: Rules,
    config: Config = None,
    compute: options.Compute,
    sharing: options.Sharing,
    once: Once = False,
    as_json: Json = False,
    web: Web = False,
    notify: Notify = False,
    changes: options.Changes,
) -> int:
    """Watch folders and separate every song in them.

    Also runs jobs from `tsbs-daw submit` and the DAW; without a folder, only those. Songs in subfolders go to
    subfolders of the same name. The originals stay unchanged unless --after says otherwise. Press Ctrl-C to stop;
    unfinished songs resume at the next start.

    Example: tsbs-daw watch ~/Music/drop --out ~/Music/stems --preset karaoke
    """
    from tsbs_daw.contracts.job import State, Treatment
    from tsbs_daw.core.config import DaemonOptions
    from tsbs_daw.core.locks import running_daemon
    from tsbs_daw.daemon.daemon import Daemon
    from tsbs_daw.watch.folders import load_folders

    settings = sharing.settings(compute.settings())
    if config is not None:
        _refuse_beside_config(folders, out, treatment, salvage, changes, rules)
        chosen = load_folders(config.expanduser())
    else:
        asked = Treatment(**vars(treatment.checked()), salvage=salvage, delivery=changes.options())
        chosen = _folders(folders or [], out, asked, rules)
    _check_treatments(chosen, settings.presets)
    if not once and (owner := running_daemon(settings.home)):
        return _hand_over(owner, chosen, settings)
    daemon_options = DaemonOptions(songs_at_once=sharing.songs_at_once)
    with (
        listening(as_json=as_json) as listener,
        Notices(listener) if notify else nullcontext(listener) as notifier,
        Daemon(settings, chosen, options=daemon_options, listener=notifier, once=once) as daemon,
        beside_daemon(out, wanted=web),
    ):
        if not as_json:
            _greet(chosen, once=once)
        daemon.run()
        ended = daemon.lifecycle.ended
        incomplete = daemon.incomplete
    return 1 if once and (ended[State.FAILED] + ended[State.DEAD] or incomplete) else 0


def _hand_over(owner: HeldElsewhere, chosen: tuple[WatchFolder, ...], settings: Settings) -> int:
    """Hand the folders over to the daemon that is already running. Raises `DaemonError` if it does not take them."""
    from tsbs_daw.daemon.takeover import hand_over

    if chosen:
        hand_over(settings.home, settings.spool, chosen)
    for folder in chosen:
        typer.echo(f"The running daemon ({owner}) watches {folder.path} until it stops.")
    if chosen:
        typer.echo("To watch it permanently, add it to the daemon's YAML file. Options not about folders are ignored.")
    else:
        typer.echo(f"A daemon is already running ({owner}). It separates submitted files.")
    return 0


def _refuse_beside_config(
    folders: list[Path] | None,
    out: Path | None,
    treatment: options.Treatment,
    salvage: bool,
    changes: options.Changes,
    rules: Rules,
) -> None:
    """Refuse options that the YAML file sets for each folder. Raises `UsageError` if one was given."""
    from tsbs_daw.core.errors import UsageError

    if folders:
        raise UsageError("Use either folders or --config, not both. The folders can be listed in the file.")
    stated = (
        out is not None,
        salvage,
        treatment != options.Treatment(),
        changes != options.Changes(),
        rules != Rules(),
    )
    if any(stated):
        raise UsageError(
            "--config sets output, preset, model, delivery and rules of every folder, so these options cannot be "
            "combined with it. Write them into the file."
        )


def _folders(folders: list[Path], out: Path | None, asked: Treatment, rules: Rules) -> tuple[WatchFolder, ...]:
    """Build the watch folders from the options.

    Raises:
        UsageError: --out is missing or cannot be written to, a folder does not exist, or a rule is invalid.
    """
    from tsbs_daw.core.errors import UsageError, shown
    from tsbs_daw.watch.folders import WatchFolder

    if not folders:
        return ()
    if out is None:
        raise UsageError("--out is missing: the folder to write the stems to.")
    for folder in folders:
        if not folder.expanduser().is_dir():
            raise UsageError(f"{shown(folder)} is not a folder. Create it, or check its name.")
    output = options.output_folder(out)
    values = rules.values()
    return tuple(WatchFolder(options.absolute(folder), output, asked, **values) for folder in folders)


def _check_treatments(folders: tuple[WatchFolder, ...], presets: Path) -> None:
    """Check presets and delivery options now rather than with the first song.

    Raises:
        PresetError: A preset is missing or invalid.
        UsageError: Delivery options contradict each other.
    """
    from tsbs_daw.core.errors import UsageError
    from tsbs_daw.presets.preset import load_preset

    treatments = [folder.treatment for folder in folders]
    treatments += [rule.treatment for folder in folders for rule in folder.subfolders]
    for treatment in treatments:
        delivery = load_preset(treatment.preset, presets).delivery.overridden_by(treatment.delivery)
        if problem := delivery.problem():
            raise UsageError(f"Invalid delivery options: {problem}.")


def _greet(folders: tuple[WatchFolder, ...], *, once: bool) -> None:
    for folder in folders:
        asked = folder.treatment
        typer.echo(f"Watching {folder.path} -> {folder.output} (preset {asked.preset}, model {asked.model})", err=True)
    if not folders:
        typer.echo("Waiting for submitted jobs.", err=True)
    if not once:
        typer.echo("Press Ctrl-C to stop. Unfinished songs resume at the next start.", err=True)


# ---- the page --------------------------------------------------------------------------------------------------------


def web(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Output folder for the stems of files that are dropped onto the page.")
    ] = Path(options.DEFAULT_OUT),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free port.", min=0, max=65535)] = 8765,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Further host name that the page is opened under. Needed beyond loopback. May be repeated."),
    ] = None,
    most_gb: Annotated[float, typer.Option(help="Largest file that can be dropped, in GB.", min=0.001)] = 4.0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the default browser.")] = False,
    link: Annotated[bool, typer.Option("--link", help="Print a new link to the page that is being served.")] = False,
    new_token: Annotated[
        bool, typer.Option("--new-token", help="Make a new token, which signs out every browser.")
    ] = False,
    lifeline: Annotated[
        bool, typer.Option("--lifeline", hidden=True, help="Stop when standard input is closed.")
    ] = False,
) -> None:
    """Serve a page that shows the queue and plays the stems.

    Prints a link that works once, within ten minutes; the browser then stays signed in. By default, the page can be
    opened from this machine only. Press Ctrl-C to stop; the jobs continue.

    Example: tsbs-daw web --open
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.web.queue import Options
    from tsbs_daw.web.server import Address, link_to_running, page_server

    settings = Settings.from_environment()
    if link:
        typer.echo(link_to_running(settings.home))
        return
    chosen = Options(settings, options.absolute(out), int(most_gb * 1e9))
    with page_server(settings, Address(host, port, tuple(name or ())), chosen, renew=new_token) as server:
        _print_link(server.access.link(), host, open_browser=open_browser)
        if lifeline:
            server.stop_with(sys.stdin.buffer)
        server.run()


def _print_link(url: str, host: str, *, open_browser: bool) -> None:
    print(f"Open {url}", flush=True)
    print("The link works once, within ten minutes; `tsbs-daw web --link` prints another.", file=sys.stderr)
    if host not in ("127.0.0.1", "localhost", "::1"):
        print(
            "Other machines can reach this page, unencrypted. An SSH tunnel or a TLS proxy is safer.", file=sys.stderr
        )
    print("Press Ctrl-C to stop. The jobs continue.", file=sys.stderr, flush=True)
    if open_browser:
        import webbrowser

        webbrowser.open(url)


@contextmanager
def beside_daemon(out: Path | None, *, wanted: bool) -> Iterator[None]:
    """Serve the page in a separate process, which ends with this one, so that its failures do not affect the daemon."""
    if not wanted:
        yield
        return
    import starlette  # noqa: F401 -- reports a missing extra now, in one sentence

    place = ["--out", str(options.absolute(out))] if out else []
    child = subprocess.Popen(
        [sys.executable, "-m", "tsbs_daw", "web", "--lifeline", *place],
        stdin=subprocess.PIPE,
        stdout=sys.stderr,
        start_new_session=True,  # Ctrl-C reaches only the daemon, which then stops the page
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
