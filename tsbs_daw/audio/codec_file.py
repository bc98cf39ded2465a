"""The file that a codec written in C writes to, through callbacks."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tsbs_daw.core.files import sync_file


class CodecFile:
    """The file under a codec. An OSError inside a callback from C would be lost: it is kept, for `check`."""

    def __init__(self, path: Path):
        self._path, self._file = path, path.open("wb+")
        self.error: OSError | None = None
        self.broken = False

    def write(self, data: bytes) -> int:
        if self.broken or self.error:
            return len(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            return 0

    def read(self, count: int) -> bytes:
        return self._file.read(count)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:  # it flushes
            self.error = self.error or error
            return -1

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        """Nothing: `finish` does it."""

    def check(self) -> None:
        """Raises: OSError: that happened inside a callback"""
        if self.error:
            raise self.error

    def finish(self) -> None:
        """Raises: OSError"""
        self.check()
        self._file.flush()
        sync_file(self._file.fileno())
        self._file.close()

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        if self._path.is_file():  # a device is not ours to remove
            self._path.unlink()
