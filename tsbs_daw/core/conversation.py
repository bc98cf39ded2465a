"""Conversations with a child process: messages in both directions, until one side ends.

A message is a tag of one byte, the length of its body as a little-endian uint32, and the body. The parent opens a
`Conversation`; the child reads its stdin with `receive`, and answers with `send` on the stream of `child.keep_stdout`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import select
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, cast

from tsbs_daw.core.child import ChildFailed, ChildTimeout, describe_exit

log = logging.getLogger(__name__)

LARGEST_BYTES = 1 << 30
REAP_S = 5.0
PIPE_BYTES = 1 << 20
GARBLED = "an invalid message"

_HEADER = struct.Struct("<cI")


class Conversation:
    """The parent's end of a conversation. The child is not trusted: lengths and silences are bounded.

    Args:
        command: From `python`.
        env: From `environment`; None: this process's.
        log_lines: How many of the last lines that it prints to keep; 0: what it prints is dropped.
        largest_bytes: A message that claims to be longer is invalid.

    Attributes:
        process: The child.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        log_lines: int = 0,
        largest_bytes: int = LARGEST_BYTES,
    ):
        errors = subprocess.PIPE if log_lines else subprocess.DEVNULL
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, bufsize=0, env=env)
        assert self.process.stdin is not None and self.process.stdout is not None
        self._to_child = self.process.stdin
        self._from_child = cast(io.RawIOBase, self.process.stdout)  # as it has no buffer
        self._largest = largest_bytes
        self._lines: deque[bytes] = deque(maxlen=log_lines)
        self._listener = threading.Thread(target=self._listen, name="child's log", daemon=True) if log_lines else None
        if self._listener:
            self._listener.start()
        enlarge(self._from_child)

    def send(self, tag: bytes, body: bytes = b"", *, limit_s: float) -> None:
        """Send a message.

        Raises:
            ChildFailed: The child has ended.
            ChildTimeout: It did not take the message within the limit, and was killed.
        """
        late = threading.Event()
        with self._killed_after(limit_s, late), contextlib.suppress(OSError, ValueError):
            for part in (_HEADER.pack(tag, len(body)), body):
                view = memoryview(part)
                while view:
                    view = view[self._to_child.write(view) :]
            return
        raise self._timeout(limit_s) if late.is_set() else self._failed()

    def receive(self, limit_s: float) -> tuple[bytes, bytearray]:
        """Receive the next message: its tag and its body.

        Args:
            limit_s: How long the child may be silent.

        Raises:
            ChildFailed: The child has ended, or sent what is no message.
            ChildTimeout: It was silent for longer, and was killed.
        """
        tag, size = _HEADER.unpack(self._exactly(_HEADER.size, limit_s))
        if size > self._largest:
            self.close()
            raise ChildFailed(GARBLED, self.log, self.process.returncode)
        return tag, self._exactly(size, limit_s)

    def close(self) -> None:
        """End the child and close its pipes. May be called again."""
        self._reap()
        with contextlib.suppress(OSError):
            self._to_child.close()
        with contextlib.suppress(OSError):
            self._from_child.close()

    @property
    def log(self) -> str:
        """The last lines that the child printed."""
        return b"".join(list(self._lines)).decode("utf-8", "replace").strip()

    def _listen(self) -> None:
        """Read what the child prints, which may be endless; keep the last lines only."""
        assert self.process.stderr is not None
        raw = cast(io.RawIOBase, self.process.stderr)  # as it has no buffer
        with contextlib.suppress(ValueError, OSError), io.BufferedReader(raw) as printed:
            while line := printed.readline(4096):
                self._lines.append(line)

    def _exactly(self, size: int, limit_s: float) -> bytearray:
        body = bytearray(size)
        view = memoryview(body)
        while view:
            count = self._read_within(view, limit_s)
            if not count:
                raise self._failed()
            view = view[count:]
        return body

    def _read_within(self, view: memoryview, limit_s: float) -> int:
        """Read what is there; 0 at the end.

        A process that waits for a dead network share cannot be killed and never closes its pipe, so on POSIX the parent
        waits with its own limit. Windows cannot wait on pipes with a limit; there the child is killed.
        """
        if sys.platform != "win32":
            poller = select.poll()
            poller.register(self._from_child, select.POLLIN)
            if not poller.poll(max(0.0, 1000 * limit_s)):
                raise self._timeout(limit_s)
            return self._from_child.readinto(view) or 0
        late = threading.Event()
        with self._killed_after(limit_s, late):
            count = self._from_child.readinto(view) or 0
        if late.is_set() and not count:
            raise self._timeout(limit_s)
        return count

    @contextlib.contextmanager
    def _killed_after(self, limit_s: float, late: threading.Event) -> Iterator[None]:
        def kill() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(limit_s, kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _timeout(self, limit_s: float) -> ChildTimeout:
        self._reap()
        return ChildTimeout(f"no answer within {limit_s:g} s")

    def _failed(self) -> ChildFailed:
        code = self._ended_by_itself()
        return ChildFailed(describe_exit(code), self.log, code)

    def _ended_by_itself(self) -> int | None:
        """Its exit code, once it has closed its pipe; a child that only closed its pipe is killed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(REAP_S)
        self._reap()
        return self.process.returncode

    def _reap(self) -> None:
        """End the child, within a limit: one that waits for a dead share cannot be ended."""
        if self.process.poll() is None:
            self.process.kill()
        try:
            self.process.wait(REAP_S)
        except subprocess.TimeoutExpired:
            log.error("process %d cannot be ended; it is left to the system", self.process.pid)
            return
        if self._listener:
            self._listener.join()


def enlarge(pipe: IO[bytes] | io.RawIOBase) -> None:
    """Enlarge the pipe, where the system can, so that the child can work a block or two ahead."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)


# Both sides of a conversation


def send(stream: IO[bytes], tag: bytes, body: bytes | memoryview = b"") -> None:
    """Write one message and flush it. The child's counterpart of `Conversation.receive`."""
    stream.write(_HEADER.pack(tag, len(body)))
    stream.write(body)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[bytes, bytes]:
    """Read one message: tag and body. The child's counterpart of `Conversation.send`.

    Raises:
        EOFError: The other side has ended, or sent what is no message.
    """
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    tag, length = _HEADER.unpack(header)
    if length > LARGEST_BYTES:
        raise EOFError
    body = stream.read(length)
    if len(body) < length:
        raise EOFError
    return tag, body
