"""The parent's side of the decoder process: start, receive, stop, on POSIX and Windows.

The child is not trusted: the length of a message is bounded, silence is bounded, and an end without a final message is
a crash.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from tsbs_daw.core.errors import DecoderKilled, UnreadableAudio, shown

log = logging.getLogger(__name__)

STALL_S = 30.0  # a decoder that is silent for longer is killed
MEMORY_BYTES = 1 << 30  # of address space; about 150 MB of it is Python and numpy
MESSAGE_BYTES = 1 << 26
PIPE_BYTES = 1 << 20
REAP_S = 5.0


class DecoderProcess:
    """A decoder process for one file.

    Args:
        path: of the file
        plan: as described in `decoder`, without path and memory limit
        stall_s: how long the decoder may be silent while the parent waits for it
        memory_bytes: limit of its address space
    """

    def __init__(self, path: Path, plan: dict, *, stall_s: float = STALL_S, memory_bytes: int = MEMORY_BYTES):
        self.path, self.stall_s = path, stall_s
        self.stalled = False
        program = str(Path(__file__).with_name("media_decoder.py" if plan.get("demuxer") else "decoder.py"))
        whole_plan = json.dumps(plan | {"path": str(path.absolute()), "memory_bytes": memory_bytes})
        self.process = subprocess.Popen(
            [sys.executable, program, whole_plan],
            stdin=subprocess.PIPE,  # closing it ends the child
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # only library warnings; everything else is a message
            bufsize=0,
            # One thread: OpenBLAS reserves address space for each. The others keep the start short and quiet.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"},
        )

        _enlarge(self.process.stdout)

    def receive(self) -> tuple[bytes, bytearray]:
        """Receive the next message: tag and body.

        Raises:
            UnreadableAudio: the decoder stalled, crashed, or sent an invalid message
        """
        tag, size = struct.unpack("<cI", self._exactly(5))
        if size > MESSAGE_BYTES:
            self.close()
            raise UnreadableAudio(f"The decoder of {shown(self.path)} sent an invalid message; the file is not usable.")
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
        """Read what is available; 0 at the end, or if nothing came within the limit and the child was killed.

        A process that waits for a dead network share cannot be killed and never closes its pipe, so on POSIX the parent
        waits with its own limit. Windows cannot wait on pipes with a limit; there the child is killed.
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
        """The error for a stream of messages that ended too early."""
        name = shown(self.path)
        if self.stalled:
            self._reap()
            log.warning("decoder of %s killed after %g s without a sample", name, self.stall_s)
            return UnreadableAudio(
                f"Cannot decode {name}: nothing came for {self.stall_s:g} s. "
                "Check the disk or network share, or convert the file to WAV."
            )
        status = self._reap()
        log.warning("decoder of %s ended with status %s", name, status)
        if sys.platform != "win32" and status == -signal.SIGKILL:
            return DecoderKilled(
                f"Cannot decode {name}: the decoder was killed from outside, as the system does when memory is short. "
                "Close other programs and try again."
            )
        return UnreadableAudio(f"Cannot decode {name}: the decoder crashed on it. Convert the file to WAV.")

    def _reap(self) -> int | None:
        """Wait for the child to end, within a limit. Returns its exit status; None if it cannot be ended."""
        try:
            return self.process.wait(REAP_S)
        except subprocess.TimeoutExpired:
            log.error("process %d cannot be ended; it is left to the system", self.process.pid)
            return None

    def close(self) -> None:
        """Stop the child and close its pipes. May be called again."""
        if self.process.poll() is None:
            self.process.kill()
            self._reap()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()


def _enlarge(pipe: IO[bytes]) -> None:
    """Enlarge the pipe, if the system can, so that the child can work a block or two ahead."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)


def document(body: bytearray) -> dict:
    return json.loads(bytes(body))
