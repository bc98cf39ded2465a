#!/usr/bin/env python3
"""Run tests as somebody whom permissions hold for. `make test-as-user` calls it.

    python tools/as_user.py tests/core tests/queue

To root nothing is refused, and a test of permissions proves nothing there. So root runs the tests as `nobody`, in a
copy of the tree that belongs to him, with a home of his own. Anybody else just runs them.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOBODY = 65534
PYTEST = (sys.executable, "-m", "pytest", "-q")
KEPT = ("PATH", "LANG", "LC_ALL", "CI", "OMP_NUM_THREADS")  # of the environment; the rest is root's


def copy_tree(destination: Path) -> None:
    """Copy what git knows or would add, as it is in the working tree."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, destination / name)


# Shows a folder ($1) below a closed one ($2) to everybody, in a mount namespace of its own; then runs the rest.
_OPEN = """
set -e
mkdir -p "$0" && mount --bind "$1" "$0" && mount -t tmpfs -o mode=755 none "$2"
mkdir -p "$1" && mount --bind "$0" "$1"
shift 2 && exec "$@"
"""


def open_way_to(prefix: Path, spare: Path) -> list[str]:
    """The start of a command that lets everybody run a Python below a folder of root's own, such as `/root`."""
    closed = [folder for folder in reversed(prefix.parents) if not folder.stat().st_mode & stat.S_IXOTH]
    return ["unshare", "--mount", "sh", "-c", _OPEN, str(spare), str(prefix), str(closed[0])] if closed else []


def run_as_nobody(arguments: list[str]) -> int:
    """Run pytest in a copy of the tree. Returns: its exit status"""
    if shutil.which("setpriv") is None:
        raise SystemExit("setpriv is missing, so the tests cannot run as another user; install util-linux.")
    with tempfile.TemporaryDirectory(prefix="tsbs-daw-nobody-") as folder:
        place = Path(folder)
        copy_tree(place / "tree")
        for name in ("home", "tmp"):
            (place / name).mkdir()
        for path in (place, *place.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment |= {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "PYTHONPATH": str(place / "tree")}
        become = open_way_to(Path(sys.base_prefix).resolve(), place / "python")
        become += ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
        own = {"cwd": place / "tree", "env": environment, "check": False}
        tries = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import pytest'], check=True)"
        if subprocess.run([*become, sys.executable, "-c", tries], **own).returncode:
            raise SystemExit(f"nobody cannot run {sys.executable}; make it and the folders above it readable for all.")
        return subprocess.run([*become, *PYTEST, *arguments], **own).returncode


def main(arguments: list[str]) -> int:
    if os.name != "nt" and os.geteuid() == 0:
        return run_as_nobody(arguments)
    return subprocess.run([*PYTEST, *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
