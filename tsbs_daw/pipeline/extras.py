"""What is made of a song's delivered stems beside them: loops cut on the grid, and a .stem.mp4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tsbs_daw.audio.tags import Tags
from tsbs_daw.core.errors import AnalysisError
from tsbs_daw.pipeline.song_info import Facts

LOOPS = "loops"  # the folder inside the song's


@dataclass(frozen=True)
class Dry:
    """A delivered dry stem. name: the model's"""

    name: str
    color: str
    path: Path


def write_loops(dry: Sequence[Dry], facts: Facts, folder: Path, bars: int, name: str) -> list[str]:
    """Loops of so many bars from every stem, but for silent ones.

    Args:    name: what all loops' names begin with
    Returns: the files, relative to the song's `folder`, with forward slashes
    Raises:  AnalysisError: the song's bars are not known, or there are fewer of them
    """
    from tsbs_daw.pipeline.loops import cut_loops  # only when it is asked for

    into = folder / LOOPS
    into.mkdir(exist_ok=True)
    stems = {stem.name: stem.path for stem in dry}
    key = facts.sure_key
    try:
        made = cut_loops(
            stems, facts.analysis.beats, bars=bars, folder=into, name=name, key=key.name if key else None
        )  # fmt: skip
    finally:
        if not any(into.iterdir()):
            into.rmdir()
    if not made:
        raise AnalysisError("the song has fewer bars")
    return [path.relative_to(folder).as_posix() for path in made]


def write_stems(path: Path, master: Path, dry: Sequence[Dry], facts: Facts, tags: Tags) -> None:
    """A .stem.mp4: the song, and its stems as tracks of one file. Raises: OutputError, NoSpaceLeft, AudioError"""
    from tsbs_daw.audio.stem_mp4 import write_stem_mp4

    stems = [(stem.name, stem.color, stem.path) for stem in dry]
    key = facts.sure_key
    write_stem_mp4(path, master, stems, tags, bpm=facts.sure_bpm, key=key.name if key else None)
