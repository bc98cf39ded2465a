"""Runs the real program as a process of its own, with a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def environment(home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "TSBS_DAW_HOME": str(home), "PYTHONIOENCODING": "utf-8", "COLUMNS": "100", **more}


def run(home: Path, *arguments: str | Path, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """`tsbs-daw ARGUMENTS`, waited for; its output as text."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "tsbs_daw", *map(str, arguments)],
        env=environment(home, **more),
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
