"""Writer for REAPER projects (.RPP): lines of tokens inside `<` ... `>` blocks.

The project of one song has a folder track named after the song that holds a folder for each group of tracks, one item
per track, a region that spans the song, its markers, and its tempo map. The song's first bar is bar 1, wherever it
begins on the timeline; a song without a tempo leaves REAPER's default, 120.

Only values that differ from REAPER's defaults, or that REAPER must not guess, are written. What is not obvious:

- PEAKCOL holds a colour as 0x01BBGGRR: red in the low byte, and bit 24 set for a custom colour. This is the byte order
  of Windows, so the header always states `win64`. (REAPER's scripting functions use the order of their machine.)
- There is no escape character. A token is quoted with whichever of " ' ` it does not contain.
- Positions and lengths of items are in seconds. The timebase decides whether a later tempo change moves or stretches
  them: BEAT 0 on items and tracks, TIMELOCKMODE 0 and TEMPOENVLOCKMODE 0 on the project mean time, so that audio keeps
  its position and speed and only the grid moves. With a timebase of beats, moving a tempo marker would pull the stems
  away from the source.
- A tempo point of TEMPOENVEX consists of seconds, BPM, and 1 (constant until the next point; 0 would ramp). If a bar
  begins there, these follow: 65536 times the denominator plus the numerator, 0 (not selected), and 1, or 5 if the bar
  before it is cut short.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath

from tsbs_daw.core.errors import OutputError
from tsbs_daw.sessions.session import (
    DEFAULT_BEATS,
    DEFAULT_BPM,
    GROUP_COLORS,
    Session,
    SessionTrack,
    TimelineChange,
    bars_before,
    changes_of,
    holdable,
    number,
    one_line,
    steps,
    with_lead_in,
)

# Old enough that no REAPER warns about a project from a newer version. The number is the time of saving; it is fixed,
# so that the same job writes the same bytes.
HEADER = 'REAPER_PROJECT 0.1 "6.80/win64" 1700000000'

LONGEST_NAME = 500  # characters of a track's or marker's name
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "session.tsbs-daw")
_CUSTOM_COLOR = 0x01000000

# REAPER chooses the decoder by this word, not by the file's content. All other formats, including AIFF, are WAVE.
_SOURCES = {
    ".flac": "FLAC",
    ".mp3": "MP3",
    ".ogg": "VORBIS",
    ".opus": "OPUS",
    ".m4a": "VIDEO",
    ".aac": "VIDEO",
    ".mp4": "VIDEO",
    ".mov": "VIDEO",
    ".mkv": "VIDEO",
    ".webm": "VIDEO",
}

Lines = list[str]


def text_of(content: Lines) -> str:
    """Return the text of a whole project; blocks are indented by two spaces."""
    return "\n".join(block(HEADER, content)) + "\n"


def settings(sample_rate: int, cursor_s: Fraction, first_bar: int = 1) -> Lines:
    """Return the project settings before the tempo.

    Args:
        sample_rate: Sample rate of the project in Hz.
        cursor_s: Position of the edit cursor.
        first_bar: Number of the first bar of the timeline.
    """
    return [
        "RIPPLE 0",
        f"PROJOFFS 0 {first_bar - 1} 0",
        f"CURSOR {number(cursor_s)}",
        "TIMELOCKMODE 0",
        "TEMPOENVLOCKMODE 0",
        f"SAMPLERATE {sample_rate} 1 0",  # 1: the project's own rate, not the audio device's
    ]


def tempo(steps: Sequence[TimelineChange], key: str) -> Lines:
    """Return the tempo of a project and, if it is known, its tempo map."""
    if not steps:
        return [f"TEMPO {number(DEFAULT_BPM)} {DEFAULT_BEATS} 4"]
    beats, unit = steps[0].bar or (DEFAULT_BEATS, 4)
    return [
        f"TEMPO {number(steps[0].bpm)} {beats} {unit}",
        *block("TEMPOENVEX", [f"EGUID {guid(key)}", "ACT 1 -1", "VIS 1 0 1", "DEFSHAPE 1 -1 -1", *map(_point, steps)]),
    ]


def _point(step: TimelineChange) -> str:
    point = f"PT {number(step.at_s)} {number(step.bpm)} 1"
    if step.bar is None:
        return point
    beats, unit = step.bar
    return f"{point} {unit << 16 | beats} 0 {5 if step.cut else 1}"


def marker(index: int, at_s: Fraction, name: str, key: str) -> str:
    """Return the line of a marker."""
    return f"MARKER {index} {number(at_s)} {quoted(name)} 0 0 1 B {guid(key)} 0"


def region(index: int, start_s: Fraction, end_s: Fraction, name: str, key: str) -> Lines:
    # Two lines with the same number: the start with name, colour (0: the theme's) and GUID, and the end.
    return [
        f"MARKER {index} {number(start_s)} {quoted(name)} 1 0 1 R {guid(key)} 0",
        f'MARKER {index} {number(end_s)} "" 1',
    ]


class Track:
    """A <TRACK>: `content` holds the lines of its items, `children` makes it a folder."""

    def __init__(self, name: str, color: str, channels: int, key: str, *, muted: bool = False):
        self.name, self.color, self.channels, self.key, self.muted = name, color, channels, key, muted
        self.content: Lines = []
        self.children: list[Track] = []

    def lines(self, closes: int = 0) -> Lines:
        """Return the lines of the track and its children.

        Args:
            closes: Number of folders that end with this track.
        """
        track_guid = guid(self.key)
        depth = "1 1" if self.children else f"2 -{closes}" if closes else "0 0"
        found = block(
            f"TRACK {track_guid}",
            [
                f"NAME {quoted(self.name)}",
                f"PEAKCOL {peak_color(self.color)}",
                "BEAT 0",
                "VOLPAN 1 0 -1 -1 1",
                f"MUTESOLO {int(self.muted)} 0 0",
                f"ISBUS {depth}",
                f"NCHAN {self.channels + self.channels % 2}",  # always even in REAPER
                "FX 1",
                f"TRACKID {track_guid}",
                "MAINSEND 1 0",
                *self.content,
            ],
        )
        for child in self.children:
            found += child.lines(closes + 1 if child is self.children[-1] else 0)
        return found


def item(at_s: Fraction, length_s: Fraction, name: str, file: str, key: str, *, muted: bool = False) -> Lines:
    """Return the lines of an <ITEM> that plays a whole file without fades or loops, sample by sample.

    Raises:
        OutputError: The format cannot express the file name.
    """
    return block(
        "ITEM",
        [
            f"POSITION {number(at_s)}",
            "SNAPOFFS 0",
            f"LENGTH {number(length_s)}",
            "LOOP 0",
            "ALLTAKES 0",
            "BEAT 0",
            "FADEIN 1 0 0 1 0 0 0",
            "FADEOUT 1 0 0 1 0 0 0",
            f"MUTE {int(muted)} 0",
            f"IGUID {guid(f'{key}/item')}",
            f"NAME {quoted(name)}",
            "VOLPAN 1 0 1 -1",
            "SOFFS 0",
            "PLAYRATE 1 1 0 -1 0 0.0025",
            "CHANMODE 0",
            f"GUID {guid(f'{key}/take')}",
            *block(f"SOURCE {_SOURCES.get(PurePosixPath(file).suffix.lower(), 'WAVE')}", [f"FILE {quoted_file(file)}"]),
        ],
    )


def block(opening: str, content: Lines) -> Lines:
    """Return the content, indented, between `<opening` and `>`."""
    return [f"<{opening}", *(f"  {line}" for line in content), ">"]


def peak_color(color: str) -> int:
    """Return the PEAKCOL value of #rrggbb; see the module's docstring."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return _CUSTOM_COLOR | blue << 16 | green << 8 | red


