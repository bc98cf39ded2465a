"""Songs as Vorbis, a tenth of their size: python carry_songs.py SONGS TARGET MEGABYTES.

SONGS has train/ and valid/, as `tsbs-daw lab render` writes them; each gets its share of the size, in order of name.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import soundfile as sf

SHARES = {"train": 0.75, "valid": 0.25}
LEVEL = 0.6  # of compression: some 33 kB for a second of a song's four stems
BLOCK = 4096  # samples; libsndfile's Vorbis encoder overflows its stack in longer writes


def carry(song: Path, target: Path) -> int:
    """Write the stems of a song as Vorbis. Return their bytes."""
    target.mkdir(parents=True, exist_ok=True)
    for path in (path for path in song.glob("*.wav") if path.stem != "mixture"):  # the sum of the stems
        audio, rate = sf.read(path, dtype="float32", always_2d=True)
        form = {"format": "OGG", "subtype": "VORBIS", "compression_level": LEVEL}
        with sf.SoundFile(target / f"{path.stem}.ogg", "w", rate, audio.shape[1], **form) as file:
            for begin in range(0, len(audio), BLOCK):
                file.write(audio[begin : begin + BLOCK])
    if (song / "song.json").exists():
        shutil.copy(song / "song.json", target)
    return sum(path.stat().st_size for path in target.iterdir())


def main(songs: Path, target: Path, budget: float) -> None:
    shutil.rmtree(target, ignore_errors=True)
    for split, share in SHARES.items():
        left = budget * share
        for vocals in sorted((songs / split).glob("*/vocals.wav")):
            if left <= 0:
                break
            left -= carry(vocals.parent, target / split / vocals.parent.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) * 1e6)
