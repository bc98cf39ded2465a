"""Analysis of a song in a child process, so that a crash, a hang or a lack of memory there does not cost the stems.

Results are cached, so delivering the same song under another name or in another format needs no second analysis.
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
# An analysis takes 5 s of CPU time plus a twentieth of the song's length; the first after an installation takes 20 s
# more. These limits still suffice if a busy machine gives it only a fifteenth of a core.
LIMIT_S, LIMIT_FOR_EACH_S = 1800.0, 3.0
REPORT_EVERY_S = 1.0
MOST_KEPT = 2000  # analyses of about 20 kB each
COMMAND = child.python("tsbs_daw.pipeline.analyse")


class AnalysisCache:
    """A folder of analyses by cache key. A file that cannot be read counts as missing."""

    def __init__(self, folder: Path):
        self.folder = folder / "analyses"

    def find(self, key: str) -> Analysis | None:
        """Return the analysis of this key, or None."""
        path = self.folder / f"{key}.json"
        try:
            found = Analysis.model_validate_json(path.read_bytes())
            os.utime(path)
        except (OSError, ValueError):
            return None
        return found

    def keep(self, key: str, analysis: Analysis) -> None:
        """Store an analysis and drop the oldest beyond `MOST_KEPT`. Errors, such as a full disk, are ignored."""
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
        mixture: File of the song.
        stems: Files of its stems, by name.
        duration_s: Length of the song, which sets the time limit and the pace of the progress.
        report: Called with an estimated fraction below 1; the analysis does not report how far it is.
        cancelled: Called several times a second.
        limit_s: Time limit; None for half an hour plus three times the song's length.

    Raises:
        AnalysisError: The analysis failed or did not finish in time.
        JobCancelled: `cancelled` returned True.
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
    """Analyse in the child process; see `core.child`."""
    from tsbs_daw.analysis.analyse import analyse  # slow to import: the analysis libraries

    stems = {name: Path(path) for name, path in request["stems"].items()}
    return json.loads(analyse(Path(request["mixture"]), stems).model_dump_json(by_alias=True))


if __name__ == "__main__":
    child.answer(_answer)
