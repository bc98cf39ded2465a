"""The process that runs one chain, so that a plug-in can crash or hang without harm.

Started as `python -m tsbs_daw.effects.child SECONDS`. Everything runs in the main thread, as plug-ins expect. The
messages of `core.conversation`:

parent to child                           child to parent
C  JSON: chain, sample_rate, channels     R  the chain is built
B  a block of float32                     A  the number of the effect that is called next, counted along the chain
E  the last block of float32               B  a block of float32
                                          X  an error message
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import traceback
from typing import IO

import numpy as np

from tsbs_daw.core.child import keep_stdout
from tsbs_daw.core.conversation import receive, send
from tsbs_daw.core.errors import EffectError
from tsbs_daw.effects.chain import LocalChain
from tsbs_daw.effects.table import Effect, effect_from_json


def main() -> None:
    import pedalboard  # noqa: F401 - a slow import that must not count as the plug-in's time

    # A plug-in may print or read the keyboard, so the pipes are moved out of its reach.
    requests, answers = os.fdopen(os.dup(0), "rb"), keep_stdout()
    quiet = os.open(os.devnull, os.O_RDONLY)
    os.dup2(quiet, 0)
    faulthandler.enable()
    code = 0
    try:
        serve(requests, answers, stall_s=float(sys.argv[1]))
    except EffectError as error:
        send(answers, b"X", str(error).encode())
    except (EOFError, BrokenPipeError):
        pass  # the parent has ended
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        # Many plug-ins crash while they are unloaded; by now everything has been sent.
        sys.stderr.flush()
        os._exit(code)


def serve(requests: IO[bytes], answers: IO[bytes], stall_s: float) -> None:
    """Build the chain and run it to the end.

    Args:
        requests: pipe from the parent
        answers: pipe to the parent
        stall_s: this process ends itself after this long inside one call, even without a parent

    Raises:
        EffectError: the chain cannot be built or fails
        EOFError: the parent has ended
    """
    send(answers, b"R")
    _, payload = receive(requests)
    request = json.loads(payload)
    effects = tuple(effect_from_json(effect) for effect in request["chain"])
    numbers = {id(inner): n for n, inner in enumerate(inner for effect in effects for inner in effect.walk())}
    channels = request["channels"]

    def announce(effect: Effect) -> None:
        send(answers, b"A", str(numbers[id(effect)]).encode())

    faulthandler.dump_traceback_later(stall_s, exit=True)
    chain = LocalChain(effects, request["sample_rate"], channels, announce)
    send(answers, b"R")
    while True:
        faulthandler.cancel_dump_traceback_later()
        kind, payload = receive(requests)
        faulthandler.dump_traceback_later(stall_s, exit=True)
        block = np.frombuffer(payload, np.float32).reshape(channels, -1)
        done = chain.process(block, last=kind == b"E")
        send(answers, b"B", np.ascontiguousarray(done, np.float32).tobytes())
        if kind == b"E":
            return


if __name__ == "__main__":
    main()
