"""Notices on the desktop about songs that are done or have failed, by whatever program the system has for them."""

from __future__ import annotations

import contextlib
import html
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tsbs_daw.cli.console import one_line

if TYPE_CHECKING:
    from tsbs_daw.queue.jobs import Event

_GATHER_S = 1.0  # so that fifty songs that end together are one notice
_LIMIT_S = 10.0
_NAMES_SHOWN = 3

_APPLESCRIPT = ("on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run")
# Texts reach PowerShell as variables of the environment: nothing that a song is called becomes code.
_POWERSHELL = """
$manager = [Windows.UI.Notifications.ToastNotificationManager, Windows.UI.Notifications, ContentType = WindowsRuntime]
$kind = [Windows.UI.Notifications.ToastTemplateType, Windows.UI.Notifications, ContentType = WindowsRuntime]
$xml = $manager::GetTemplateContent($kind::ToastText02)
$texts = $xml.GetElementsByTagName('text')
$null = $texts.Item(0).AppendChild($xml.CreateTextNode($env:TSBS_DAW_TITLE))
$null = $texts.Item(1).AppendChild($xml.CreateTextNode($env:TSBS_DAW_TEXT))
$toast = New-Object Windows.UI.Notifications.ToastNotification $xml
$manager::CreateToastNotifier('tsbs-daw').Show($toast)
"""


def notice_command(title: str, text: str, platform: str = sys.platform) -> list[str] | None:
    """The command that shows a notice, with TSBS_DAW_TITLE and TSBS_DAW_TEXT in its environment; None without one."""
    if platform == "darwin":
        program, arguments = "osascript", [part for line in _APPLESCRIPT for part in ("-e", line)] + [title, text]
    elif platform == "win32":
        program, arguments = "powershell", ["-NoProfile", "-NonInteractive", "-Command", _POWERSHELL]
    else:
        program, arguments = "notify-send", ["--app-name=tsbs-daw", "--", title, html.escape(text, quote=False)]
    found = shutil.which(program)
    return [found, *arguments] if found else None


class Notices:
    """A listener of the daemon that passes every event on, and shows notices. Use it in a `with`."""

    def __init__(self, listener: Callable[[Event], None]):
        self._listener = listener
        self._ended: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def __enter__(self) -> Notices:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.put(None)
        self._thread.join(_LIMIT_S + _GATHER_S)

    def __call__(self, event: Event) -> None:
        self._listener(event)
        if event.kind in ("done", "failed", "dead"):
            self._ended.put((event.kind, one_line(event.song or event.id)))

    def _run(self) -> None:
        while (first := self._ended.get()) is not None:
            time.sleep(_GATHER_S)
            songs, last = [first], False
            with contextlib.suppress(queue.Empty):
                while (ended := self._ended.get_nowait()) is not None:
                    songs.append(ended)
                last = True
            show(*wording(songs))
            if last:
                return


def wording(songs: list[tuple[str, str]]) -> tuple[str, str]:
    """Title and text for songs that ended. Args: songs: how, as an event's kind, and what they are called"""
    done = [song for kind, song in songs if kind == "done"]
    failed = [song for kind, song in songs if kind != "done"]
    parts = [f"{len(songs)} {what}" for songs, what in ((done, "done"), (failed, "failed")) if songs]
    title = f"Separation {'done' if done else 'failed'}" if len(songs) == 1 else f"Songs: {', '.join(parts)}"
    names = failed + done
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return title, ", ".join(names[:_NAMES_SHOWN]) + more


def show(title: str, text: str) -> None:
    """Show a notice, if the system has a program for it. What goes wrong there concerns nobody."""
    command = notice_command(title, text)
    if command is None:
        return
    environment = {**os.environ, "TSBS_DAW_TITLE": title, "TSBS_DAW_TEXT": text}
    quiet = subprocess.DEVNULL
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, env=environment, timeout=_LIMIT_S, check=False)
