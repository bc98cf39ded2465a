"""A studio for each Lua that REAPER has, and a daemon by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from reaper.stage import DaemonByHand, Studio


@pytest.fixture(params=["53", "54"])
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def studio(tmp_path: Path, version: str) -> Studio:
    return Studio(tmp_path, tmp_path / "home", version)


@pytest.fixture
def daemon(studio: Studio) -> DaemonByHand:
    return DaemonByHand(studio.home)
