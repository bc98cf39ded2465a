"""The parent's side of the decoder process: see `core.conversation`."""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from tsbs_daw.core import child, conversation
from tsbs_daw.core.errors import DecoderKilled, UnreadableAudio, shown

log = logging.getLogger(__name__)

STALL_S = 30.0  # a decoder that is silent for longer is killed
MEMORY_BYTES = 1 << 30  # of address space; about 150 MB of it is Python and numpy
MESSAGE_BYTES = 1 << 26


class DecoderProcess:
    """A decoder process for one file.

    Args:
        path: of the file
        plan: as described in `decoder`, without path and memory limit
        stall_s: how long the decoder may be silent while the parent waits for it
        memory_bytes: limit of its address space
    """

    def __init__(self, path: Path, plan: dict[str, Any], *, stall_s: float = STALL_S, memory_bytes: int = MEMORY_BYTES):
        self.path, self.stall_s = path, stall_s
        module = "media_decoder" if plan.get("demuxer") else "decoder"
        whole_plan = json.dumps(plan | {"path": str(path.absolute()), "memory_bytes": memory_bytes})
        # One thread: OpenBLAS reserves address space for each. The others keep the start short and quiet.
        variables = {"OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"}
        self._decoder = conversation.Conversation(
            child.python(f"tsbs_daw.audio.decoder.{module}", whole_plan),
            env=child.environment(extra=variables),
            largest_bytes=MESSAGE_BYTES,
        )
        self.process = self._decoder.process

    def receive(self) -> tuple[bytes, bytearray]:
        """Receive the next message: tag and body.

        Raises:
            DecoderKilled: from outside, or because it was silent for too long
            UnreadableAudio: the decoder crashed, or sent an invalid message
        """
        name = shown(self.path)
        try:
            return self._decoder.receive(self.stall_s)
        except child.ChildTimeout as error:
            log.warning("decoder of %s killed after %g s without a sample", name, self.stall_s)
            raise DecoderKilled(
                f"Cannot decode {name}: nothing came for {self.stall_s:g} s. "
                "Check the disk or network share, or convert the file to WAV."
            ) from error
        except child.ChildFailed as error:
            log.warning("decoder of %s ended: %s", name, error.exit_text)
            raise self._lost(error) from error

    def _lost(self, error: child.ChildFailed) -> UnreadableAudio:
        name = shown(self.path)
        if error.exit_text == conversation.GARBLED:
            return UnreadableAudio(f"The decoder of {name} sent an invalid message; the file is not usable.")
        if sys.platform != "win32" and error.code == -signal.SIGKILL:
            return DecoderKilled(
                f"Cannot decode {name}: the decoder was killed from outside, as the system does when memory is short. "
                "Close other programs and try again, or convert the file to WAV."
            )
        return UnreadableAudio(f"Cannot decode {name}: the decoder crashed on it. Convert the file to WAV.")

    def close(self) -> None:
        """Stop the child and close its pipes. May be called again."""
        self._decoder.close()


def document(body: bytearray) -> dict[str, Any]:
    """The JSON object that a message holds."""
    found: dict[str, Any] = json.loads(bytes(body))
    return found
