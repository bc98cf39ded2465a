"""The analysis of a song in a child process, so that one that crashes, hangs or runs out of memory costs no stems.

Results are cached, so that another name or format for the same song needs no second analysis.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tsbs_daw.contracts.analysis import Analysis
from tsbs_daw.core import child
from tsbs_daw.core.errors import AnalysisError, JobCancelled
from tsbs_daw.core.files import write_atomically

log = logging.getLogger(__name__)

FILE_NAME = "analysis.json"
# An analysis takes 5 s of a core and a twentieth of the song's length, the first one after an installation 20 s more.
# A machine that is busy all night gives it a fifteenth of a core.
LIMIT_S, LIMIT_FOR_EACH_S = 1800.0, 3.0
REPORT_EVERY_S = 1.0
MOST_KEPT = 2000  # analyses of some 20 kB
COMMAND = child.python("tsbs_daw.pipeline.analyse")


class AnalysisCache:
    """Analyses by what they were made of, below one folder. Whatever is wrong with a file, it is as if not there."""

    def __init__(self, folder: Path):
        self.folder = folder / "analyses"

    def find(self, key: str) -> Analysis | None:
        path = self.folder / f"{key}.json"
        try:
            found = Analysis.model_validate_json(path.read_bytes())
            os.utime(path)
        except (OSError, ValueError):
            return None
        return found

    def keep(self, key: str, analysis: Analysis) -> None:
        """A full disk does not matter here: then it is not kept."""
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / f"{key}.json", analysis.model_dump_json(by_alias=True))
            kept = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in kept[:-MOST_KEPT]:
                path.unlink()


def analyse_apart(
    mixture: Path,
    stems: Mapping[str, Path],
    duration_s: float,
    *,
    report: Callable[[float], None],
    cancelled: Callable[[], bool],
    limit_s: float | None = None,
) -> Analysis:
    """Analyse a song's files in a child process.

    Args:
        mixture: The song.
        stems: Its stems by name.
        duration_s: Length of the song, which decides the limit and the pace of the progress.
        report: Called with a fraction that grows and never reaches 1; nobody knows how far the analysis is.
        cancelled: Asked several times a second.
        limit_s: None: half an hour and three times the song's length.

    Raises:
        AnalysisError: For whatever reason.
        JobCancelled: `cancelled` said so.
    """
    limit_s = LIMIT_S + LIMIT_FOR_EACH_S * duration_s if limit_s is None else limit_s
    last_reported_s = 0.0

    def waiting(elapsed_s: float) -> None:
        nonlocal last_reported_s
        if cancelled():
            raise JobCancelled("The job was cancelled.")
        if elapsed_s - last_reported_s > REPORT_EVERY_S:
            last_reported_s = elapsed_s
            report(1 - math.exp(-elapsed_s / (10 + duration_s / 5)))

    request = {"mixture": str(mixture), "stems": {name: str(path) for name, path in stems.items()}}
    try:
        return Analysis.model_validate(child.ask(COMMAND, request, limit_s=limit_s, waiting=waiting))
    except child.ChildTimeout as error:
        raise AnalysisError(f"it did not finish within {limit_s:.0f} s") from error
    except child.ChildRefused as error:
        raise AnalysisError(str(error)) from error
    except (child.ChildFailed, ValueError) as error:
        log.warning("the analysis ended with %s: %s", error, getattr(error, "log", ""))
        raise AnalysisError("it ended unexpectedly; the worker's log has the details") from error


def _answer(request: dict[str, Any]) -> Any:
    """The child's part: see `core.child`."""
    from tsbs_daw.analysis.analyse import analyse  # slow to import: the analysis libraries

    stems = {name: Path(path) for name, path in request["stems"].items()}
    return json.loads(analyse(Path(request["mixture"]), stems).model_dump_json(by_alias=True))


if __name__ == "__main__":
    child.answer(_answer)
