"""Runs a batch on a disk that becomes full half way, then makes room and runs it again: python full_disk.py DISK PLACE

The batch lies in PLACE, its out folder on DISK. Prints the states and reasons of both runs as one line of JSON each.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from batch.stage import run_batch
from harness.stage import QUICK, wav_bytes

from tsbs_daw.batch.plan import BatchRequest
from tsbs_daw.contracts.job import Treatment

SONGS = 6
FILLER_BYTES = 256 * 1024  # of the 512 KiB of the disk; each song takes 60


def main() -> int:
    disk, place = Path(sys.argv[1]), Path(sys.argv[2])
    (place / "crate").mkdir(parents=True)
    for number in range(SONGS):
        (place / "crate" / f"{number}.wav").write_bytes(wav_bytes(number, 30_000))
    (disk / "filler").write_bytes(bytes(FILLER_BYTES))
    request = BatchRequest(folder=place / "crate", out=disk / "out", treatment=Treatment())
    for _ in range(2):
        catalogue = run_batch(request, options=replace(QUICK, retry_limit=2))
        print(json.dumps({song.source: [song.state, song.reason] for song in catalogue.songs}), flush=True)
        (disk / "filler").unlink(missing_ok=True)
    print(json.dumps(sorted(path.name for path in (disk / "out").rglob(".tmp-*"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
