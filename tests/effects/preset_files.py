"""Presets as files, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsbs_daw.core.errors import PresetError
from tsbs_daw.presets.preset import load_preset


def written(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def check_refused(folder: Path, text: str, place: str, what: str) -> None:
    """It is refused in a sentence that has `what` in it, and names the line and column at which `place` stands."""
    path = written(folder, text)
    with pytest.raises(PresetError) as caught:
        load_preset(path)
    error = caught.value
    assert what in str(error)
    assert str(error).startswith(f"{path}:{error.line}:{error.column}: ") and str(error)[-1] in ".?"
    assert "\n".join(text.split("\n")[error.line - 1 :])[error.column - 1 :].startswith(place)
