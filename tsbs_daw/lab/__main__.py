"""The commands of those who develop the models: `python -m tsbs_daw.lab COMMAND`.

pack FOLDER --clone DIR ...                         cut recordings out of public repositories
credits FOLDER                                      print whom they ask to credit
voices FOLDER --material DIR --minutes M --seed S   let their voices sing
render FOLDER --songs N --start-seed S              make data sets of songs
fit SONGS --out WEIGHTS.json                        fit the weights of the analysis
real-songs OUT --clone REPOSITORY                   make the songs of the benchmark
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from tsbs_daw.core.errors import TsbsDawError
from tsbs_daw.lab.songs.casting import TIMBRES
from tsbs_daw.lab.songs.material import credits_page, open_material
from tsbs_daw.lab.songs.pack import make_pack
from tsbs_daw.lab.songs.render import SPLITS, render_dataset
from tsbs_daw.lab.songs.voice_bank import make_bank

Commands = argparse._SubParsersAction  # the type has no public name


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tsbs_daw.lab",
        description="Make songs to train and test a separator, fit the analysis, and make the benchmark's songs.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (_add_pack, _add_credits, _add_voices, _add_render, _add_fit, _add_real_songs):
        add(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except TsbsDawError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _add_pack(commands: Commands) -> None:
    make = commands.add_parser(
        "pack",
        help="cut a material pack out of clones of the public repositories named in recipes.yaml",
        epilog="example: python -m tsbs_daw.lab pack pack --clone karoryfer.growlybass --clone muldjordkit",
    )
    make.add_argument("folder", type=Path)
    make.add_argument("--clone", type=Path, action="append", required=True, metavar="DIR", help="may be repeated")
    make.set_defaults(run=lambda options: make_pack(options.folder, options.clone))


def _add_credits(commands: Commands) -> None:
    make = commands.add_parser(
        "credits",
        help="check the licences and files of a material pack, and print the credits they ask for, as Markdown",
        epilog="example: python -m tsbs_daw.lab credits pack > CREDITS.md",
    )
    make.add_argument("folder", type=Path)
    make.set_defaults(run=lambda options: print(credits_page(open_material(options.folder).sources), end=""))


def _add_voices(commands: Commands) -> None:
    make = commands.add_parser(
        "voices",
        help="let the recorded voices of a material pack sing, rap and speak into a voice bank (needs pyworld)",
        epilog="example: python -m tsbs_daw.lab voices bank --material pack --minutes 30 --cache analyses",
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


def _add_render(commands: Commands) -> None:
    make = commands.add_parser(
        "render",
        help="write songs in MUSDB18-HQ's layout",
        epilog="example: python -m tsbs_daw.lab render data --songs 10 --start-seed 1000",
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


def _add_fit(commands: Commands) -> None:
    fit = commands.add_parser(
        "fit",
        help="fit weights.json to songs of the project's generator",
        epilog="example: python -m tsbs_daw.lab fit data --out tsbs_daw/analysis/weights.json",
    )
    fit.add_argument("songs", type=Path, nargs="+", help="folders of songs with song.json; no test songs")
    fit.add_argument("--out", type=Path, required=True)
    fit.add_argument("--model", default="default", help="model that separates the stems")
    fit.add_argument(
        "--symbolic-songs", "--sketches", type=int, default=2000, help="number of symbolic songs to fit keys to"
    )
    fit.add_argument("--heard", type=Path, help="cache extracted features in this folder")
    fit.set_defaults(run=_fit)


def _fit(options: argparse.Namespace) -> None:
    from tsbs_daw.lab.evaluation.fit import write_weights  # scipy and torch, which rendering can do without

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    learned = write_weights(options.songs, options.out, options.model, options.symbolic_songs, options.heard)
    print(json.dumps({"doubt": learned["doubt"], "unseen": learned["unseen"]}, indent=1))


def _add_real_songs(commands: Commands) -> None:
    make = commands.add_parser(
        "real-songs",
        help="make the benchmark's songs from clones of their repositories",
        epilog="example: python -m tsbs_daw.lab real-songs real --clone webaudio-examples",
    )
    make.add_argument("out", type=Path, help="folder to write the songs to")
    make.add_argument("--clone", type=Path, action="append", required=True, help="a cloned repository; may be repeated")
    make.set_defaults(run=_real_songs)


def _real_songs(options: argparse.Namespace) -> None:
    from tsbs_daw.lab.evaluation.real import make_real_songs

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make_real_songs(options.out, options.clone)


if __name__ == "__main__":
    sys.exit(main())
