"""`python -m tsbs_daw.lab.songs render FOLDER --songs N --start-seed S --seconds 40`: make a data set of songs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tsbs_daw.core.errors import TsbsDawError
from tsbs_daw.lab.songs.casting import TIMBRES
from tsbs_daw.lab.songs.dataset import SPLITS, render_dataset


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tsbs_daw.lab.songs", description="Make multitrack songs to train and test a separator."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser(
        "render",
        help="write songs in MUSDB18-HQ's layout",
        epilog="example: python -m tsbs_daw.lab.songs render data --songs 10 --start-seed 1000",
    )
    make.add_argument("folder", type=Path)
    make.add_argument("--songs", type=int, default=10)
    make.add_argument(
        "--start-seed",
        type=int,
        default=1000,
        help="; ".join(f"{name} {seeds.start}..{seeds.stop - 1}" for name, seeds in SPLITS.items()),
    )
    make.add_argument("--seconds", type=float, default=40.0)
    make.add_argument(
        "--timbres", choices=TIMBRES, default="builtin", help="who plays; all needs FluidSynth and espeak-ng"
    )
    make.add_argument(
        "--material", type=Path, metavar="DIR", help="a material pack; its recordings play most of the parts"
    )
    make.add_argument("--float", action="store_true", help="32-bit float files instead of 16-bit")
    options = parser.parse_args(arguments)
    try:
        render_dataset(
            options.folder, options.songs, options.start_seed, options.seconds, timbres=options.timbres,
            material=options.material,
            subtype="FLOAT" if options.float else "PCM_16",
            progress=lambda done, total, folder: print(f"{done}/{total} {folder}", flush=True),
        )  # fmt: skip
    except TsbsDawError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
