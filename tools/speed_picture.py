"""Draws docs/speed.png from a result of `tsbs-daw bench --complete --json`.

python tools/speed_picture.py RESULT.json PICTURE.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

OWN, OTHERS = "#0072b2", "#999999"
NAMES = {
    "separate.factor": "bundled model, file to session",
    "peers.tiny": "bundled model, the network alone",
    "peers.htdemucs": "HTDemucs",
    "sizes.full.bfloat16": "full model, bfloat16",
    "peers.full": "full model, float32",
    "peers.bs_roformer": "BS-RoFormer (384 x 8, 4 stems)",
    "reference.plain": "full model, plainly written",
}


def speeds(report: dict) -> dict[str, float]:
    """Return {label: times real time} of the networks in a report, fastest first."""
    figures = {row["name"]: row["figure"] for row in report["rows"]}
    found = {}
    for name, label in NAMES.items():
        if name in figures:
            found[label] = 1 / figures[name]  # in seconds per second of audio
        elif f"{name}.speed" in figures:
            found[label] = figures[f"{name}.speed"]
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def draw(report: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found, machine = speeds(report), report["machine"]
    figure, axes = pyplot.subplots(figsize=(8, 0.45 * len(found) + 1.2))
    colors = [OTHERS if "HTDemucs" in name or "RoFormer" in name else OWN for name in found]
    bars = axes.barh(list(found), list(found.values()), color=colors)
    axes.bar_label(bars, [f"{value:.2g} x" for value in found.values()], padding=3)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=2.5 * max(found.values()))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel(f"times real time, on {machine['cores']} cores of {machine['processor']}, {report['date'][:10]}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
