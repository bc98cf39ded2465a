"""What a crate remembers from run to run: which file had which content, and where its stems are.

It lies in the out folder as `.crate.json`. Losing it costs time, not songs: they are hashed again, and what is there
already is recognised by its manifest.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from pydantic import Field

from tsbs_daw.batch.scan import Place
from tsbs_daw.contracts.document import Document, Part
from tsbs_daw.core.errors import JobFormatError
from tsbs_daw.core.files import write_atomically

log = logging.getLogger(__name__)

FILE_NAME = ".crate.json"


class Remembered(Part):
    """One file of the crate.

    state:       how the file looked when it was hashed, see `scan.file_state`; its content is read again if it changed
    place:       where its files were meant to go
    settings:    fingerprint of preset, model and options that `folder` was made with
    folder:      where they are, below the out folder; None until it is done
    """

    state: str = ""
    sha256: str | None = None
    place: Place
    settings: str = ""
    folder: str | None = None


class Memory(Document):
    """The whole file. folder: the crate's; songs: by `FoundSong.relative`"""

    kind: Literal["crate"] = "crate"
    folder: str | None = None
    songs: dict[str, Remembered] = Field(default_factory=dict)


def recall(out: Path) -> Memory:
    """What was remembered in `out`; nothing when there is no file, or a damaged one."""
    path = out / FILE_NAME
    try:
        return Memory.from_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        return Memory()
    except (OSError, JobFormatError) as error:
        log.warning("%s is left aside, the songs are hashed again: %s", path, error)
        return Memory()


def remember(out: Path, memory: Memory) -> None:
    write_atomically(out / FILE_NAME, memory.to_json())
