"""The decoder, a separate program that decodes a file to float32 samples, and `DecoderProcess`, which runs it.

The decoder is a child process because codecs are written in C and files are untrusted. If a file crashes the codec,
hangs it or exhausts memory, only the child is affected. It limits its own resources before it opens the file.

    python -m tsbs_daw.audio.decoder PLAN

PLAN is a JSON object:

    path            file to decode
    start_samples   first sample to send
    discard         true: reach start_samples by decoding, which is exact in every codec; false: by seeking
    block_samples   samples per message
    step_samples    samples per call of the codec; an error loses at most this many
    memory_bytes    limit of the address space (POSIX); 0: no limit
    window          null, or the parts of the file to decode: {prefix (hex), parts ([start, end]), pipe}

Messages, see `core.conversation`:

    H  header, JSON: samples, sample_rate, channels, container, subtype; state, the identity of the open file
    D  interleaved float32 samples in native byte order
    E  end, JSON: samples decoded, counted from the start of the file; left_bytes, the unread rest of the file
    X  failure, JSON: kind (open, decode, change, memory, internal), message, samples, at_end (the file was read to its
       end)

Nothing is sent over standard input. When it closes, the parent has exited, and the decoder exits too. `media_decoder`
takes the same plan for formats that libsndfile does not support. Codecs are imported where they are used, so that the
parent does not load them.
"""

from __future__ import annotations

import bisect
import io
import itertools
import json
import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tsbs_daw.core import child, conversation
from tsbs_daw.core.errors import DecoderKilled, UnreadableAudio, shown

if TYPE_CHECKING:
    import soundfile
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)

STALL_S = 30.0  # a decoder that is silent for longer is killed
MEMORY_BYTES = 1 << 30  # of address space; about 150 MB of it is Python and numpy
MESSAGE_BYTES = 1 << 26


class DecoderProcess:
    """A decoder process for one file.

    Args:
        path: File to decode.
        plan: The plan described above, without `path` and `memory_bytes`.
        stall_s: Seconds to wait for a message before the decoder is killed.
        memory_bytes: Limit of the decoder's address space.
    """

    def __init__(self, path: Path, plan: dict[str, Any], *, stall_s: float = STALL_S, memory_bytes: int = MEMORY_BYTES):
        self.path, self.stall_s = path, stall_s
        module = "media_decoder" if plan.get("demuxer") else "decoder"
        whole_plan = json.dumps(plan | {"path": str(path.absolute()), "memory_bytes": memory_bytes})
        # OpenBLAS reserves address space for each thread, so use one. The other variables make startup fast and quiet.
        variables = {"OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"}
        self._decoder = conversation.Conversation(
            child.python(f"tsbs_daw.audio.{module}", whole_plan),
            env=child.environment(extra=variables),
            largest_bytes=MESSAGE_BYTES,
        )
        self.process = self._decoder.process

    def receive(self) -> tuple[bytes, bytearray]:
        """Receive the next message.

        Returns:
            The tag and the body.

        Raises:
            DecoderKilled: The system killed the decoder, or it sent nothing for `stall_s` seconds.
            UnreadableAudio: The decoder crashed, or sent an invalid message.
        """
        name = shown(self.path)
        try:
            return self._decoder.receive(self.stall_s)
        except child.ChildTimeout as error:
            log.warning("killed the decoder of %s after %g s without output", name, self.stall_s)
            raise DecoderKilled(
                f"Cannot decode {name}: the decoder sent nothing for {self.stall_s:g} s. "
                "Check the disk or network share, or convert the file to WAV."
            ) from error
        except child.ChildFailed as error:
            log.warning("the decoder of %s ended: %s", name, error.exit_text)
            raise self._failure(error) from error

    def _failure(self, error: child.ChildFailed) -> UnreadableAudio:
        """Translate the end of the child into an error for the user."""
        name = shown(self.path)
        if error.exit_text == conversation.GARBLED:
            return UnreadableAudio(f"The decoder of {name} sent an invalid message. Convert the file to WAV.")
        if sys.platform != "win32" and error.code == -signal.SIGKILL:
            return DecoderKilled(
                f"Cannot decode {name}: the decoder was killed, probably because memory ran out. "
                "Close other programs and try again, or convert the file to WAV."
            )
        return UnreadableAudio(f"Cannot decode {name}: the decoder crashed. Convert the file to WAV.")

    def close(self) -> None:
        """Stop the child and close its pipes. May be called more than once."""
        self._decoder.close()


