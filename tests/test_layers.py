"""Imports go one way: each package may import those that stand below it, and no modules import each other."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tsbs_daw"

LIGHT = ["contracts.job", "queue.spool", "queue.store", "watch.watcher", "daemon.daemon", "cli"]


def modules_of(tree: ast.AST) -> Iterator[str]:
    """What a module imports when it runs, wherever in it; names taken from a module as modules, too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from modules_of(node)


def test_each_package_imports_only_what_stands_below_it():
    """The contracts are in pyproject.toml, where people look."""
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_modules_import_each_other_in_a_circle():
    paths = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in paths.items()}
    graphlib.TopologicalSorter({name: set(modules_of(tree)) & set(trees) for name, tree in trees.items()}).prepare()


def test_only_the_command_line_prints():
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE).parts
        if inside[0] in ("cli", "__main__.py") or inside[-1] == "__main__.py":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        printing = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
        assert not printing, f"{path.relative_to(PACKAGE)} prints in line {printing[0]}"


@pytest.mark.parametrize("module", LIGHT)
def test_what_must_be_light_imports_neither_torch_nor_audio_libraries(module):
    code = (
        f"import sys, tsbs_daw.{module}; "
        "print([name for name in ('torch', 'pedalboard', 'soundfile', 'numpy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
