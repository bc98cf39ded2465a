"""What a session may hold, and its groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tsbs_daw.sessions.batch_session import BatchSong, write_batch_rpp
from tsbs_daw.sessions.dawproject import write_dawproject
from tsbs_daw.sessions.rpp import write_rpp
from tsbs_daw.sessions.session import Marker, Session, SessionTrack, TempoChange, usual_group


def track(name: str, group: str = "") -> SessionTrack:
    return SessionTrack(name, f"{name}.wav", "#000000", group=group)


SESSION = Session("song", 44100, 0, 44100, 2, (track("a"),))


def test_a_group_stands_where_its_first_track_is_and_ungrouped_tracks_stand_alone():
    names = [("x", ""), ("kick", "drums"), ("y", ""), ("bass", "music"), ("snare", "drums")]
    session = replace(SESSION, tracks=tuple(track(*name) for name in names))
    assert [(group, [member.name for member in members]) for group, members in session.groups] == [
        ("", ["x"]),
        ("drums", ["kick", "snare"]),
        ("", ["y"]),
        ("music", ["bass"]),
    ]


@pytest.mark.parametrize(
    ("stem", "group"),
    [
        ("vocals", "vocals"),
        ("drums", "drums"),
        ("bass", "music"),
        ("other", "music"),
        ("Drums", "drums"),
        ("", "music"),
    ],
)
def test_every_stem_has_a_group(stem: str, group: str):
    assert usual_group(stem) == group


@pytest.mark.parametrize(
    "wrong",
    [
        {"tempo": (TempoChange(10, 120), TempoChange(10, 121))},
        {"tempo": (TempoChange(10, 120), TempoChange(9, 121))},
        {"tempo": (TempoChange(44101, 120),)},
        {"markers": (Marker(2, "a"), Marker(1, "b"))},
        {"markers": (Marker(44101, "a"),)},
    ],
)
def test_places_out_of_order_or_outside_the_song_are_a_programmer_error(wrong: dict):
    with pytest.raises(AssertionError):
        replace(SESSION, **wrong)


@pytest.mark.parametrize(
    "change", [(-1, 120.0, 4), (0, 0.0, 4), (0, float("inf"), 4), (0, float("nan"), 4), (0, 120.0, 0)]
)
def test_what_is_no_tempo_is_a_programmer_error(change: tuple):
    with pytest.raises(AssertionError):
        TempoChange(*change)


@pytest.mark.parametrize("file", ["/etc/passwd", "../other.wav", "", "a/../../b.wav", "C:/other.wav"])
def test_a_file_outside_the_session_must_be_said_to_be_there(file: str):
    with pytest.raises(AssertionError):
        SessionTrack("t", file, "#000000")
    if file:
        assert SessionTrack("t", file, "#000000", outside=True).file == file


def test_places_in_the_song_are_counted_from_its_first_sample():
    assert replace(SESSION, start_samples=44100 * 3).at_s(22050) == 3.5


@pytest.mark.parametrize("file", ["/a/new\nline.wav", "/a/\udce9.wav", "/\"a'/`.wav"])
def test_a_source_whose_name_no_session_can_hold_is_not_shown_and_the_rest_is(
    file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    source = SessionTrack("source", file, "#000000", outside=True)
    session = replace(SESSION, tracks=(track("a"), source))
    write_rpp(session, tmp_path / "a.RPP")
    write_dawproject(session, tmp_path / "a.dawproject")
    write_batch_rpp([BatchSong(session, "a")], tmp_path / "crate.RPP")
    assert "omits the source" in caplog.text
    assert [len(members) for _, members in session.groups] == [1]
