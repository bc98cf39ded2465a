"""Crates for the page's tests: little songs that really sound, and many that are only entries."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from signals import song as sounds
from signals import write_file

from tsbs_daw.contracts.analysis import Analysis, Beats, Key, Loudness, Section, Span, StemSound, Tempo
from tsbs_daw.contracts.catalogue import Catalogue, SongEntry
from tsbs_daw.contracts.manifest import AudioFile

RATE = 22050
COLORS = {"vocals": "#ec407a", "drums": "#ffa726", "bass": "#42a5f5", "other": "#ab47bc"}
HOSTILE = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'
# What file names may hold on this system; a line end and a quote are nothing special elsewhere than on Windows.
HOSTILE_FOLDER = "it's 100% #1? & 🎧 ü" if os.name == "nt" else 'it\'s "100%" #1? & <b> 🎧 ü\nשלום'


def analysis(
    bpm: float | None = 120.0,
    camelot: str | None = "8A",
    *,
    doubtful: bool = False,
    voice: float = 0.8,
    lufs: float | None = -12.0,
    duration_s: float = 20.0,
) -> Analysis:
    mode = "minor" if camelot and camelot.endswith("A") else "major"
    quiet = Loudness(integrated_lufs=None, range_lu=None, true_peak_db=None)
    heard = 5.0 if voice else None
    return Analysis(
        duration_s=duration_s,
        tempo=Tempo(bpm=bpm, confidence=0.3 if doubtful else 0.9, doubtful=doubtful),
        beats=Beats(beats_per_bar=4, meter_doubtful=doubtful),
        key=Key(tonic="A", mode=mode, camelot=camelot, confidence=0.9, doubtful=doubtful) if camelot else None,
        loudness=Loudness(integrated_lufs=lufs, range_lu=3.0, true_peak_db=-1.0),
        intro_s=0.0,
        stems={
            "vocals": StemSound(
                loudness=quiet, first_sound_s=heard, active_share=voice, silences=(Span(start_s=0.0, end_s=5.0),)
            )
        },
        sections=(
            Section(start_s=0.0, end_s=8.0, label="A", confidence=0.8),
            Section(start_s=8.0, end_s=duration_s, label="B", confidence=0.8),
        ),
    )


def entry(title: str, bpm: float | None = 120.0, camelot: str | None = "8A", **values: object) -> SongEntry:
    """A song that is done, without files."""
    found = {
        "source": f"/music/{title}.wav",
        "state": "done",
        "title": title,
        "artist": "Somebody",
        "duration_s": 20.0,
        "residual_db": -100.0,
        "analysis": analysis(bpm, camelot),
    }
    return SongEntry(**{**found, **values})


def sounding(
    out: Path, folder: str, title: str, *, ending: str = "wav", duration_s: float = 20.0, **values: object
) -> SongEntry:
    """A song whose stems, and one processed output, are there."""
    container, subtype = {"wav": ("WAV", "FLOAT"), "flac": ("FLAC", "PCM_16"), "aiff": ("AIFF", "PCM_16")}[ending]
    (out / folder).mkdir(parents=True)
    stems = sounds(duration_s, RATE, channels=1)
    files = []
    for name, audio in [*stems.items(), ("drums loud", stems["drums"] * 2)]:
        write_file(out / folder / f"{name}.{ending}", audio, RATE, container, subtype)
        kind = "stem" if name in stems else "output"
        color = COLORS.get(name, "#66bb6a")
        files.append(AudioFile(name=name, kind=kind, file=f"{folder}/{name}.{ending}", color=color))
    there = {"folder": folder, "files": tuple(files), "duration_s": duration_s, "sample_rate": RATE, "channels": 1}
    return entry(title, **{**there, **values})


def data_of(page: str) -> dict:
    """What a page knows."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def catalogue(*songs: SongEntry, crate: str = "Test crate") -> Catalogue:
    return Catalogue(crate=crate, preset="none", songs=songs)


def mixed_crate(out: Path) -> Catalogue:
    """Songs of every state, two that can be played, and names that bite."""
    return catalogue(
        sounding(out, "First Song", "First Song"),
        sounding(
            out,
            HOSTILE_FOLDER,
            HOSTILE,
            ending="flac",
            duration_s=4.0,
            artist="\u202eevil\u2028",
            source=f"/music/{HOSTILE}\n.wav",
            sessions=(f"{HOSTILE_FOLDER}/x.RPP",),
            warnings=(HOSTILE,),
        ),
        entry("Émile", 123.0, "9A", analysis=analysis(123.0, "9A", voice=0.0, lufs=-9.0), residual_db=-80.0),
        entry("Half", 60.5, "8B", analysis=analysis(60.5, "8B", doubtful=True), residual_db=None),
        entry("Far", 150.0, "3B", analysis=analysis(150.0, "3B", lufs=-20.0), duration_s=10.0),
        entry("Beatless", None, "8A"),
        entry("Keyless", 119.0, None),
        SongEntry(source="/music/cut.mp3", state="failed", title="Cut", reason="It is cut short; copy it again."),
        SongEntry(
            source="/music/twin.wav",
            state="duplicate",
            title="Twin",
            duplicate_of="/music/Far.wav",
            reason="It holds the same sound as Far.",
        ),
        SongEntry(source="/music/later.wav", title="Later"),
    )
