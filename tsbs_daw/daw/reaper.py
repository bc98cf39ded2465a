"""REAPER projects (.RPP): a folder track named after the song, one track with one item per file, a region.

The format is lines of tokens inside `<` ... `>` blocks. Only what differs from REAPER's defaults, or what REAPER
must not guess, is written; it fills in the rest when it loads the file.

Two things are not obvious:

- PEAKCOL holds a colour as 0x01BBGGRR: red in the low byte, and bit 24 says that a colour was chosen. This is the
  order of Windows, whose projects store it so; the header below says `win64` for that reason, whatever machine wrote
  the file. (REAPER's scripting functions are different: they take the order of the machine they run on.)
- There is no escape character. A token is quoted with whichever of " ' ` it does not contain.
"""

from __future__ import annotations

import unicodedata
import uuid
from pathlib import Path

from tsbs_daw.daw.session import Session, SessionTrack
from tsbs_daw.errors import OutputError

# Old enough that no REAPER warns of a project from a newer version. The number after it is the time of saving; it is
# fixed, so that the same job writes the same bytes.
_HEADER = 'REAPER_PROJECT 0.1 "6.80/win64" 1700000000'

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "session.tsbs-daw")
_FOLDER_COLOR = "#5a5a5a"
_CUSTOM_COLOR = 0x01000000

Lines = list[str]


def write_rpp(session: Session, path: Path) -> None:
    """Write `session` as a REAPER project; file paths in it are relative to the project's folder.

    The same session gives the same bytes, on every machine.
    Raises: OutputError: a file name that the format cannot express
            OSError:     the disk
    """
    path.write_bytes(project_text(session).encode("utf-8"))


def project_text(session: Session) -> str:
    """The project as text: lines ended by a newline, indented by two spaces for every block."""
    tracks = session.tracks
    content = [
        "RIPPLE 0",
        "AUTOXFADE 0",
        f"CURSOR {_number(session.start_s)}",
        # Items keep their place and length in seconds when the producer sets the song's tempo.
        "TIMELOCKMODE 0",
        f"SAMPLERATE {session.sample_rate} 1 0",  # 1: the project's own rate, not the audio device's
        "TEMPO 120 4 4",
        *_region(session),
        *_folder(session),
    ]
    for index, track in enumerate(tracks):
        content += _track(session, index, track, last=index == len(tracks) - 1)
    return "\n".join(_block(_HEADER, content)) + "\n"


def _region(session: Session) -> Lines:
    # Two lines of one number: where it begins, with name, colour (0: the theme's) and GUID, and where it ends.
    return [
        f"MARKER 1 {_number(session.start_s)} {_quoted(session.song)} 1 0 1 R {_guid(session, 'region')} 0",
        f'MARKER 1 {_number(session.end_s)} "" 1',
    ]


def _folder(session: Session) -> Lines:
    opens = "1 1" if session.tracks else "0 0"
    return _track_block(session, "folder", session.song, _FOLDER_COLOR, opens, muted=False, content=[])


def _track(session: Session, index: int, track: SessionTrack, *, last: bool) -> Lines:
    key = f"{index}/{track.name}"
    return _track_block(
        session,
        key,
        track.name,
        track.color,
        "2 -1" if last else "0 0",
        muted=track.muted,
        content=_item(session, key, track),
    )


def _track_block(
    session: Session, key: str, name: str, color: str, folder_depth: str, *, muted: bool, content: Lines
) -> Lines:
    """One <TRACK>. `folder_depth`: "1 1" opens a folder, "2 -1" is its last track, "0 0" changes nothing."""
    guid = _guid(session, f"track/{key}")
    channels = session.channels + session.channels % 2  # REAPER's tracks have an even number of channels
    return _block(
        f"TRACK {guid}",
        [
            f"NAME {_quoted(name)}",
            f"PEAKCOL {_peak_color(color)}",
            "VOLPAN 1 0 -1 -1 1",
            f"MUTESOLO {int(muted)} 0 0",
            f"ISBUS {folder_depth}",
            f"NCHAN {channels}",
            "FX 1",
            f"TRACKID {guid}",
            "MAINSEND 1 0",
            *content,
        ],
    )


def _item(session: Session, key: str, track: SessionTrack) -> Lines:
    # No fades and no loop: what is heard is the file, sample by sample.
    return _block(
        "ITEM",
        [
            f"POSITION {_number(session.start_s)}",
            "SNAPOFFS 0",
            f"LENGTH {_number(session.length_s)}",
            "LOOP 0",
            "ALLTAKES 0",
            "FADEIN 1 0 0 1 0 0 0",
            "FADEOUT 1 0 0 1 0 0 0",
            "MUTE 0 0",
            f"IGUID {_guid(session, f'item/{key}')}",
            f"NAME {_quoted(track.name)}",
            "VOLPAN 1 0 1 -1",
            "SOFFS 0",
            "PLAYRATE 1 1 0 -1 0 0.0025",
            "CHANMODE 0",
            f"GUID {_guid(session, f'take/{key}')}",
            *_block("SOURCE WAVE", [f"FILE {_quoted_file(track.file)}"]),
        ],
    )


def _block(opening: str, content: Lines) -> Lines:
    return [f"<{opening}", *(f"  {line}" for line in content), ">"]


def _number(seconds: float) -> str:
    """Plain decimals (REAPER reads no exponent); 1e-12 s is a millionth of a sample at any rate."""
    text = f"{seconds:.12f}".rstrip("0").rstrip(".")
    return text or "0"


def _peak_color(color: str) -> int:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return _CUSTOM_COLOR | blue << 16 | green << 8 | red


def _guid(session: Session, key: str) -> str:
    """A GUID that depends on the song and the track alone, so that the same job writes the same file."""
    name = _one_line(f"{session.song}/{session.start_samples}/{key}")
    return "{" + str(uuid.uuid5(_NAMESPACE, name)).upper() + "}"


def _one_line(text: str) -> str:
    """`text` without what would end a line, and without halves of characters that UTF-8 cannot hold."""
    parts = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp"):
            parts.append(" ")
        else:
            parts.append("\ufffd" if category == "Cs" else character)
    return "".join(parts)


def _quoted(text: str) -> str:
    """A name as one token. One that holds all three kinds of quotes has its backticks replaced, as REAPER does."""
    text = _one_line(text).strip()
    for mark in "\"'`":
        if mark not in text:
            return f"{mark}{text}{mark}"
    return "`" + text.replace("`", "'") + "`"


def _quoted_file(file: str) -> str:
    """A file as one token, never altered: another name would be another file."""
    token = _quoted(file)
    if token[1:-1] != file:
        raise OutputError(f"The file name {file!r} cannot stand in a REAPER project; rename the song.")
    return token
