"""Runs a batch on a disk that becomes full half way, then makes room and runs it again: python full_disk.py DISK PLACE

The batch lies in PLACE, its out folder on DISK, which is filled after the first song: what a song takes is then known,
and two and a half more fit. The half is room for the catalogue, however long the paths in it. Prints the states and
reasons of the two runs after that as one line of JSON each.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from batch.stage import run_batch
from harness.stage import QUICK, wav_bytes

from tsbs_daw.batch.plan import BatchRequest
from tsbs_daw.contracts.job import Treatment

SONGS = 6
MORE = 2.5  # songs that fit beside the first one, when the page is not being written


def main() -> int:
    disk, place = Path(sys.argv[1]), Path(sys.argv[2])
    crate = place / "crate"
    crate.mkdir(parents=True)
    request = BatchRequest(folder=crate, out=disk / "out", treatment=Treatment())
    (crate / "0.wav").write_bytes(wav_bytes(0, 30_000))
    run_batch(request, options=QUICK)
    song_bytes = sum(path.stat().st_blocks * 512 for path in (disk / "out" / "0").rglob("*"))
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - round(MORE * song_bytes)))
    for number in range(1, SONGS):
        (crate / f"{number}.wav").write_bytes(wav_bytes(number, 30_000))
    for _ in range(2):
        catalogue = run_batch(request, options=replace(QUICK, retry_limit=2))
        print(json.dumps({song.source: [song.state, song.reason] for song in catalogue.songs}), flush=True)
        (disk / "filler").unlink(missing_ok=True)
    print(json.dumps(sorted(path.name for path in (disk / "out").rglob(".tmp-*"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
