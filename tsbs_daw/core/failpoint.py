"""Places at which a test may let the process die, as a power cut would: no cleaning up, no last words.

`TSBS_DAW_FAILPOINT=before-rename` kills every process that gets there; `before-rename@FILE` only the first one, which
creates FILE. Without the variable, which is how everyone but a test runs, nothing happens.
"""

from __future__ import annotations

import os

EXIT_CODE = 137  # what a shell reports of a process killed by SIGKILL

NAMES = ("before-write", "before-manifest", "before-rename", "after-rename")


def reached(name: str) -> None:
    wanted, _, marker = os.environ.get("TSBS_DAW_FAILPOINT", "").partition("@")
    if wanted != name:
        return
    if marker:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
    os._exit(EXIT_CODE)
