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
    """The parent's end of a conversation. The child is not trusted: message lengths and waiting times are limited.

    Args:
        command: Command line; see `child.python`.
        env: Environment; see `child.environment`. None for that of this process.
        log_lines: Number of lines to keep from the end of the child's stderr; 0 discards it.
        largest_bytes: Longest message that is accepted from the child.

    Attributes:
        process: The child process.
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
        self._from_child = cast(io.RawIOBase, self.process.stdout)  # raw, because of bufsize=0
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
            ChildTimeout: The child did not read the message within the limit and was killed.
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
        """Receive the tag and the body of the next message.

        Args:
            limit_s: Longest time without data from the child.

        Raises:
            ChildFailed: The child has ended, or sent an invalid message.
            ChildTimeout: The child sent nothing within the limit and was killed.
        """
        tag, size = _HEADER.unpack(self._exactly(_HEADER.size, limit_s))
        if size > self._largest:
            self.close()
            raise ChildFailed(GARBLED, self.log, self.process.returncode)
        return tag, self._exactly(size, limit_s)

    def close(self) -> None:
        """End the child and close its pipes. Calling it again does no harm."""
        self._reap()
        with contextlib.suppress(OSError):
            self._to_child.close()
        with contextlib.suppress(OSError):
            self._from_child.close()

    @property
    def log(self) -> str:
        """The last lines of the child's stderr."""
        return b"".join(list(self._lines)).decode("utf-8", "replace").strip()

    def _listen(self) -> None:
        """Read the child's stderr, which may be endless, and keep only the last lines."""
        assert self.process.stderr is not None
        raw = cast(io.RawIOBase, self.process.stderr)  # raw, because of bufsize=0
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
        """Read the available bytes into `view` and return their number; 0 at the end of the stream.

        A process that waits for a dead network share cannot be killed and never closes its pipe, so on POSIX the parent
        polls the pipe with a timeout. Windows cannot wait on pipes with a timeout; there the child is killed.
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
        """Return the exit code of a child that has closed its pipe; kill it if it does not exit by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(REAP_S)
        self._reap()
        return self.process.returncode

    def _reap(self) -> None:
        """Kill the child and wait a limited time: one that waits for a dead share cannot be killed."""
        if self.process.poll() is None:
            self.process.kill()
        try:
            self.process.wait(REAP_S)
        except subprocess.TimeoutExpired:
            log.error("process %d did not end after being killed; leaving it to the system", self.process.pid)
            return
        if self._listener:
            self._listener.join()


def enlarge(pipe: IO[bytes] | io.RawIOBase) -> None:
    """Enlarge a pipe, if the system supports it, so that the child can work a block or two ahead."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)


# Both sides of a conversation


def send(stream: IO[bytes], tag: bytes, body: bytes | memoryview = b"") -> None:
    """Write one message and flush the stream. The child's counterpart of `Conversation.receive`."""
    stream.write(_HEADER.pack(tag, len(body)))
    stream.write(body)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[bytes, bytes]:
    """Read the tag and the body of one message. The child's counterpart of `Conversation.send`.

    Raises:
        EOFError: The other side has ended, or sent an invalid message.
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
