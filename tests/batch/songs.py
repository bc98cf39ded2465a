"""Entries of a catalogue, made up."""

from __future__ import annotations

from tsbs_daw.contracts.analysis import Analysis, Beats, Key, Loudness, Tempo
from tsbs_daw.contracts.catalogue import SongEntry


def analysis(bpm: float | None = 120.0, camelot: str | None = "8A", *, doubtful: bool = False) -> Analysis:
    mode = "minor" if camelot and camelot.endswith("A") else "major"
    key = Key(tonic="A", mode=mode, camelot=camelot, confidence=0.9, doubtful=doubtful) if camelot else None
    return Analysis(
        duration_s=2.0,
        tempo=Tempo(bpm=bpm, confidence=0.9, doubtful=doubtful),
        beats=Beats(),
        key=key,
        loudness=Loudness(integrated_lufs=-14.25, range_lu=3.0, true_peak_db=-1.0),
        intro_s=0.0,
    )


def entry(source: str, bpm: float | None = 120.0, camelot: str | None = "8A", **values: object) -> SongEntry:
    return SongEntry(**{"source": source, "state": "done", "analysis": analysis(bpm, camelot), **values})