def guid(key: str) -> str:
    """Return a GUID that depends only on the key, so that the same job writes the same file."""
    return "{" + str(uuid.uuid5(_NAMESPACE, one_line(key))).upper() + "}"


def quoted(text: str) -> str:
    """Return a name as one token. If it contains all three kinds of quotes, backticks are replaced, as REAPER does.

    A tag may hold a whole book, so the name is cut at a length that every line reader can handle.
    """
    return _token(one_line(text)[:LONGEST_NAME])


def quoted_file(file: str) -> str:
    """Return a file name as one token, unchanged.

    Raises:
        OutputError: The format cannot express it.
    """
    token = _token(holdable(file))
    if token[1:-1] != file:
        raise OutputError(f"A REAPER project cannot hold the file name {file!r}; rename the song.")
    return token


def _token(text: str) -> str:
    for mark in "\"'`":
        if mark not in text:
            return f"{mark}{text}{mark}"
    return "`" + text.replace("`", "'") + "`"


def write_rpp(session: Session, path: Path) -> None:
    """Write a session as a REAPER project; its file paths are relative to its folder.

    The same session gives the same bytes on every machine.

    Raises:
        OutputError: The format cannot express a file name.
        OSError: The file cannot be written.
    """
    path.write_bytes(project_text(session).encode("utf-8"))


