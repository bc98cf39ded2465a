"""REAPER projects (.RPP) of one song: a folder track named after the song, in it a folder for each group of tracks, one
item per track, a region that spans the song, its markers, and its tempo map.

The song's first bar is bar 1, wherever on the timeline it begins; a song without a tempo leaves REAPER's own, 120.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from tsbs_daw.sessions import rpp
from tsbs_daw.sessions.grid import bars_before, changes_of, steps, with_lead_in
from tsbs_daw.sessions.rpp import Lines, Track
from tsbs_daw.sessions.session import GROUP_COLORS, Session, SessionTrack


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
    return rpp.text_of(
        [
            *rpp.settings(session.sample_rate, start_s, first_bar=1 - lead_in),
            *rpp.tempo(found, _key(session, "tempo")),
            *rpp.region(1, start_s, end_s, session.song, _key(session, "region")),
            *_markers(session, start_s),
            *_folder(session, start_s).lines(),
        ]
    )


def _markers(session: Session, start_s: Fraction) -> Lines:
    return [
        rpp.marker(
            index,
            start_s + Fraction(marker.at_samples, session.sample_rate),
            marker.name,
            _key(session, f"marker/{index}"),
        )
        for index, marker in enumerate(session.markers, start=1)
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
    found.content = rpp.item(start_s, length_s, track.name, track.file, _key(session, f"item/{key}"))
    return found


def _key(session: Session, key: str) -> str:
    return f"{session.song}/{session.start_samples}/{key}"
