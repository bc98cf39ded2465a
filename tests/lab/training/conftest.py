"""Fixtures of small training runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lab.training.small_runs import make_recipe, write_songs


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Operations this small only wait for each other when they are shared among threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Three songs to train on, one to validate on, 2 s each."""
    return write_songs(tmp_path / "songs")


@pytest.fixture
def small_recipe():
    """A function: `part={field: value}` changes -> Recipe."""
    return make_recipe