def project_text(session: Session) -> str:
    """Return the text of the project of one song."""
    start_s = Fraction(session.start_samples, session.sample_rate)
    end_s = start_s + Fraction(session.samples, session.sample_rate)
    changes = changes_of(session, start_s)
    found = steps(with_lead_in(changes, Fraction(0)))
    lead_in = bars_before(found[:2]) if len(found) > len(changes) else 0
    return text_of(
        [
            *settings(session.sample_rate, start_s, first_bar=1 - lead_in),
            *tempo(found, _key(session, "tempo")),
            *region(1, start_s, end_s, session.song, _key(session, "region")),
            *_markers(session, start_s),
            *_folder(session, start_s).lines(),
        ]
    )


def _markers(session: Session, start_s: Fraction) -> Lines:
    return [
        marker(
            index,
            start_s + Fraction(place.at_samples, session.sample_rate),
            place.name,
            _key(session, f"marker/{index}"),
        )
        for index, place in enumerate(session.markers, start=1)
    ]


def _folder(session: Session, start_s: Fraction) -> Track:
    """Return the folder track of the song with everything in it."""
    song = Track(session.song, GROUP_COLORS[""], session.channels, _key(session, "track/folder"))
    folders: dict[tuple[str, ...], Track] = {(): song}
    members = [member for _, members in session.groups for member in members]
    for index, member in enumerate(members):
        into = folder_of(member.path, folders, lambda path: _key(session, f"group/{path}"))
        into.children.append(_track(session, f"{index}/{member.name}", member, start_s))
    return song


def folder_of(path: tuple[str, ...], folders: dict[tuple[str, ...], Track], key: Callable[[str], str]) -> Track:
    """Return the folder track at a path; create it and its parents if they do not exist.

    Args:
        path: Names of the folders, outermost first.
        folders: Existing folders by path, the outermost one under (); new ones are added.
        key: Maps the path of a new folder, joined with slashes, to the key of its GUID.
    """
    if path not in folders:
        parent, name = folder_of(path[:-1], folders, key), path[-1]
        color = GROUP_COLORS.get(name, GROUP_COLORS[""])
        folders[path] = Track(name, color, parent.channels, key("/".join(path)))
        parent.children.append(folders[path])
    return folders[path]


def _track(session: Session, key: str, track: SessionTrack, start_s: Fraction) -> Track:
    length_s = Fraction(session.samples, session.sample_rate)
    found = Track(track.name, track.color, session.channels, _key(session, f"track/{key}"), muted=track.muted)
    found.content = item(start_s, length_s, track.name, track.file, _key(session, f"item/{key}"))
    return found


def _key(session: Session, key: str) -> str:
    return f"{session.song}/{session.start_samples}/{key}"
