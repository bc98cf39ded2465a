"""A process that file permissions hold for, also where the tests run as root, to whom nothing is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

_ROOT = os.name != "nt" and os.geteuid() == 0
WITHOUT_POWERS = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if _ROOT else []
PYTHON = [*WITHOUT_POWERS, sys.executable]


def _are_taken() -> bool:
    if not _ROOT:
        return os.name != "nt"
    return (
        shutil.which("setpriv") is not None and subprocess.run([*WITHOUT_POWERS, "true"], check=False).returncode == 0
    )


needs_rights = pytest.mark.skipif(not _are_taken(), reason="nothing is refused to this user")
