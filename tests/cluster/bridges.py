"""A bridge without Ray, as a process: python bridges.py KIND FOLDER

good      answers every chunk with its half, once for each stem
dies      the same, and dies after three
damages   damages the first estimate that it ever sends, and no other
silent    connects, has no node, and answers nothing
refuses   says of every chunk that no node can compute it
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tsbs_daw.cluster.bridge import Channel, read_frame
from tsbs_daw.cluster.node import digest
from tsbs_daw.core.child import keep_stdout

STEMS = 4


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    channel, answered = Channel(keep_stdout()), 0
    lanes = 0 if kind == "silent" else 2
    channel.send("alive", lanes=lanes, capacity=2 * lanes)
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        head, chunk = frame
        if kind == "refuses":
            channel.send("failed", id=head["id"], error="cpu has too little free memory")
            continue
        if kind == "silent":
            continue
        estimate = np.repeat(chunk[None] / 2, STEMS, axis=0)
        known = digest(estimate)
        if kind == "damages" and not (folder / "damaged").exists():
            (folder / "damaged").touch()
            estimate[0, 0, 0] += 1
        channel.send("estimate", estimate, id=head["id"], hash=known)
        answered += 1
        if kind == "dies" and answered == 3:
            sys.exit(1)


if __name__ == "__main__":
    main()
