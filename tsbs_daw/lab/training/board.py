"""TensorBoard: the curve's numbers and the sound of one validation excerpt. Optional: nothing else needs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tsbs_daw.core.errors import SettingsError


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
