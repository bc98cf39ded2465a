"""The picture of a catalogue's page in the README, made from songs of the project's own generator.

    PYTHONPATH=tests python -m crate.page_picture SONGS OUT docs/catalogue.png

SONGS is what `tsbs_daw.songs` wrote: a folder of stems and the truth about them per song; OUT becomes the crate.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from crate.browser import browser
from signals import RATE

from tsbs_daw.analysis.document import Analysis, Beats, Key, Loudness, Section, Span, StemSound, Tempo
from tsbs_daw.audio.measure import Meter
from tsbs_daw.audio.read import open_audio
from tsbs_daw.crate.catalogue import Catalogue, SongEntry, SongFile
from tsbs_daw.crate.page import write_page

STEMS = {"vocals": "#ec407a", "drums": "#ffa726", "bass": "#42a5f5", "other": "#ab47bc"}
TITLES = """Paper Lanterns; Low Tide; Second Sun; Glass Harbour; Night Bus; Salt; Cold Summer; Seven Doors; Echo Park;
Marrow; Harvest Moon Motel; Slow Machine; Nine Rivers; Velvet Static; Copper Wire; The Long Way Down; Orchid; Undertow;
Windows Open; Last Train North""".replace("\n", " ").split("; ")
ARTISTS = ["Mira Holt", "Junction", "The Pale Kings", "Oda & Finn", "Kiosk"]
TONICS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")


def camelot(tonic: int, minor: bool) -> str:
    """The wheel's code: 8B is C major, and a fifth up is one hour on."""
    major = (tonic + 3) % 12 if minor else tonic
    return f"{(major * 7 + 7) % 12 + 1}{'A' if minor else 'B'}"


def key_of(truth: dict, doubtful: bool) -> Key:
    minor = truth["mode"] in ("minor", "dorian", "aeolian", "phrygian", "harmonic minor")
    return Key(
        tonic=TONICS[truth["tonic"]],
        mode="minor" if minor else "major",
        camelot=camelot(truth["tonic"], minor),
        confidence=0.34 if doubtful else 0.88,
        doubtful=doubtful,
    )


def sound(path: Path) -> StemSound:
    """Where a stem sounds, by the level of each half second."""
    meter, levels = Meter(RATE, 2), []
    with open_audio(path) as reader:
        for block in reader.blocks(RATE // 2):
            meter.add(block)
            levels.append(float(abs(block).max()))
    found = meter.levels()
    quiet, spans = [level < 0.004 for level in levels], []
    for number, silent in enumerate([*quiet, False]):
        if silent and (number == 0 or not quiet[number - 1]):
            start = number
        if not silent and number and quiet[number - 1] and number - start >= 2:
            spans.append(Span(start_s=start / 2, end_s=number / 2))
    first = next((number / 2 for number, silent in enumerate(quiet) if not silent), None)
    loudness = Loudness(integrated_lufs=found.loudness_lufs, range_lu=None, true_peak_db=found.true_peak_db)
    share = 1 - sum(quiet) / len(quiet)
    return StemSound(loudness=loudness, first_sound_s=first, active_share=share, silences=tuple(spans))


def entry(number: int, song: Path, out: Path) -> SongEntry:
    truth = json.loads((song / "song.json").read_text(encoding="utf-8"))
    title, artist = TITLES[number % len(TITLES)], ARTISTS[number * 3 % len(ARTISTS)]
    source = f"/music/crate/{artist} - {title}.wav"
    folder = out / f"{artist} - {title}"
    folder.mkdir(parents=True, exist_ok=True)
    files, stems = [], {}
    for stem, color in STEMS.items():
        link = folder / f"{stem}.wav"
        if not link.exists():
            link.symlink_to(song / f"{stem}.wav")
        stems[stem] = sound(link)
        file = f"{folder.name}/{stem}.wav"
        lufs = stems[stem].loudness.integrated_lufs
        files.append(SongFile(name=stem, kind="stem", file=file, color=color, loudness_lufs=lufs))
    whole = sound(song / "mixture.wav")
    names: dict[str, str] = {}
    parts = truth["sections"]
    ends = [part["start_s"] for part in parts[1:]] + [truth["duration_s"]]
    sections = tuple(
        Section(
            start_s=part["start_s"],
            end_s=end,
            label=names.setdefault(part["name"], "ABCDEFGH"[len(names)]),
            confidence=0.7,
        )
        for part, end in zip(parts, ends, strict=True)
        if end > part["start_s"]
    )
    doubtful = number % 7 == 4
    tempo = Tempo(bpm=truth["tempo_bpm"], confidence=0.31 if doubtful else 0.94, doubtful=doubtful, source="drums")
    analysis = Analysis(
        duration_s=truth["duration_s"],
        tempo=tempo,
        beats=Beats(beats_per_bar=int(truth["meter"][0]), meter_confidence=0.8, meter_doubtful=False),
        key=key_of(truth, number % 6 == 2),
        loudness=whole.loudness.model_copy(update={"range_lu": 5.2}),
        intro_s=0.0,
        stems=stems,
        sections=sections,
    )
    return SongEntry(
        source=source,
        state="done",
        folder=folder.name,
        artist=artist,
        title=title,
        duration_s=truth["duration_s"],
        sample_rate=RATE,
        channels=2,
        analysis=analysis,
        residual_db=-104.0 - number * 7 % 19,
        files=tuple(files),
        sessions=(f"{folder.name}/{title}.RPP", f"{folder.name}/{title}.dawproject"),
    )


def make(songs: Path, out: Path) -> Path:
    found = [entry(number, song, out) for number, song in enumerate(sorted(songs.glob("song-*")))]
    bad = SongEntry(
        source="/music/crate/Kiosk - Orchid (rough).mp3",
        state="failed",
        title="Orchid (rough)",
        artist="Kiosk",
        reason="'Kiosk - Orchid (rough).mp3' is cut short: it ends after sample 812544; copy it again, "
        "or take what is there with --salvage.",
    )
    twin = SongEntry(
        source="/music/crate/copy of Salt.wav",
        state="duplicate",
        duplicate_of=found[5].source,
        title="copy of Salt",
        reason="It holds the same sound as 'The Pale Kings - Salt.wav'.",
    )
    entries = (*found[:3], bad, *found[3:7], twin, *found[7:])
    return write_page(Catalogue(crate="Friday crate", preset="remix-prep", songs=entries), out)


def main(songs: str, out: str, picture: str) -> None:
    page_file = make(Path(songs), Path(out))
    with browser() as chromium:
        context = chromium.new_context(viewport={"width": 1360, "height": 940}, color_scheme="light")
        page = context.new_page()
        page.goto(page_file.as_uri())
        page.locator("button.name", has_text="Low Tide").click()
        page.wait_for_timeout(500)
        page.screenshot(path=picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
