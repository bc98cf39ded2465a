"""Short and long forms of a fault case: every commit runs the short one, `make test-long` the long one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


def repeated(long: int, *, short: int = 1) -> pytest.MarkDecorator:
    """Parametrise a test by `times`: how often it does its deed. `long` is the number of the reliability table."""
    return pytest.mark.parametrize("times", [short, pytest.param(long, marks=pytest.mark.long)])


def rounds(folder: Path, times: int) -> Iterator[Path]:
    """A fresh folder for each time; taken away afterwards, so that a long run does not fill the disk."""
    for number in range(times):
        place = folder / f"round {number}"
        place.mkdir()
        yield place
        shutil.rmtree(place)
