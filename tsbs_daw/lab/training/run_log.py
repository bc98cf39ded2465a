"""What a run leaves to look at: its curve, one JSON object a line, and TensorBoard where a recipe asks for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tsbs_daw.core.errors import SettingsError


class Curve:
    """Appends rows; a resume drops the rows of steps to be trained again."""

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


class Board:
    """Writes event files into `folder`. Raises SettingsError when tensorboard is not installed."""

    def __init__(self, folder: Path, *, resume_step: int = 0):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SettingsError(
                "the recipe asks for TensorBoard, which is not installed: pip install 'tsbs-daw[train]', "
                "or --set log.tensorboard=false"
            ) from error
        # What an interrupted run wrote beyond its last saved step is not shown twice.
        self._writer = SummaryWriter(str(folder), purge_step=resume_step + 1 if resume_step else None)

    def add_row(self, row: dict) -> None:
        """Every number of a row of the curve, those of stems as `sdr_db/vocals`."""
        for key, value in row.items():
            if isinstance(value, dict):
                for stem, number in value.items():
                    self._writer.add_scalar(f"{key}/{stem}", number, row["step"])
            elif key not in ("kind", "step"):
                self._writer.add_scalar(f"{row['kind']}/{key}", value, row["step"])
        self._writer.flush()

    def add_audio(self, name: str, audio: np.ndarray, sample_rate: int, step: int) -> None:
        """audio: (channels, samples); the first channel is kept, clipped to full scale."""
        self._writer.add_audio(name, np.clip(audio[:1], -1.0, 1.0), step, sample_rate=sample_rate)

    def close(self) -> None:
        self._writer.close()
