"""Commands for developers of the models.

python -m tsbs_daw.lab.evaluation fit SONGS --out WEIGHTS.json          fit the weights of the analysis
python -m tsbs_daw.lab.evaluation real-songs OUT --clone REPOSITORY     make the songs of the benchmark
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from tsbs_daw.core.errors import TsbsDawError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tsbs_daw.lab.evaluation", description="Fit the analysis; make the benchmark's songs."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser(
        "fit",
        help="fit weights.json to songs of the project's generator",
        epilog="example: python -m tsbs_daw.lab.evaluation fit data --out tsbs_daw/analysis/weights.json",
    )
    fitting.add_argument("songs", type=Path, nargs="+", help="folders of songs with song.json; no test songs")
    fitting.add_argument("--out", type=Path, required=True)
    fitting.add_argument("--model", default="default", help="model that separates the stems")
    fitting.add_argument(
        "--symbolic-songs", "--sketches", type=int, default=2000, help="number of symbolic songs to fit keys to"
    )
    fitting.add_argument("--heard", type=Path, help="cache extracted features in this folder")
    making = commands.add_parser(
        "real-songs",
        help="make the benchmark's songs from clones of their repositories",
        epilog="example: python -m tsbs_daw.lab.evaluation real-songs real --clone webaudio-examples",
    )
    making.add_argument("out", type=Path, help="folder to write the songs to")
    making.add_argument(
        "--clone", type=Path, action="append", required=True, help="a cloned repository; may be repeated"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if options.command == "real-songs":
            from tsbs_daw.lab.evaluation.real import make_real_songs

            make_real_songs(options.out, options.clone)
            return 0
        _fit(options.songs, options.out, options.model, options.symbolic_songs, options.heard)
    except TsbsDawError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _fit(folders: list[Path], out: Path, model: str, symbolic_songs: int, kept: Path | None) -> None:
    from tsbs_daw.lab.evaluation.analysis import extract_songs
    from tsbs_daw.lab.evaluation.fit import learn
    from tsbs_daw.separation.separator import Separator

    separator = Separator.load(model, "cpu")
    songs, seeds = extract_songs(folders, separator, kept)
    learned = learn(songs, symbolic_songs)
    how = {
        "command": "python -m tsbs_daw.lab.evaluation fit SONGS --out tsbs_daw/analysis/weights.json",
        "model_hash": separator.model_hash,
        "songs": len(songs),
        "seeds": seeds,
        "sketches": symbolic_songs,
    }
    out.write_text(_laid_out({**learned, "how": how}), encoding="utf-8")
    print(json.dumps({"doubt": learned["doubt"], "unseen": learned["unseen"]}, indent=1))


def _laid_out(document: dict[str, dict]) -> str:
    """Format JSON with one line per question, so that a diff shows what changed."""
    parts = [
        f" {json.dumps(part)}: {{\n"
        + ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items())
        + "\n }"
        for part, values in document.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