def document(body: bytearray) -> dict[str, Any]:
    """Parse the JSON object in the body of a message."""
    parsed: dict[str, Any] = json.loads(bytes(body))
    return parsed


# ---- the program -----------------------------------------------------------------------------------------------------

CHANNEL: BinaryIO | None = None  # the stream for messages to the parent


class Failure(Exception):
    """A failure to report to the parent in an X message."""

    def __init__(self, kind: str, message: str, samples: int = 0, at_end: bool = False):
        self.report = {"kind": kind, "message": message, "samples": samples, "at_end": at_end}
        super().__init__(message)


def send(tag: bytes, body: bytes | memoryview) -> None:
    """Send a message to the parent."""
    assert CHANNEL is not None, "main sets the channel"
    conversation.send(CHANNEL, tag, body)


def send_json(tag: bytes, document: dict) -> None:
    """Send a message whose body is JSON."""
    send(tag, json.dumps(document).encode("ascii"))


class WindowFile(io.RawIOBase):
    """A read-only file object: a prefix, followed by parts of another file.

    Args:
        file: File that holds the parts.
        prefix: First bytes of the window.
        parts: Start and end of each part in `file`, in bytes.
    """

    def __init__(self, file: io.FileIO, prefix: bytes, parts: list[tuple[int, int]]):
        super().__init__()
        self.file, self.prefix, self.parts = file, prefix, parts
        # Offsets in the window: part i covers the bytes from begins[i] to begins[i + 1].
        self.begins = [*itertools.accumulate((end - start for start, end in parts), initial=len(prefix))]
        self.size = self.begins[-1]
        self.position = 0

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = max(base + offset, 0)
        return self.position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer)
        if self.position < len(self.prefix):
            data = self.prefix[self.position : self.position + len(target)]
        elif self.position < self.size:
            number = bisect.bisect_right(self.begins, self.position) - 1
            inside = self.position - self.begins[number]
            self.file.seek(self.parts[number][0] + inside)
            data = self.file.read(min(len(target), self.begins[number + 1] - self.position))
        else:
            data = b""
        target[: len(data)] = data
        self.position += len(data)
        return len(data)


