"""The analysis of a song in a process of its own, so that one that crashes, hangs or takes memory costs no stems.

What was found is kept, so that another name or format for the same song needs no second hearing.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from tsbs_daw.contracts.analysis import Analysis
from tsbs_daw.core.errors import AnalysisError, JobCancelled
from tsbs_daw.core.files import write_atomically

log = logging.getLogger(__name__)

FILE_NAME = "analysis.json"
# An analysis takes 5 s of a core and a twentieth of the song's length, the first one after an installation 20 s more.
# A machine that is busy all night gives it a fifteenth of a core.
LIMIT_S, LIMIT_FOR_EACH_S = 1800.0, 3.0
LOOK_EVERY_S = 0.1
TELL_EVERY_S = 1.0
MOST_KEPT = 2000  # analyses of some 20 kB
COMMAND = (sys.executable, "-m", "tsbs_daw.pipeline.analysis_child")


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
    """The analysis of a song's files.

    Args:   report: told a fraction that grows and never reaches 1: how far it is, nobody knows
            limit_s: None: half an hour and three times the song's length
    Raises: AnalysisError: for whatever reason; JobCancelled
    """
    limit_s = LIMIT_S + LIMIT_FOR_EACH_S * duration_s if limit_s is None else limit_s
    with tempfile.TemporaryDirectory(prefix="tsbs-daw-") as folder, (Path(folder) / "log").open("w+b") as words:
        answer = Path(folder) / "answer.json"
        plan = {"mixture": str(mixture), "stems": {n: str(p) for n, p in stems.items()}, "answer": str(answer)}
        # One thread: on busy cores, more of them wait for each other, and somebody may be playing in a DAW meanwhile.
        quiet = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        child = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=words, stderr=words, env=quiet)
        try:
            child.stdin.write(json.dumps(plan).encode() + b"\n")
            child.stdin.flush()
            _wait(child, duration_s, limit_s, report, cancelled)
        except BrokenPipeError:
            child.wait()
        finally:
            child.kill()
            child.wait()
            child.stdin.close()
        return _read(answer, child.returncode, words)


def _wait(
    child: subprocess.Popen,
    duration_s: float,
    limit_s: float,
    report: Callable[[float], None],
    cancelled: Callable[[], bool],
) -> None:
    """Until it has ended. Raises: AnalysisError: it took too long; JobCancelled"""
    began = told = time.monotonic()
    while child.poll() is None:
        time.sleep(LOOK_EVERY_S)
        now = time.monotonic()
        if cancelled():
            raise JobCancelled("The job was cancelled.")
        if now - began > limit_s:
            raise AnalysisError(f"nothing came of it within {limit_s:.0f} s")
        if now - told > TELL_EVERY_S:
            told = now
            report(1 - math.exp(-(now - began) / (10 + duration_s / 5)))


def _read(answer: Path, status: int | None, words: IO[bytes]) -> Analysis:
    """What the child left. Raises: AnalysisError"""
    try:
        found = json.loads(answer.read_bytes())
        if "error" not in found:
            return Analysis.model_validate(found["analysis"])
        reason = found["error"]
    except (OSError, ValueError, KeyError):
        words.seek(0)
        log.warning("the analysis ended with status %s: %s", status, words.read()[-4000:].decode("utf-8", "replace"))
        reason = "it ended unexpectedly; the worker's log has the details"
    raise AnalysisError(reason)
