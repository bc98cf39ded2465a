"""REAPER's list of actions, reaper-kb.ini: scripts are added and taken out, all else stays byte for byte.

A script is one line, `SCR 4 0 RS<id> "Custom: <name>" "<path below Scripts>"`. Its id is what key bindings and toolbars
refer to. REAPER makes it from the path, so it is the same in every installation, however the script was loaded.
Bindings to actions that were removed stay, and work again after the next installation.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from pathlib import Path

from tsbs_daw.core.errors import OutputError, shown

FILE = "reaper-kb.ini"
BACKUP = "reaper-kb.ini.before-tsbs-daw"

_SCRIPT = re.compile(rb'^SCR\s+\d+\s+\d+\s+("[^"]*"|\S+)\s+("[^"]*"|\S+)\s+(?P<path>"[^"\r\n]*"|\S+)', re.MULTILINE)


def action_id(path: str) -> str:
    """The id that REAPER gives a script of its main section: the SHA-1 of its path in upper case.

    Args: path: below Scripts/, or absolute for a script elsewhere; with forward slashes
    """
    return "RS" + hashlib.sha1(path.upper().encode("utf-8"), usedforsecurity=False).hexdigest()


def scripts_in(content: bytes) -> list[str]:
    """The paths of all scripts that are registered, with forward slashes."""
    found = (match["path"].decode("utf-8", "surrogateescape") for match in _SCRIPT.finditer(content))
    return [path.strip('"').replace("\\", "/") for path in found]


def add_scripts(content: bytes, paths: list[str]) -> bytes:
    """The file with these scripts registered; those that are there already stay as they are."""
    known = {path.lower() for path in scripts_in(content)}
    newline = b"\r\n" if b"\r\n" in content else b"\n"
    if content and not content.endswith(b"\n"):
        content += newline
    for path in paths:
        if path.lower() not in known:
            name = path.rsplit("/", 1)[-1]
            content += f'SCR 4 0 {action_id(path)} "Custom: {name}" "{path}"'.encode() + newline
    return content


def remove_scripts(content: bytes, folder: str, scripts: Path) -> bytes:
    """The file without any script of a folder below Scripts/, named from there or absolutely.

    Args: folder: its name; scripts: the absolute path of Scripts/
    """
    absolute = scripts.as_posix().lower().rstrip("/") + "/"
    start = folder.lower() + "/"
    kept = []
    for line in content.splitlines(keepends=True):
        (path,) = scripts_in(line) or ("",)
        if not path.lower().removeprefix(absolute).startswith(start):
            kept.append(line)
    return b"".join(kept)


def rewrite(path: Path, content: bytes) -> bool:
    """Put `content` in the place of the file, by a rename, the old one kept beside it. Returns: whether it changed

    Raises: OutputError: it cannot be written; the old one is untouched
    """
    before = path.read_bytes() if path.is_file() else b""
    if content == before:
        return False
    temporary = path.with_name(path.name + ".tsbs-daw.tmp")
    try:
        if path.is_file():
            shutil.copy2(path, path.with_name(BACKUP if path.name == FILE else path.name + ".before-tsbs-daw"))
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.is_file():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OutputError(f"{shown(path)} cannot be written ({error.strerror}); it is as it was.") from error
    return True
