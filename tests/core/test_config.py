"""Where the program's folders are, and who may ask the environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tsbs_daw.core.config import Settings

PACKAGE = Path(__file__).parents[2] / "tsbs_daw"

# The edges of the program: everything below is handed its settings.
EDGES = (
    "__main__.py",
    "cli/",
    "core/config.py",  # and its failpoints, for tests alone, in every process
    "cluster/bridge.py",  # a program of its own: Ray reads its settings there
    "cluster/node.py",  # on another machine, whose environment says where models are kept
    "separation/separator.py",  # Separator.load, of the Python API
    "lab/",
)
ASKING = re.compile(r"from_environment\(|environ\.get\(|environ\[|getenv\(")
# No settings of ours: where a system keeps VST3 plug-ins and services, the C compiler for Triton, Python's search path.
KNOWN = ("effects/vst3.py", "doctor/probe.py", "integrations/service.py", "models/convert.py")


def test_only_the_edges_of_the_program_read_the_environment():
    asking = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if ASKING.search(path.read_text(encoding="utf-8"))
    }
    assert not {name for name in asking if not name.startswith(EDGES) and name not in KNOWN}


def test_the_user_s_presets_are_in_the_home_unless_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TSBS_DAW_HOME", str(tmp_path))
    monkeypatch.delenv("TSBS_DAW_PRESETS", raising=False)
    assert Settings.from_environment().presets == tmp_path / "presets"
    monkeypatch.setenv("TSBS_DAW_PRESETS", str(tmp_path / "mine"))
    settings = Settings.from_environment()
    assert settings.presets == tmp_path / "mine"
    assert Settings.from_texts({name: str(value) for name, value in vars(settings).items()}) == settings
