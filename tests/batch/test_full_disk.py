"""Disks that are full: real ones, in a mount namespace where a child may mount a small disk without being root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from batch.stage import ListenerLog, batch_in, run_batch, states
from harness.stage import lines, python_path, settings_in

from tsbs_daw.contracts.catalogue import JSON
from tsbs_daw.core.errors import OutputError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins use POSIX signals")

PROGRAM = Path(__file__).parent / "full_disk.py"


def on_a_small_disk(tmp_path: Path) -> list:
    """What `full_disk.py` prints, line by line."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs the command unshare")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=4m none '{disk}' || exit 77; exec \"$@\""
    program = [sys.executable, str(PROGRAM), str(disk), str(tmp_path / "place")]
    found = subprocess.run(
        [unshare, "--map-root-user", "--mount", "sh", "-c", mount, "sh", *program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROGRAM.parent.parent), python_path()])},
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode == 77 or "unshare failed" in found.stderr:
        pytest.skip(f"this system does not let a test mount a disk: {found.stderr.strip()}")
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_a_disk_that_becomes_full_half_way_is_named_and_the_next_run_finishes_the_rest(tmp_path: Path):
    first, second, left = on_a_small_disk(tmp_path)
    assert {state for state, _ in first.values()} == {"done", "failed"}
    for state, reason in first.values():
        assert (reason is None) if state == "done" else ("became full" in reason and "free some space" in reason)
    assert {state for state, _ in second.values()} == {"done"} and len(second) == 6
    assert left == [], "nothing half done is left behind"


def test_a_catalogue_that_cannot_be_written_is_said_at_the_end_and_no_song_is_lost(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", python_path())
    request = batch_in(tmp_path, "One.wav", "Two.wav")
    catalogue = request.out / JSON

    def block(view):
        if catalogue.is_file():
            catalogue.unlink()
            catalogue.mkdir()

    with pytest.raises(OutputError, match="Cannot write the catalogue"):
        run_batch(request, ListenerLog(block))
    assert not list(request.out.glob("*.tmp"))
    catalogue.rmdir()
    assert set(states(run_batch(request)).values()) == {"done"}
    assert len(lines(settings_in(tmp_path), "runs.log")) == 2
