"""The parts of a REAPER project (.RPP): lines of tokens inside `<` ... `>` blocks.

Only what differs from REAPER's defaults, or what REAPER must not guess, is written; it fills in the rest when it loads
the file. What is not obvious:

- PEAKCOL holds a colour as 0x01BBGGRR: red in the low byte, and bit 24 says that a colour was chosen. This is the
  order of Windows, whose projects store it so; the header below says `win64` for that reason, whatever machine wrote
  the file. (REAPER's scripting functions are different: they take the order of the machine they run on.)
- There is no escape character. A token is quoted with whichever of " ' ` it does not contain.
- An item's place and length are seconds. Whether a later change of tempo moves or stretches it is its timebase: BEAT 0
  on items and tracks, TIMELOCKMODE 0 and TEMPOENVLOCKMODE 0 on the project mean time, so that sound stays where it is,
  at its own speed, and only the grid moves. With a timebase of beats, moving one tempo marker would pull the stems of
  a song apart from its source.
- A tempo point of TEMPOENVEX: seconds, bpm, 1 (holds until the next; 0 would glide), and for a new bar 65536 times the
  denominator plus the numerator, 0 (not selected), and 1, or 5 where the bar before it is cut short.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath

from tsbs_daw.core.errors import OutputError
from tsbs_daw.sessions.grid import DEFAULT_BEATS, DEFAULT_BPM, Step, bars_before, changes_of, steps, with_lead_in
from tsbs_daw.sessions.session import GROUP_COLORS, Session, SessionTrack, holdable, number, one_line

# Old enough that no REAPER warns of a project from a newer version. The number after it is the time of saving; it is
# fixed, so that the same job writes the same bytes.
HEADER = 'REAPER_PROJECT 0.1 "6.80/win64" 1700000000'

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "session.tsbs-daw")
_CUSTOM_COLOR = 0x01000000

# REAPER chooses the decoder by this word, not by what is in the file. All others, AIFF too, are WAVE.
_SOURCES = {
    ".flac": "FLAC",
    ".mp3": "MP3",
    ".ogg": "VORBIS",
    ".opus": "VORBIS",
    ".m4a": "VIDEO",
    ".aac": "VIDEO",
    ".mp4": "VIDEO",
    ".mov": "VIDEO",
    ".mkv": "VIDEO",
    ".webm": "VIDEO",
}

Lines = list[str]


def text_of(content: Lines) -> str:
    """A whole project: lines ended by a newline, indented by two spaces for every block."""
    return "\n".join(block(HEADER, content)) + "\n"


def settings(sample_rate: int, cursor_s: Fraction, first_bar: int = 1) -> Lines:
    """What a project says before its tempo. first_bar: the number that the timeline's first bar gets"""
    return [
        "RIPPLE 0",
        "AUTOXFADE 0",
        f"PROJOFFS 0 {first_bar - 1} 0",
        f"CURSOR {number(cursor_s)}",
        "TIMELOCKMODE 0",
        "TEMPOENVLOCKMODE 0",
        f"SAMPLERATE {sample_rate} 1 0",  # 1: the project's own rate, not the audio device's
    ]


def tempo(steps: Sequence[Step], key: str) -> Lines:
    """The project's tempo and, where one is known, its tempo map."""
    if not steps:
        return [f"TEMPO {number(DEFAULT_BPM)} {DEFAULT_BEATS} 4"]
    beats, unit = steps[0].bar or (DEFAULT_BEATS, 4)
    return [
        f"TEMPO {number(steps[0].bpm)} {beats} {unit}",
        *block("TEMPOENVEX", [f"EGUID {guid(key)}", "ACT 1 -1", "VIS 1 0 1", "DEFSHAPE 1 -1 -1", *map(_point, steps)]),
    ]


def _point(step: Step) -> str:
    point = f"PT {number(step.at_s)} {number(step.bpm)} 1"
    if step.bar is None:
        return point
    beats, unit = step.bar
    return f"{point} {unit << 16 | beats} 0 {5 if step.cut else 1}"


