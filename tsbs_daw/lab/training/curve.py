"""The run's curve: one JSON object per line, appended; a resume drops the rows of steps to be trained again."""

from __future__ import annotations

import json
from pathlib import Path


class Curve:
    def __init__(self, path: Path, *, resume_step: int = 0):
        """Keeps the rows up to `resume_step`; 0 begins anew. A last line that a crash cut is dropped too."""
        self.path = path
        rows = [row for row in read_curve(path) if row["step"] <= resume_step] if resume_step else []
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        temporary.replace(path)

    def add(self, kind: str, step: int, **values) -> dict:
        """Returns: the row"""
        row = {"kind": kind, "step": step, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return row


def read_curve(path: Path) -> list[dict]:
    """All whole rows; an empty list when there is no curve."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break  # a crash cut this line; nothing whole can follow it
    return rows
