"""What is made of a crate once all its songs have come to their end: the page, and the session of all songs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tsbs_daw.batch.catalogue_document import Catalogue
from tsbs_daw.batch.catalogue_writer import JSON
from tsbs_daw.core.errors import NoSpaceLeft, OutputError

log = logging.getLogger(__name__)


@dataclass
class Closing:
    """files: what there is to open, by what it is; problems: what could not be made, one sentence each"""

    files: dict[str, Path] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def close_crate(catalogue: Catalogue, out: Path, presets: Path | None) -> Closing:
    """A problem with one of them neither stops the other nor undoes a song."""
    from tsbs_daw.batch.page import write_page
    from tsbs_daw.batch.session import write_session

    closing = Closing({"catalogue": out / JSON})
    _make(closing, "session", lambda: write_session(catalogue, out, presets))
    _make(closing, "page", lambda: write_page(catalogue, out))  # after it, as it leads to it
    return closing


def _make(closing: Closing, what: str, make: Callable[[], Path | None]) -> None:
    try:
        path = make()
    except Exception as error:
        log.warning("the crate's %s could not be made", what, exc_info=True)
        known = isinstance(error, (OutputError, NoSpaceLeft))
        reason = str(error) if known else f"{' '.join(str(error).split()).rstrip('.') or type(error).__name__}"
        closing.problems.append(
            reason if known else f"The crate's {what} could not be made ({reason}); the songs are complete."
        )
    else:
        if path is not None:
            closing.files[what] = path