def marker(index: int, at_s: Fraction, name: str, key: str) -> str:
    """One line: a marker at a place on the timeline."""
    return f"MARKER {index} {number(at_s)} {quoted(name)} 0 0 1 B {guid(key)} 0"


def region(index: int, start_s: Fraction, end_s: Fraction, name: str, key: str) -> Lines:
    # Two lines of one number: where it begins, with name, colour (0: the theme's) and GUID, and where it ends.
    return [
        f"MARKER {index} {number(start_s)} {quoted(name)} 1 0 1 R {guid(key)} 0",
        f'MARKER {index} {number(end_s)} "" 1',
    ]


class Track:
    """One <TRACK>: `content` holds its items, `children` makes it a folder."""

    def __init__(self, name: str, color: str, channels: int, key: str, *, muted: bool = False):
        self.name, self.color, self.channels, self.key, self.muted = name, color, channels, key, muted
        self.content: Lines = []
        self.children: list[Track] = []

    def lines(self, closes: int = 0) -> Lines:
        """The track and its children. closes: how many folders end with it"""
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
                f"NCHAN {self.channels + self.channels % 2}",  # REAPER's tracks have an even number of channels
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
    """One <ITEM> that plays a file whole. No fades and no loop: what is heard is the file, sample by sample.

    Raises: OutputError: a file name that the format cannot express
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
    """Lines between `<opening` and `>`."""
    return [f"<{opening}", *(f"  {line}" for line in content), ">"]


def peak_color(color: str) -> int:
    """#rrggbb as PEAKCOL has it, see above."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return _CUSTOM_COLOR | blue << 16 | green << 8 | red


def guid(key: str) -> str:
    """A GUID that depends on the key alone, so that the same job writes the same file."""
    return "{" + str(uuid.uuid5(_NAMESPACE, one_line(key))).upper() + "}"


def quoted(text: str) -> str:
    """A name as one token. One that holds all three kinds of quotes has its backticks replaced, as REAPER does."""
    return _token(one_line(text))


def quoted_file(file: str) -> str:
    """A file as one token, never altered: another name would be another file."""
    token = _token(holdable(file))
    if token[1:-1] != file:
        raise OutputError(f"The file name {file!r} cannot stand in a REAPER project; rename the song.")
    return token


def _token(text: str) -> str:
    for mark in "\"'`":
        if mark not in text:
            return f"{mark}{text}{mark}"
    return "`" + text.replace("`", "'") + "`"


def write_rpp(session: Session, path: Path) -> None:
    """Write `session` as a REAPER project; file paths in it are relative to the project's folder.

    The same session gives the same bytes, on every machine.
    Raises: OutputError: a file name that the format cannot express
            OSError:     the disk
    """
    path.write_bytes(project_text(session).encode("utf-8"))


def project_text(session: Session) -> str:
    """The project as text."""
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
    """The song's folder track with everything in it."""
    song = Track(session.song, GROUP_COLORS[""], session.channels, _key(session, "track/folder"))
    number = 0
    for group, members in session.groups:
        into = song
        if group:
            color = GROUP_COLORS.get(group, GROUP_COLORS[""])
            into = Track(group, color, session.channels, _key(session, f"group/{group}"))
            song.children.append(into)
        for member in members:
            into.children.append(_track(session, f"{number}/{member.name}", member, start_s))
            number += 1
    return song


def _track(session: Session, key: str, track: SessionTrack, start_s: Fraction) -> Track:
    length_s = Fraction(session.samples, session.sample_rate)
    found = Track(track.name, track.color, session.channels, _key(session, f"track/{key}"), muted=track.muted)
    found.content = item(start_s, length_s, track.name, track.file, _key(session, f"item/{key}"))
    return found


def _key(session: Session, key: str) -> str:
    return f"{session.song}/{session.start_samples}/{key}"
