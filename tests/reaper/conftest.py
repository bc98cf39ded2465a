"""A studio for each Lua that REAPER has, and a daemon by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from reaper.stage import DaemonByHand, Studio


@pytest.fixture(params=["53", "54"])
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def studio(tmp_path: Path, version: str) -> Iterator[Studio]:
    """Whatever a test does, no project has an undo point of a script's name afterwards."""
    studio = Studio(tmp_path, tmp_path / "home", version)
    yield studio
    for project in studio.reaper.projects:
        assert not [step.label for step in project.undo_steps if step.label.endswith(".lua")]


@pytest.fixture
def daemon(studio: Studio) -> DaemonByHand:
    return DaemonByHand(studio.home)
