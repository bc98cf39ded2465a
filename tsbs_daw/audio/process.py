"""The decoder's process as the parent sees it: start, receive, stop. POSIX and Windows alike.

Nothing here believes what the child says: a message's length is bounded, a silence is bounded, an end without a
farewell is a crash.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from tsbs_daw.errors import UnreadableAudio, shown

log = logging.getLogger(__name__)

STALL_S = 30.0  # a decoder that says nothing for so long is killed
MEMORY_BYTES = 1 << 30  # of address space; about 150 MB of it is Python and numpy being there at all
MESSAGE_BYTES = 1 << 26
PIPE_BYTES = 1 << 20


class DecoderProcess:
    """A decoder at work on one file.

    Args:   plan: what it is to do, as its own docstring says, but for the path and the memory
            stall_s: how long it may be silent while it is listened to
    """

    def __init__(self, path: Path, plan: dict, *, stall_s: float = STALL_S, memory_bytes: int = MEMORY_BYTES):
        self.path, self.stall_s = path, stall_s
        self.stalled = False
        program = str(Path(__file__).with_name("decoder.py"))
        whole_plan = json.dumps(plan | {"path": str(path.absolute()), "memory_bytes": memory_bytes})
        self.process = subprocess.Popen(
            [sys.executable, program, whole_plan],
            stdin=subprocess.PIPE,  # closing it tells the child to go
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries print warnings there; what matters comes as a message
            bufsize=0,
            # One thread: numpy's library reserves address space for each. The rest keeps the start short and quiet.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"},
        )

        _enlarge(self.process.stdout)

    def receive(self) -> tuple[bytes, bytearray]:
        """The next message: tag and body.

        Raises: UnreadableAudio: the decoder stalled, crashed, or sent nonsense
        """
        timer = threading.Timer(self.stall_s, self._stall)
        timer.daemon = True
        timer.start()
        try:
            tag, size = struct.unpack("<cI", self._exactly(5))
            if size > MESSAGE_BYTES:
                self.close()
                raise UnreadableAudio(f"The decoder of {shown(self.path)} sent nonsense; the file is not usable.")
            return tag, self._exactly(size)
        finally:
            timer.cancel()

    def _exactly(self, size: int) -> bytearray:
        body = bytearray(size)
        view = memoryview(body)
        while view:
            count = self.process.stdout.readinto(view)
            if not count:
                raise self._lost()
            view = view[count:]
        return body

    def _stall(self) -> None:
        self.stalled = True
        self.process.kill()

    def _lost(self) -> UnreadableAudio:
        """Why the stream of messages ended too early."""
        status = self.process.wait()
        name = shown(self.path)
        if self.stalled:
            log.warning("decoder of %s killed after %.0f s without a sample", name, self.stall_s)
            return UnreadableAudio(
                f"{name} could not be decoded: nothing came for {self.stall_s:g} s; "
                "check the disk or share it is on, or convert it to WAV."
            )
        log.warning("decoder of %s ended with status %d", name, status)
        return UnreadableAudio(f"{name} could not be decoded: the decoder crashed on it; convert it to WAV.")

    def close(self) -> None:
        """Stop the child, whatever it does, and leave nothing behind. May be called again."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()


def _enlarge(pipe: IO[bytes]) -> None:
    """Let the child work ahead by a block or two, where the system allows it."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)


def document(body: bytearray) -> dict:
    return json.loads(bytes(body))
