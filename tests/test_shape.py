"""The way of a job, as tools/shape.py lists it, is the one in the code and on the architecture page."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("shape", ROOT / "tools" / "shape.py")
shape = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(shape)

# By name and not by import, because they cross from one process into another.
STARTED_BY_NAME = {"daemon/worker.py": "daemon/worker_handle.py", "pipeline/run.py": "core/config.py"}


def test_every_file_of_the_way_is_handed_the_job_by_one_before_it():
    before: set[str] = set()
    for name in shape.WAY:
        module = shape.dotted(shape.PACKAGE / name)
        if name in STARTED_BY_NAME:
            assert module in (shape.PACKAGE / STARTED_BY_NAME[name]).read_text(encoding="utf-8")
        elif name != shape.WAY[0]:
            handed = [one for one in before if module in shape.imported_modules(shape.PACKAGE / one)]
            assert handed or name == "daemon/dispatcher.py", f"nobody before {name} imports it"
        before.add(name)
    assert "tsbs_daw.queue.store" in shape.imported_modules(shape.PACKAGE / "daemon/dispatcher.py")


def test_the_architecture_page_names_the_way_in_order():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    places = [text.index(f"| `{name}` |") for name in shape.WAY]
    assert places == sorted(places)
    assert len(shape.WAY) <= 11


def test_no_file_is_longer_than_can_be_read_at_once():
    too_long = [str(path) for path in shape.module_files() if shape.line_count(path) > shape.LONG_LINES]
    assert not too_long


def test_the_package_stays_small_enough_to_walk():
    assert len(shape.module_files()) <= 210
    assert len(shape.single_use_modules()) <= 15
