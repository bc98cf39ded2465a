"""What the models on this machine weighed in when they were first used: `hashes.json` beside them.

Published checkpoints come without a checksum, so the first use records one, and every later use is held to it: a file
that changes behind the user's back is refused before anything in it is read.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from filelock import FileLock

from tsbs_daw.core.errors import CheckpointError, shown
from tsbs_daw.core.files import write_atomically
from tsbs_daw.core.hashing import file_sha256

log = logging.getLogger(__name__)

FILE_NAME = "hashes.json"
SCHEMA = 1


class HashRecord:
    """The SHA-256 of files in one folder, by file name. Safe between processes."""

    def __init__(self, folder: Path):
        self.path = folder / FILE_NAME

    def known(self, file: Path) -> str | None:
        """The recorded hash. Raises: CheckpointError: the record itself is damaged"""
        return self._read().get(file.name)

    def check(self, file: Path) -> str:
        """Hash `file` and compare; record it if it was never used before.

        Returns: the hash, in hex
        Raises:  CheckpointError: the file is not the one that was first used
        """
        found, recorded = file_sha256(file), self.known(file)
        if recorded is None:
            self.record(file, found)
        elif recorded != found:
            raise CheckpointError(
                f"{shown(file)} changed since it was first used (SHA-256 {found[:12]}… instead of {recorded[:12]}…); "
                f"delete it and get it again, or, if you changed it yourself, remove its line from {shown(self.path)}."
            )
        return found

    def record(self, file: Path, sha256: str) -> None:
        """Write down that `file` is this one from now on. A folder that cannot be written to is only logged."""
        try:
            with FileLock(f"{self.path}.lock"):
                files = self._read() | {file.name: sha256}
                self._write(json.dumps({"schema": SCHEMA, "files": files}, indent=2, sort_keys=True))
        except OSError as error:
            log.warning("%s cannot be written (%s): %s is not checked for changes", self.path, error, file.name)

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found["schema"] != SCHEMA:
                raise ValueError(f"schema {found['schema']}")
            return {str(name): str(sha256) for name, sha256 in found["files"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{shown(self.path)} is damaged ({error}), so models cannot be checked; "
                "delete it if you trust the models beside it."
            ) from error

    def _write(self, text: str) -> None:
        write_atomically(self.path, text)
