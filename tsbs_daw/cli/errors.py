"""What is said of failures that are no bug of the program: the system refuses a file, or a package is not installed."""

from __future__ import annotations

import errno
import importlib.metadata
import re

from tsbs_daw.core.errors import shown
from tsbs_daw.core.files import disk_is_full

_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)
# Of `test`, which holds what others do and more, nothing is said: it is for who works on the program.
_OF_AN_EXTRA = re.compile(r"([\w.-]+).*\bextra == ['\"](?!test)(\w+)['\"]")


def refused(error: OSError) -> str | None:
    """One sentence for a full disk and for missing rights; None for anything else, which is a bug."""
    what = shown(error.filename) if error.filename else "What is printed"
    if disk_is_full(error):
        return f"{what} cannot be written, as the disk is full; make room, and run the same command again."
    if error.errno in _NO_RIGHT:
        return f"{what} cannot be used ({error.strerror}); check its permissions, or choose another place."
    return None


def lacking(error: ModuleNotFoundError) -> str | None:
    """One sentence for a package of an extra; None for any other, whose absence is a bug."""
    for requirement in importlib.metadata.requires("tsbs-daw") or []:
        match = _OF_AN_EXTRA.match(requirement)
        if match and match[1].replace("-", "_") == error.name:
            return f"This needs {match[1]}, which is not installed: pip install 'tsbs-daw[{match[2]}]'."
    return None
