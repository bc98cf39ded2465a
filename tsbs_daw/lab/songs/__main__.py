"""Make data sets of songs, the recordings they are played on, and the voice banks they sing with.

python -m tsbs_daw.lab.songs pack FOLDER --clone DIR ...
python -m tsbs_daw.lab.songs credits FOLDER
python -m tsbs_daw.lab.songs render FOLDER --songs N --start-seed S --seconds 40
python -m tsbs_daw.lab.songs voices FOLDER --material DIR --minutes M --seed S
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tsbs_daw.core.errors import TsbsDawError
from tsbs_daw.lab.songs.casting import TIMBRES
from tsbs_daw.lab.songs.dataset import SPLITS, render_dataset
from tsbs_daw.lab.songs.material import credits_page, open_material
from tsbs_daw.lab.songs.pack import make_pack
from tsbs_daw.lab.songs.voice_bank import make_bank


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tsbs_daw.lab.songs", description="Make multitrack songs to train and test a separator."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_render(commands)
    _add_voices(commands)
    _add_pack(commands)
    _add_credits(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except TsbsDawError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _add_render(commands: argparse._SubParsersAction) -> None:
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
    make.add_argument(
        "--voices",
        type=Path,
        metavar="DIR",
        help="a voice bank that sings most songs (default: voices/ in the pack, if there is one)",
    )
    make.add_argument("--float", action="store_true", help="32-bit float files instead of 16-bit")
    make.set_defaults(run=_render)


def _render(options: argparse.Namespace) -> None:
    render_dataset(
        options.folder, options.songs, options.start_seed, options.seconds, timbres=options.timbres,
        material=options.material, voices=options.voices,
        subtype="FLOAT" if options.float else "PCM_16",
        progress=lambda done, total, folder: print(f"{done}/{total} {folder}", flush=True),
    )  # fmt: skip


def _add_voices(commands: argparse._SubParsersAction) -> None:
    make = commands.add_parser(
        "voices",
        help="let the recorded voices of a material pack sing, rap and speak into a voice bank (needs pyworld)",
        epilog="example: python -m tsbs_daw.lab.songs voices bank --material pack --minutes 30 --cache analyses",
    )
    make.add_argument("folder", type=Path)
    make.add_argument("--material", type=Path, metavar="DIR", required=True, help="a material pack with vocals")
    make.add_argument("--minutes", type=float, default=30.0)
    make.add_argument("--seed", type=int, default=1)
    make.add_argument("--cache", type=Path, metavar="DIR", help="keep the recordings' analyses for the next bank")
    make.set_defaults(run=_voices)


def _voices(options: argparse.Namespace) -> None:
    make_bank(
        options.folder, options.material, options.minutes, options.seed, options.cache,
        progress=lambda done, total, path: print(f"{done:.1f}/{total:g} min {path}", flush=True),
    )  # fmt: skip


def _add_pack(commands: argparse._SubParsersAction) -> None:
    make = commands.add_parser(
        "pack",
        help="cut a material pack out of clones of the public repositories named in recipes.yaml",
        epilog="example: python -m tsbs_daw.lab.songs pack pack --clone karoryfer.growlybass --clone muldjordkit",
    )
    make.add_argument("folder", type=Path)
    make.add_argument("--clone", type=Path, action="append", required=True, metavar="DIR", help="may be repeated")
    make.set_defaults(run=lambda options: make_pack(options.folder, options.clone))


def _add_credits(commands: argparse._SubParsersAction) -> None:
    make = commands.add_parser(
        "credits",
        help="check the licences and files of a material pack, and print the credits they ask for, as Markdown",
        epilog="example: python -m tsbs_daw.lab.songs credits pack > CREDITS.md",
    )
    make.add_argument("folder", type=Path)
    make.set_defaults(run=lambda options: print(credits_page(open_material(options.folder).sources), end=""))


if __name__ == "__main__":
    sys.exit(main())
