"""catalogue.html: the catalogue of a crate to look at and listen to. One file, no server, no network.

The page carries its style, its program and its data inside. It may run nothing but that one program, and load nothing
but sound: its Content-Security-Policy says so, by the hashes of the two. Pictures are in the data; sounds are played
from the delivered files, by URLs relative to the page, so that the folder can be moved as a whole.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.resources
import json
import re
from pathlib import Path

from tsbs_daw.batch.catalogue_document import Catalogue
from tsbs_daw.batch.matching import TEMPO_PERCENT
from tsbs_daw.batch.page_rows import relative_url, rows
from tsbs_daw.batch.table import NAME as TABLE
from tsbs_daw.batch.waveform import forget_all_but
from tsbs_daw.core.errors import NoSpaceLeft, OutputError, shown
from tsbs_daw.core.files import disk_is_full, write_atomically

NAME = "catalogue.html"

_PARTS = "page_parts"
# In this order they make one script.
_PROGRAM = ("words", "music", "picture", "player", "details", "row", "heading", "keys", "main")


def write_page(catalogue: Catalogue, folder: Path) -> Path:
    """Write the page of a catalogue, complete or not, into the crate's out folder.

    The songs' files are read once, for their waveforms; a second run reads only what is new. A file that is missing or
    damaged is shown as such.

    Returns: the page
    Raises:  OutputError, NoSpaceLeft: it cannot be written; a page from before is still whole
    """
    path = folder / NAME
    try:
        songs = rows(catalogue, folder)
        forget_all_but(folder, (song.folder or song.source for song in catalogue.songs))
        beside = [name for name in (catalogue.session, TABLE) if (folder / name).is_file()]
        write_atomically(path, _page(catalogue, songs, beside))
    except OSError as error:
        with contextlib.suppress(OSError):
            path.with_name(f"{NAME}.tmp").unlink(missing_ok=True)  # others need the room
        if disk_is_full(error):
            raise NoSpaceLeft(
                f"The disk is full at {shown(path)}; make room and run the same command again."
            ) from error
        raise OutputError(
            f"{shown(path)} cannot be written ({error.strerror}); look at the folder's rights."
        ) from error
    return path


def _page(catalogue: Catalogue, songs: list[dict], beside: list[str]) -> str:
    """Args: beside: files of the whole crate that the page leads to"""
    style, program = _part("catalogue.css"), _program()
    data = {
        "crate": catalogue.crate,
        "preset": catalogue.preset,
        "created": catalogue.created.isoformat(),
        "tempoPercent": TEMPO_PERCENT,
        "links": [{"name": name, "url": relative_url(name)} for name in beside],
        "songs": songs,
    }
    policy = (
        f"default-src 'none'; script-src {_hash(program)}; style-src {_hash(style)}; media-src 'self' file:; "
        "base-uri 'none'; form-action 'none'"
    )
    pieces = {"POLICY": policy, "STYLE": style, "PROGRAM": program, "DATA": embedded(data)}
    # In one pass: what comes in at one place is never searched for another.
    return re.sub("@(POLICY|STYLE|PROGRAM|DATA)@", lambda place: pieces[place[1]], _part("catalogue.html"))


def embedded(data: object) -> str:
    """JSON that can stand inside a <script> element: ASCII, and nothing in it can end the element or begin another."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _program() -> str:
    return "(() => {\n'use strict';\n" + "\n".join(_part(f"{name}.js") for name in _PROGRAM) + "})();\n"


def _hash(text: str) -> str:
    """How a Content-Security-Policy names the contents of an element."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"


def _part(name: str) -> str:
    return (importlib.resources.files("tsbs_daw.batch") / _PARTS / name).read_text(encoding="utf-8")
