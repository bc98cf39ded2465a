"""The decoder's process as the parent sees it: start, receive, stop. POSIX and Windows alike.

Nothing here believes what the child says: a message's length is bounded, a silence is bounded, an end without a
farewell is a crash.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from tsbs_daw.core.errors import UnreadableAudio, shown

log = logging.getLogger(__name__)

STALL_S = 30.0  # a decoder that says nothing for so long is killed
MEMORY_BYTES = 1 << 30  # of address space; about 150 MB of it is Python and numpy being there at all
MESSAGE_BYTES = 1 << 26
PIPE_BYTES = 1 << 20
REAP_S = 5.0


class DecoderProcess:
    """A decoder at work on one file.

    Args:   plan: what it is to do, as its own docstring says, but for the path and the memory
            stall_s: how long it may be silent while it is listened to
    """

    def __init__(self, path: Path, plan: dict, *, stall_s: float = STALL_S, memory_bytes: int = MEMORY_BYTES):
        self.path, self.stall_s = path, stall_s
        self.stalled = False
        program = str(Path(__file__).with_name("media_decoder.py" if plan.get("demuxer") else "decoder.py"))
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
        tag, size = struct.unpack("<cI", self._exactly(5))
        if size > MESSAGE_BYTES:
            self.close()
            raise UnreadableAudio(f"The decoder of {shown(self.path)} sent nonsense; the file is not usable.")
        return tag, self._exactly(size)

    def _exactly(self, size: int) -> bytearray:
        body = bytearray(size)
        view = memoryview(body)
        while view:
            count = self._read_within_limit(view)
            if not count:
                raise self._lost()
            view = view[count:]
        return body

    def _read_within_limit(self, view: memoryview) -> int:
        """Read what is there; 0 at the end, or when nothing has come within the limit and the child was killed.

        A process that waits for a dead network share cannot be killed, and never lets go of its pipe: so on POSIX the
        parent waits with a limit of its own. Windows has no such wait on pipes; there the child is killed.
        """
        if sys.platform != "win32":
            poller = select.poll()
            poller.register(self.process.stdout, select.POLLIN)
            if not poller.poll(1000 * self.stall_s):
                self._stall()
                return 0
            return self.process.stdout.readinto(view)
        timer = threading.Timer(self.stall_s, self._stall)
        timer.daemon = True
        timer.start()
        try:
            return self.process.stdout.readinto(view)
        finally:
            timer.cancel()

    def _stall(self) -> None:
        self.stalled = True
        self.process.kill()

    def _lost(self) -> UnreadableAudio:
        """Why the stream of messages ended too early."""
        name = shown(self.path)
        if self.stalled:
            self._reap()
            log.warning("decoder of %s killed after %g s without a sample", name, self.stall_s)
            return UnreadableAudio(
                f"{name} could not be decoded: nothing came for {self.stall_s:g} s; "
                "check the disk or share it is on, or convert it to WAV."
            )
        log.warning("decoder of %s ended with status %s", name, self._reap())
        return UnreadableAudio(f"{name} could not be decoded: the decoder crashed on it; convert it to WAV.")

    def _reap(self) -> int | None:
        """Wait for the child's end, but not for ever; its exit status."""
        try:
            return self.process.wait(REAP_S)
        except subprocess.TimeoutExpired:
            log.error("process %d cannot be ended; it is left to the system", self.process.pid)
            return None

    def close(self) -> None:
        """Stop the child, whatever it does, and leave nothing behind. May be called again."""
        if self.process.poll() is None:
            self.process.kill()
            self._reap()
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
