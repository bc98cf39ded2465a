"""What is made of a crate once all its songs have come to their end: the page, and the session of all songs."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from tsbs_daw.crate.catalogue import Catalogue
from tsbs_daw.crate.record import JSON

log = logging.getLogger(__name__)


@dataclass
class Closing:
    """files: what there is to open, by what it is; problems: what could not be made, one sentence each"""

    files: dict[str, Path] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def close_crate(catalogue: Catalogue, out: Path) -> Closing:
    """A problem with one of them neither stops the other nor undoes a song."""
    closing = Closing({"catalogue": out / JSON})
    return closing
