"""The decoder: a program of its own that turns a file into float32 samples on its standard output.

It runs as a child process, because codecs are written in C and files come from anywhere: what it does to memory, time
or itself stays here. It is started by path, imports nothing of this package, and sets its own limits first.

    python decoder.py PATH START DISCARD BLOCK MEMORY

    START    first sample to send; DISCARD 1: reach it by decoding (exact in every codec), 0: by seeking
    BLOCK    samples per message
    MEMORY   limit of the address space in bytes, 0 for none (POSIX)

Messages, each a tag of one byte, the length of the body as a little-endian uint32, and the body:

    H  header, JSON: samples, sample_rate, channels, container, subtype
    D  interleaved float32 samples, native order
    E  end, JSON: samples decoded in all, from the file's first
    X  failure, JSON: kind (open, decode, memory, internal), message, samples, at_end of the file

Standard input carries nothing: when it closes, the parent is gone, and this process ends too.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import soundfile


CHANNEL = 1  # the descriptor that messages go to


class Failure(Exception):
    def __init__(self, kind: str, message: str, samples: int = 0, at_end: bool = False):
        self.report = {"kind": kind, "message": message, "samples": samples, "at_end": at_end}
        super().__init__(message)


def limit_memory(limit_bytes: int) -> None:
    """Lower this process's address space; systems that cannot (Windows, some of macOS) are left as they are."""
    if not limit_bytes:
        return
    try:
        import resource
    except ImportError:
        return
    for name, value in (("RLIMIT_AS", limit_bytes), ("RLIMIT_CORE", 0)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (value, value))


def end_with_parent() -> None:
    """Leave when the parent does, and only then: a Ctrl-C or SIGTERM to the whole group is for the parent to judge."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    def wait() -> None:
        # The raw descriptor: a buffered read would hold a lock that the interpreter wants at its own end.
        with contextlib.suppress(OSError):
            while os.read(0, 1):
                pass
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


def claim_output() -> int:
    """A descriptor of standard output for messages alone: what a C library prints goes to standard error instead."""
    channel = os.dup(1)
    os.dup2(2, 1)
    return channel


def write_all(view: memoryview) -> None:
    while view:
        view = view[os.write(CHANNEL, view) :]


def send(tag: bytes, body: bytes | memoryview) -> None:
    write_all(memoryview(tag + struct.pack("<I", len(body))))
    write_all(memoryview(body))


def send_json(tag: bytes, document: dict) -> None:
    send(tag, json.dumps(document).encode("ascii"))


def decode(path: str, start: int, discard: bool, block: int) -> None:
    """Send the file at `path`, from sample `start` on.

    Raises: Failure: what libsndfile says, with the number of samples decoded until then
    """
    import soundfile

    class Stream(soundfile.SoundFile):
        def seekable(self) -> bool:
            """No: else soundfile seeks after each read, which makes a decoder start anew for nothing."""
            return False

    # By descriptor, so that neither the name's bytes nor its ending mean anything; C runtimes on Windows do not share
    # descriptors, so there it is the file object.
    with io.FileIO(path) as file:
        source = file if sys.platform == "win32" else file.fileno()
        try:
            stream = Stream(source, closefd=False)
        except soundfile.LibsndfileError as error:
            raise Failure("open", error.error_string) from error
        info = {"samples": stream.frames, "sample_rate": stream.samplerate, "channels": stream.channels}
        send_json(b"H", info | {"container": stream.format, "subtype": stream.subtype})
        done = 0
        try:
            if start and not discard:
                done = stream.seek(start)
            for count, samples in blocks(stream, block):
                skip = min(max(start - done, 0), count)
                done += count
                if skip < count:
                    send(b"D", samples[skip * 4 * stream.channels :])
        except soundfile.LibsndfileError as error:
            at_end = file.tell() >= os.fstat(file.fileno()).st_size
            raise Failure("decode", error.error_string, done, at_end) from error
        send_json(b"E", {"samples": done})


def blocks(stream: soundfile.SoundFile, block: int) -> Iterator[tuple[int, memoryview]]:
    """Decode to the end: the number of samples and their bytes, valid until the next turn."""
    frame_bytes = 4 * stream.channels
    buffer = memoryview(bytearray(block * frame_bytes))
    while count := stream.buffer_read_into(buffer, dtype="float32"):
        yield count, buffer[: count * frame_bytes]


def main(arguments: list[str]) -> int:
    global CHANNEL
    path, start, discard, block, memory = arguments
    CHANNEL = claim_output()
    end_with_parent()
    limit_memory(int(memory))
    try:
        decode(path, int(start), discard == "1", int(block))
    except BrokenPipeError:
        return 0  # the parent has what it wanted
    except Failure as failure:
        send_json(b"X", failure.report)
    except MemoryError:
        send_json(b"X", Failure("memory", "out of memory").report)
    except Exception as error:
        send_json(b"X", Failure("internal", f"{type(error).__name__}: {error}").report)
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # Not sys.exit: tearing down the interpreter costs time, and C libraries may misbehave while it lasts.
    os._exit(status)