def open_source(plan: dict) -> io.FileIO:
    """Open the file of a plan, and store its identity as `state` in the plan (see `core.files.content_state`).

    Raises:
        Failure: The file cannot be opened, or is not a regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(plan["path"], flags)
    except OSError as error:
        raise Failure("open", error.strerror or str(error)) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise Failure("open", "it is not a regular file")
    plan["state"] = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
    return io.FileIO(descriptor)


def as_pipe(window: io.RawIOBase) -> int:
    """Feed the bytes of the window to a pipe, which has no size, and return its read descriptor."""
    outlet, inlet = os.pipe()

    def feed() -> None:
        try:
            while part := window.read(1 << 16):
                view = memoryview(part)
                while view:
                    view = view[os.write(inlet, view) :]
        finally:
            os.close(inlet)

    threading.Thread(target=feed, daemon=True).start()
    return outlet


def open_stream(whole: io.RawIOBase, pipe: bool) -> soundfile.SoundFile:
    """Open a file with libsndfile.

    The file is opened by descriptor, so that neither its name nor its extension matters. C runtimes on Windows do not
    share descriptors, so there it is opened as a file object.

    Args:
        whole: The file, or a window of it.
        pipe: Hide the size of the window from libsndfile. Ignored on Windows.

    Raises:
        Failure: libsndfile cannot open the file.
    """
    import soundfile

    class Stream(soundfile.SoundFile):
        def seekable(self) -> bool:
            """Return False: otherwise soundfile seeks after each read, which needlessly restarts the decoder."""
            return False

    source: io.RawIOBase | int = whole
    if sys.platform != "win32":
        source = as_pipe(whole) if pipe else whole.fileno() if isinstance(whole, io.FileIO) else whole
    try:
        return Stream(source, closefd=False)
    except soundfile.LibsndfileError as error:
        raise Failure("open", error.error_string) from error


def decode(plan: dict) -> None:
    """Decode a file according to its plan and send the samples.

    Raises:
        Failure: libsndfile failed; the failure holds the number of samples decoded so far.
    """
    start, window = plan["start_samples"], plan["window"]
    with open_source(plan) as file:
        whole: io.RawIOBase = file
        size = os.fstat(file.fileno()).st_size
        if window:
            whole = WindowFile(file, bytes.fromhex(window["prefix"]), window["parts"])
            size = whole.size
        stream = open_stream(whole, bool(window and window["pipe"]))
        info = {"samples": stream.frames, "sample_rate": stream.samplerate, "channels": stream.channels}
        info["state"] = plan["state"]
        send_json(b"H", info | {"container": stream.format, "subtype": stream.subtype})
        done = 0
        try:
            if start and not plan["discard"]:
                done = stream.seek(start)
            for count, samples in blocks(stream, done, plan["block_samples"], plan["step_samples"]):
                skip = min(max(start - done, 0), count)
                done += count
                if skip < count:
                    send(b"D", samples[skip * 4 * stream.channels :])
        except RuntimeError as error:  # the base class of soundfile's errors
            reason = getattr(error, "error_string", str(error))
            raise Failure("decode", reason, done, whole.tell() >= size) from error
        send_json(b"E", {"samples": done, "left_bytes": size - whole.tell()})


def blocks(stream: soundfile.SoundFile, done: int, block: int, step: int) -> Iterator[tuple[int, memoryview]]:
    """Decode from sample `done` to the end of the audio.

    Requests no more samples than the header states, because decoders fail on tags after the audio. Samples decoded
    before an error are yielded before the error is raised.

    Args:
        stream: Open stream, positioned at sample `done`.
        done: Number of samples before that position.
        block: Samples per block.
        step: Samples per call of the codec.

    Yields:
        The number of samples in the block, and their bytes, which stay valid until the next block is requested.

    Raises:
        RuntimeError: The codec failed.
    """
    frame_bytes = 4 * stream.channels
    buffer = memoryview(bytearray(block * frame_bytes))
    ended, error = False, None
    while not ended:
        filled = 0
        while filled < block and not ended:
            wanted = min(step, block - filled, stream.frames - done)
            view = buffer[filled * frame_bytes : (filled + wanted) * frame_bytes]
            try:
                count = stream.buffer_read_into(view, dtype="float32") if wanted else 0
            except RuntimeError as problem:
                count, error = 0, problem
            filled, done, ended = filled + count, done + count, count == 0
        if filled:
            yield filled, buffer[: filled * frame_bytes]
    if error:
        raise error


def main(arguments: list[str], decode: Callable[[dict], None] = decode) -> int:
    """Run the decoder program and report failures to the parent.

    Args:
        arguments: The plan, as one JSON argument.
        decode: Function that decodes a file according to its plan.

    Returns:
        The exit status.
    """
    global CHANNEL
    plan = json.loads(arguments[0])
    CHANNEL = child.keep_stdout()
    child.end_with_parent(only=True)
    child.limit_memory(plan["memory_bytes"])
    try:
        decode(plan)
    except BrokenPipeError:
        return 0  # the parent has read enough
    except Failure as failure:
        send_json(b"X", failure.report)
    except MemoryError:
        send_json(b"X", Failure("memory", "out of memory").report)
    except Exception as error:
        send_json(b"X", Failure("internal", f"{type(error).__name__}: {error}").report)
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # Not sys.exit: interpreter shutdown takes time, and C libraries may crash during it.
    os._exit(status)
