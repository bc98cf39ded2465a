"""A process that file permissions hold for, also where the tests run as root, to whom nothing is refused."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

_ROOT = os.name != "nt" and os.geteuid() == 0
WITHOUT_POWERS = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if _ROOT else []
PYTHON = [*WITHOUT_POWERS, sys.executable]

needs_rights = pytest.mark.skipif(
    os.name == "nt" or (_ROOT and shutil.which("setpriv") is None), reason="nothing is refused to this user"
)
