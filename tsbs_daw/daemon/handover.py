"""Handover of watch folders from a second `tsbs-daw watch` to the running daemon.

    <spool>/handover/<id>.yaml   the request of the second process: a file of watch folders, as for --config
    <spool>/handover/<id>.json   the daemon's answer: whether it watches them now, and the reason if not

Each file is removed once it has been read. The folders are watched until the daemon ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from tsbs_daw.core.errors import DaemonError, TsbsDawError, shown
from tsbs_daw.core.files import private_folder, read_small, write_atomically
from tsbs_daw.queue.locks import running_daemon
from tsbs_daw.watch.folders import WatchFolder, as_yaml, load_folders

log = logging.getLogger(__name__)

_FOLDER = "handover"
_POLL_S = 0.1
_ANSWER_LIMIT_S = 30.0
_MAX_BYTES = 1 << 16


def hand_over(home: Path, spool: Path, folders: Sequence[WatchFolder]) -> None:
    """Ask the running daemon to watch folders, and wait for its answer.

    Args:
        home: The daemon's home; its lock shows whether the daemon is running.
        spool: The daemon's spool.
        folders: The folders to watch.

    Raises:
        DaemonError: The daemon refuses, does not answer, or has ended.
    """
    request = private_folder(spool / _FOLDER) / f"{uuid.uuid4().hex}.yaml"
    answer = request.with_suffix(".json")
    try:
        write_atomically(request, as_yaml(folders))
        until = time.monotonic() + _ANSWER_LIMIT_S
        while not answer.exists():
            if time.monotonic() >= until or running_daemon(home) is None:
                raise DaemonError(
                    "The running daemon does not accept folders; add them to its YAML file and restart it."
                )
            time.sleep(_POLL_S)
        reply = json.loads(read_small(answer, _MAX_BYTES))
        if not reply["watched"]:
            raise DaemonError(str(reply["message"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DaemonError(f"The folders cannot be handed over in {shown(request.parent)} ({error}).") from error
    finally:
        for path in (request, answer):
            with contextlib.suppress(OSError):
                path.unlink()


def take_over(spool: Path, watch: Callable[[Sequence[WatchFolder]], None]) -> None:
    """Answer every request in the spool.

    Args:
        spool: The daemon's spool.
        watch: Watches folders; raises a TsbsDawError if it cannot.
    """
    if not _is_private(spool / _FOLDER):
        return
    for request in sorted((spool / _FOLDER).glob("*.yaml")):
        try:
            watch(load_folders(request))
            reply = {"watched": True, "message": ""}
        except TsbsDawError as error:
            reply = {"watched": False, "message": str(error).removeprefix(f"{request}: ")}
            log.warning("folders that were handed over are refused: %s", error)
        with contextlib.suppress(OSError):
            request.unlink()
            write_atomically(request.with_suffix(".json"), json.dumps(reply), durable=False)


def _is_private(folder: Path) -> bool:
    """Return whether only this user can write there.

    Requests may contain commands to run, and the spool may be shared with a group.
    """
    try:
        status = folder.lstat()
    except OSError:
        return False
    if not hasattr(os, "geteuid"):
        return stat.S_ISDIR(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
