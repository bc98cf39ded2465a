"""A balanced part of a material pack: python choose_material.py [--whole] PACK TARGET MEGABYTES.

Every source of a stem gives a recording in turn until the stem's share is full. --whole: any folder, its files in
order of name until the size is reached.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

SHARES = {"vocals": 0.35, "other": 0.35, "drums": 0.17, "bass": 0.13}


def copy(pack: Path, target: Path, path: str) -> None:
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(pack / path, target / path)


def balanced(pack: Path, target: Path, budget: float) -> None:
    rows, dice = json.loads((pack / "index.json").read_text(encoding="utf-8")), random.Random(1)
    copy(pack, target, "index.json")
    for stem, share in SHARES.items():
        sources: dict[str, list[dict]] = {}
        for row in rows:
            if row["stem"] == stem and (pack / row["path"]).is_file():
                sources.setdefault(row["source"], []).append(row)
        for group in sources.values():
            dice.shuffle(group)
        left = budget * share
        while left > 0 and any(sources.values()):
            for group in sources.values():
                if group and left > 0:
                    row = group.pop()
                    left -= row["bytes"]
                    copy(pack, target, row["path"])


def whole(folder: Path, target: Path, budget: float) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.suffix != ".json", str(path))):
        budget -= path.stat().st_size
        if budget > 0:
            copy(folder, target, str(path.relative_to(folder)))


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--whole"]
    source, destination, size = Path(arguments[0]), Path(arguments[1]), float(arguments[2]) * 1e6
    shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir(parents=True)
    (whole if "--whole" in sys.argv else balanced)(source, destination, size)
