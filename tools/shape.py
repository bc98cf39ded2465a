"""The shape of the package in figures: how many modules, how long they are, and which of them a job passes.

    python tools/shape.py

`make shape` runs it. The way of a job is the list `WAY`, which tests/test_shape.py holds to the code and to the
architecture page of the documentation.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tsbs_daw"
LONG_LINES = 400

# From the queue to the published folder, in order: each file hands the job to the next.
WAY = (
    "queue/store.py",
    "daemon/dispatcher.py",
    "daemon/worker_handle.py",
    "daemon/worker.py",
    "pipeline/run.py",
    "pipeline/resolve.py",
    "pipeline/separate.py",
    "pipeline/render.py",
    "pipeline/deliver.py",
    "pipeline/publish.py",
)


def module_files() -> list[Path]:
    """Every Python file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def line_count(path: Path) -> int:
    """How many lines a file has."""
    return len(path.read_text(encoding="utf-8").splitlines())


def imported_modules(path: Path) -> set[str]:
    """The dotted names that a file imports; names taken from a package as modules, too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def dotted(path: Path) -> str:
    """The name that a file is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def single_use_modules() -> list[tuple[Path, Path]]:
    """(module, importer) of modules that exactly one file imports, and that one lies in the same folder."""
    files = module_files()
    imports = {path: imported_modules(path) for path in files}
    found = []
    for path in files:
        if path.name in ("__init__.py", "__main__.py"):
            continue
        importers = [other for other in files if other != path and dotted(path) in imports[other]]
        if len(importers) == 1 and importers[0].parent == path.parent:
            found.append((path, importers[0]))
    return found


def functions() -> Iterator[tuple[int, str]]:
    """(lines, place) of every function."""
    for path in module_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield lines, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


def main() -> int:
    """Print the figures."""
    files = module_files()
    packages = Counter(path.relative_to(PACKAGE).parts[0] for path in files)
    long_files = [(line_count(path), path.relative_to(ROOT)) for path in files if line_count(path) > LONG_LINES]
    singles = single_use_modules()
    print(f"modules: {len(files)}")
    print("  " + ", ".join(f"{name} {count}" for name, count in packages.most_common() if not name.endswith(".py")))
    print(f"files over {LONG_LINES} lines: {len(long_files)}")
    for lines, path in sorted(long_files, reverse=True):
        print(f"  {lines} {path}")
    print(f"modules that one file of the same folder alone imports: {len(singles)}")
    for path, importer in singles:
        print(f"  {path.relative_to(PACKAGE)} <- {importer.name}")
    print(f"files that a job passes from the queue to its folder: {len(WAY)}")
    for name in WAY:
        print(f"  {name}")
    print("longest functions:")
    for lines, place in sorted(functions(), reverse=True)[:10]:
        print(f"  {lines} {place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
