"""What the generator of songs knows about a song: its song.json, for comparing an analysis with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tsbs_daw.core.errors import DatasetError, shown

MAJOR_MODES = ("major", "mixolydian", "lydian")  # by their third; the others are minor


@dataclass(frozen=True)
class Truth:
    """Times are seconds; key: (tonic 0..11 from C, "major" or "minor"), of a mode the one with its third."""

    tempo_bpm: float
    beats_s: tuple[float, ...]
    downbeats_s: tuple[float, ...]
    beats_per_bar: int
    key: tuple[int, str]
    sections_s: tuple[float, ...]
    duration_s: float

    def after(self, cut_s: float) -> Truth:
        """Of what remains when the first seconds are cut away."""
        kept = {
            name: tuple(at - cut_s for at in getattr(self, name) if at >= cut_s)
            for name in ("beats_s", "downbeats_s", "sections_s")
        }
        return Truth(**{**self.__dict__, **kept, "duration_s": self.duration_s - cut_s})


def read_truth(folder: Path) -> Truth:
    """Raises: DatasetError: the folder has no song.json that tells"""
    path = folder / "song.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return Truth(
            tempo_bpm=known["tempo_bpm"],
            beats_s=tuple(at for at in known["beats_s"] if at < known["duration_s"]),
            downbeats_s=tuple(at for at in known["downbeats_s"] if at < known["duration_s"]),
            beats_per_bar=4 if known["meter"] == "4/4" else 3,
            key=(known["tonic"], "major" if known["mode"] in MAJOR_MODES else "minor"),
            sections_s=tuple(section["start_s"] for section in known["sections"]),
            duration_s=known["duration_s"],
        )
    except (OSError, ValueError, KeyError) as problem:
        raise DatasetError(
            f"{shown(path)} does not tell a song's tempo and key; render songs with tsbs_daw.lab.songs."
        ) from problem
