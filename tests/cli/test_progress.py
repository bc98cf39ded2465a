"""The bar of one job, in terminals of any width."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli.program import environment, shown_on

CODE = """
import sys
from tsbs_daw.cli.progress import job_progress
with job_progress("A song with a name that is longer than most.wav") as report:
    report(0.42, "separating")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("columns", "bar"), [(40, False), (100, True)])
def test_how_far_it_is_and_at_what_has_room_in_every_terminal(tmp_path: Path, columns: int, bar: bool):
    import pty

    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CODE],
        env=environment(tmp_path, TERM="xterm", COLUMNS=str(columns)),
        stderr=terminal,
    )
    os.close(terminal)
    shown = shown_on(controller)
    assert process.wait() == 0
    assert b"42%" in shown and b"separating" in shown and b"A song with" in shown
    assert ("━".encode() in shown) is bar
