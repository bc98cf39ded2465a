"""Songs as folders of stems, written by signals.song."""

from __future__ import annotations

from pathlib import Path

import soundfile
from signals import RATE, song

STEMS = ("drums", "bass", "other", "vocals")


def write_song(folder: Path, seed: int, duration_s: float = 2.0, subtype: str = "PCM_16") -> Path:
    folder.mkdir(parents=True)
    for stem, audio in song(duration_s, seed=seed).items():
        soundfile.write(folder / f"{stem}.wav", audio.T, RATE, subtype=subtype)
    return folder
