"""`tsbs-daw watch`: run the daemon, for folders and for what is submitted. `tsbs-daw web`: serve its page."""

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
Once = Annotated[bool, typer.Option("--once", help="Separate what is there, then exit.")]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON per event.")]
Notify = Annotated[
    bool, typer.Option("--notify", help="Show a notice on the desktop when a song is done or has failed.")
]
Web = Annotated[bool, typer.Option("--web", help="Serve the page in the browser, too, and print its link.")]

After = Annotated[
    str | None,
    typer.Option(
        help="Fate of a song's file once its stems are published and verified: `keep`, `move PATH` or `delete`. "
        "Default: keep.",
        show_default=False,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(help="Separate only files that match this pattern, such as `*.wav`. May be repeated."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(help="Leave out files and folders that match this pattern, such as `demos`. May be repeated."),
]
OpenHours = Annotated[
    str | None,
    typer.Option(
        help="Start songs of the folders only in these hours, local time, such as `22:00-06:00`. Songs that a DAW "
        "sends start at any time."
    ),
]


@dataclass(frozen=True)
class Rules:
    """What the folders ask for beside the treatment of their songs."""

    after: After = None
    include: Include = None
    exclude: Exclude = None
    hours: OpenHours = None

    def values(self) -> dict[str, Any]:
        """Fields of a `WatchFolder`. Raises: UsageError: a value is not allowed"""
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

    Also separates what `tsbs-daw submit` and the DAW send; without a folder, only that. Songs in subfolders go to
    subfolders of the same name. The originals stay as they are unless --after says otherwise. Press Ctrl-C to stop;
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
        Notices(listener) if notify else nullcontext(listener) as told,
        Daemon(settings, chosen, options=daemon_options, listener=told, once=once) as daemon,
        beside_daemon(out, wanted=web),
    ):
        if not as_json:
            _greet(chosen, once=once)
        daemon.run()
        ended = daemon.lifecycle.ended
        incomplete = daemon.incomplete
    return 1 if once and (ended[State.FAILED] + ended[State.DEAD] or incomplete) else 0


def _hand_over(owner: HeldElsewhere, chosen: tuple[WatchFolder, ...], settings: Settings) -> int:
    """A daemon runs already: let it watch these folders too. Raises: DaemonError: it cannot"""
    from tsbs_daw.daemon.takeover import hand_over

    if chosen:
        hand_over(settings.home, settings.spool, chosen)
    for folder in chosen:
        typer.echo(f"The daemon that runs ({owner}) watches {folder.path} until it ends.")
    if chosen:
        typer.echo("List the folder in its YAML file to keep it; options that are not about folders are those it has.")
    else:
        typer.echo(f"A daemon runs already ({owner}). It separates whatever is submitted.")
    return 0


def _refuse_beside_config(
    folders: list[Path] | None,
    out: Path | None,
    treatment: options.Treatment,
    salvage: bool,
    changes: options.Changes,
    rules: Rules,
) -> None:
    """Raises: UsageError: the file says for each folder what these options would say for all of them"""
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
            "--config lists output, preset, model, delivery and rules of every folder, so that they cannot be given "
            "beside it. Write them into the file."
        )


def _folders(folders: list[Path], out: Path | None, asked: Treatment, rules: Rules) -> tuple[WatchFolder, ...]:
    """Raises: UsageError: folders without --out, or not there; nothing can be written to --out; or an invalid rule"""
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
    """Report a mistake now rather than with the first song. Raises: UsageError: delivery; PresetError"""
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
