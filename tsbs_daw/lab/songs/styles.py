"""The table of styles: what a composer of that style would choose from. Data, no logic.

Several words are alternatives; one that stands twice is drawn twice as often. An accompanying part is a figure and the
timbre families that may play it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """What a style draws from."""

    tempo: tuple[float, float]
    meters: tuple[str, ...]
    modes: tuple[str, ...]
    swing: tuple[float, float]
    swing_unit: float  # beats
    grooves: tuple[str, ...]
    kits: tuple[str, ...]
    bass_lines: tuple[str, ...]
    basses: tuple[str, ...]
    comps: tuple[tuple[str, tuple[str, ...]], ...]  # (figure, timbre families)
    colours: tuple[str, ...]  # of chords
    vocal: tuple[str, ...]
    weight: float  # how often the style is drawn


def _style(
    tempo: tuple[float, float],
    *,
    modes: str,
    grooves: str,
    kits: str,
    lines: str,
    basses: str,
    comps: str,
    colours: str,
    meters: str = "4/4",
    swing: tuple[float, float] = (0.5, 0.5),
    swing_unit: float = 0.25,
    vocal: str = "sung",
    weight: float = 1.0,
) -> Style:
    figures = []
    for line in comps.strip().splitlines():
        figure, families = line.split(":")
        figures.append((figure.strip(), tuple(families.split())))
    groove_words, kit_words, line_words, bass_words = (tuple(text.split()) for text in (grooves, kits, lines, basses))
    mode_names = tuple(name.replace("-", " ") for name in modes.split())
    return Style(
        tempo, tuple(meters.split()), mode_names, swing, swing_unit, groove_words, kit_words, line_words, bass_words,
        tuple(figures), tuple(colours.split()), tuple(vocal.split()), weight,
    )  # fmt: skip


STYLES = {
    "pop": _style(
        (84, 128),
        modes="major major minor mixolydian",
        grooves="pop pop2 four rock",
        kits="acoustic studio 909 electro",
        lines="eighths roots syncopated octaves",
        basses="finger pick saw sub",
        comps="""
            pads: supersaw strings warm
            block: piano epiano organ epiano
            strum: steel nylon clean
            arpeggio: saw square supersaw fm pulse
            riff: clean pluck bell saw
        """,
        colours="triad triad add9 sus2 seventh",
        weight=2.0,
    ),
    "rock": _style(
        (100, 172),
        modes="major minor mixolydian dorian",
        grooves="rock rock2 punk half",
        kits="acoustic room",
        lines="eighths roots fills",
        basses="pick pick drive",
        comps="""
            power: distorted overdrive
            power: distorted
            strum: clean overdrive steel
            riff: overdrive distorted
            pads: organ strings
        """,
        colours="triad power power sus4",
        weight=1.6,
    ),
    "house": _style(
        (118, 132),
        modes="minor minor dorian major",
        swing=(0.5, 0.57),
        grooves="four four2",
        kits="909 808 electro",
        lines="offbeat octaves syncopated eighths",
        basses="saw square sub fm",
        comps="""
            stabs: saw piano organ fm
            pads: supersaw warm
            arpeggio: pluck saw pulse
            riff: pluck square bell
        """,
        colours="seventh ninth triad",
        weight=1.3,
    ),
    "trance": _style(
        (126, 145),
        modes="minor harmonic-minor",
        grooves="four four2",
        kits="909 electro",
        lines="offbeat rolling",
        basses="saw sub",
        comps="""
            arpeggio: supersaw pluck saw
            pads: supersaw strings
            riff: supersaw saw
        """,
        colours="triad sus2",
        weight=0.8,
    ),
    "trap": _style(
        (66, 82),
        modes="minor harmonic-minor phrygian",
        grooves="trap trap2",
        kits="808 808 electro",
        lines="slides slides roots",
        basses="808 808 sub",
        comps="""
            riff: bell pluck kalimba piano flute
            pads: warm strings warm
            arpeggio: bell pluck
        """,
        colours="triad seventh",
        vocal="rap sung rap",
        weight=1.3,
    ),
    "hiphop": _style(
        (78, 100),
        modes="minor dorian",
        swing=(0.54, 0.62),
        grooves="boombap boombap2",
        kits="dusty 808 studio",
        lines="syncopated roots fills",
        basses="finger sub upright",
        comps="""
            block: epiano piano
            riff: vibes clean flute brass
            pads: strings warm
            stabs: brass strings
        """,
        colours="seventh ninth sixth",
        vocal="rap rap sung",
    ),
    "ballad": _style(
        (60, 84),
        modes="major minor",
        meters="4/4 4/4 6/8",
        grooves="ballad half pop",
        kits="acoustic room studio",
        lines="roots sustained fills",
        basses="finger upright sub",
        comps="""
            block: piano
            arpeggio: piano nylon steel harp
            pads: strings warm
            strum: steel nylon
        """,
        colours="triad add9 seventh sus2",
        weight=1.2,
    ),
    "funk": _style(
        (92, 118),
        modes="dorian mixolydian minor",
        swing=(0.5, 0.56),
        grooves="funk funk2",
        kits="studio acoustic",
        lines="funk funk octaves",
        basses="slap finger square",
        comps="""
            skank16: clean clav
            stabs: brass organ epiano
            riff: clav clean brass
            pads: organ strings
        """,
        colours="seventh ninth sixth",
    ),
    "reggae": _style(
        (66, 92),
        modes="major minor",
        swing=(0.52, 0.6),
        grooves="onedrop steppers",
        kits="acoustic studio",
        lines="dub",
        basses="finger sub upright",
        comps="""
            offbeat: clean organ piano
            offbeat: organ
            riff: brass flute clean
            pads: organ
        """,
        colours="triad seventh",
        weight=0.8,
    ),
    "folk": _style(
        (76, 124),
        modes="major dorian mixolydian minor",
        meters="4/4 3/4 6/8",
        grooves="brush train ballad",
        kits="brush acoustic hand",
        lines="fifths roots sustained",
        basses="upright finger",
        comps="""
            strum: steel nylon
            arpeggio: nylon steel harp
            riff: fiddle flute accordion whistle
            pads: accordion strings
        """,
        colours="triad triad sus2 add9",
    ),
    "jazz": _style(
        (100, 180),
        modes="major dorian minor",
        meters="4/4 3/4",
        swing=(0.6, 0.67),
        swing_unit=0.5,
        grooves="swing swing2",
        kits="brush jazz",
        lines="walking",
        basses="upright upright finger",
        comps="""
            charleston: piano clean vibes
            riff: brass clarinet vibes sax
            pads: strings organ
        """,
        colours="seventh ninth sixth",
        weight=0.9,
    ),
    "shuffle": _style(
        (96, 140),
        modes="mixolydian dorian minor",
        swing=(0.62, 0.67),
        swing_unit=0.5,
        grooves="shuffle swing",
        kits="acoustic room",
        lines="walking boogie",
        basses="finger pick upright",
        comps="""
            charleston: piano organ
            strum: overdrive clean
            riff: overdrive sax harmonica organ
        """,
        colours="seventh sixth triad",
        weight=0.9,
    ),
    "latin": _style(
        (88, 132),
        modes="minor major dorian",
        grooves="bossa salsa reggaeton",
        kits="hand acoustic electro",
        lines="bossa tumbao",
        basses="upright finger sub",
        comps="""
            montuno: piano nylon marimba
            strum: nylon
            stabs: brass
            riff: flute brass nylon
        """,
        colours="seventh ninth sixth triad",
    ),
    "soul": _style(
        (62, 104),
        modes="major dorian minor",
        meters="4/4 6/8",
        swing=(0.5, 0.6),
        grooves="soul pop half boombap",
        kits="studio acoustic dusty",
        lines="syncopated fills roots",
        basses="finger fm sub",
        comps="""
            block: epiano organ piano
            skank16: clean
            stabs: brass
            pads: strings warm
            riff: clean epiano sax
        """,
        colours="seventh ninth ninth sixth",
        weight=1.2,
    ),
    "dnb": _style(
        (160, 178),
        modes="minor phrygian dorian",
        grooves="dnb dnb2",
        kits="electro dusty studio",
        lines="roots sustained slides",
        basses="reese sub fm saw",
        comps="""
            pads: warm supersaw strings
            arpeggio: pluck bell fm
            stabs: saw piano
        """,
        colours="seventh triad ninth",
        weight=0.8,
    ),
    "synthwave": _style(
        (78, 120),
        modes="minor major dorian",
        grooves="four pop eighties",
        kits="electro 808 gated",
        lines="eighths rolling octaves",
        basses="saw square fm",
        comps="""
            pads: supersaw warm strings
            arpeggio: saw square pulse fm
            riff: saw square bell
            stabs: brass fm
        """,
        colours="triad sus2 seventh",
    ),
    "metal": _style(
        (120, 180),
        modes="minor phrygian harmonic-minor",
        grooves="metal punk half rock2",
        kits="room metal",
        lines="eighths gallop roots",
        basses="drive pick",
        comps="""
            power: distorted
            gallop: distorted
            riff: distorted saw
            pads: strings warm
        """,
        colours="power power triad",
        weight=0.8,
    ),
    "waltz": _style(
        (84, 160),
        modes="major minor harmonic-minor",
        meters="3/4 6/8",
        grooves="waltz",
        kits="brush acoustic hand",
        lines="fifths sustained",
        basses="upright finger",
        comps="""
            oompah: piano accordion nylon
            arpeggio: harp piano nylon
            riff: fiddle clarinet flute accordion
            pads: strings
        """,
        colours="triad seventh",
        weight=0.6,
    ),
}
