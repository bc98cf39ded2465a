"""A batch's project, read back with `rpp`."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import rpp
from sessions.session_samples import check_bars, random_session, read_points, read_tracks, values

from tsbs_daw.sessions.batch_session import GAP_S, BatchSong, batch_text, region_name, write_batch_rpp
from tsbs_daw.sessions.session import About, Session, SessionTrack, TempoChange, one_line

DRUMS = SessionTrack("drums", "stems/drums.wav", "#00aa00", muted=True, group="drums")
VOCALS = SessionTrack("vocals", "stems/vocals.wav", "#aa0000", group="vocals")
ONE = Session("One", 44100, 44100 * 9, 44100 * 60 + 1, 2, (DRUMS, VOCALS), (TempoChange(4410, 128, 4),))
TWO = Session("Two", 48000, 0, 48000 * 30, 1, (VOCALS, replace(DRUMS, muted=False)), (TempoChange(0, 90, 3),))
NONE = Session("None", 48000, 7, 48000 * 30 + 47999, 2, (VOCALS,))


def project_of(*sessions: Session):
    songs = [BatchSong(session, f"song {index}") for index, session in enumerate(sessions)]
    return rpp.loads(batch_text(songs))


def spans(items, rate: int = 1) -> list[tuple[float, float]]:
    found = [(float(values(item, "POSITION")[0]), float(values(item, "LENGTH")[0])) for item in items]
    return [(start * rate, (start + length) * rate) for start, length in found]


def regions(project) -> list[tuple[float, float, str]]:
    lines = [line[1:] for line in project.findall("MARKER")]
    begin, end = lines[0::2], lines[1::2]
    assert all(a[0] == b[0] and a[3] == b[3] == "1" and b[2] == "" for a, b in zip(begin, end, strict=True))
    return [(float(a[1]), float(b[1]), a[2]) for a, b in zip(begin, end, strict=True)]


def test_songs_follow_each_other_with_a_gap_on_tracks_shared_by_name():
    found = read_tracks(project_of(ONE, TWO, NONE))
    assert [(track.folders, track.name) for track in found] == [
        ((), "drums"),
        (("drums",), "drums"),
        ((), "vocals"),
        (("vocals",), "vocals"),
    ]
    drums, vocals = (track for track in found if not track.is_folder)
    assert [start for start, _ in spans(vocals.items)] == [0, 65, 99]
    assert [start for start, _ in spans(drums.items)] == [0, 65]
    assert [values(item, "NAME")[0] for item in vocals.items] == ["One - vocals", "Two - vocals", "None - vocals"]
    files = [values(item.find("SOURCE"), "FILE")[0] for item in vocals.items]
    assert files == [f"song {index}/stems/vocals.wav" for index in range(3)]


def test_a_track_is_muted_if_it_is_in_every_song_and_else_the_items_are():
    drums, vocals = (track for track in read_tracks(project_of(ONE, TWO)) if not track.is_folder)
    assert [values(track.element, "MUTESOLO")[0] for track in (drums, vocals)] == ["0", "0"]
    assert [values(item, "MUTE")[0] for item in drums.items] == ["1", "0"]
    (drums,) = (track for track in read_tracks(project_of(ONE, ONE)) if track.name == "drums" and not track.is_folder)
    assert values(drums.element, "MUTESOLO")[0] == "1"
    assert [values(item, "MUTE")[0] for item in drums.items] == ["0", "0"]


def test_every_song_begins_with_its_own_tempo_and_the_default_where_it_has_none():
    points = read_points(project_of(ONE, TWO, NONE))
    assert [(point.at_s, point.bpm, point.bar) for point in points] == [
        (0, 128, (4, 4)),
        (0.1, 128, (4, 4)),
        (65, 90, (3, 4)),
        (99, 120, (4, 4)),
    ]
    check_bars(points)


def test_a_batch_without_any_tempo_has_no_tempo_map():
    project = project_of(NONE, NONE)
    assert project.find("TEMPOENVEX") is None and values(project, "TEMPO") == ["120", "4", "4"]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [([44100, 48000, 44100], "44100"), ([44100, 48000], "48000"), ([96000], "96000"), ([], "44100")],
)
def test_the_project_has_the_sample_rate_of_most_songs(rates: list[int], expected: str):
    project = project_of(*(replace(NONE, sample_rate=rate) for rate in rates))
    assert values(project, "SAMPLERATE")[:2] == [expected, "1"]


@pytest.mark.parametrize(
    ("about", "name"),
    [
        (About("Title", "Artist", tempo="128.0 BPM", key="8A"), "Artist - Title [128.0 BPM 8A]"),
        (About("Title", tempo="~128.0 BPM"), "Title [~128.0 BPM]"),
        (About(artist="Artist", key="8A"), "One [8A]"),
        (About(), "One"),
    ],
)
def test_a_region_is_named_by_what_is_known(about: About, name: str):
    assert region_name(replace(ONE, about=about)) == name
    assert regions(project_of(replace(ONE, about=about))) == [(0, pytest.approx(ONE.length_s), name)]


def test_a_source_outside_its_songs_folder_is_found_from_the_project():
    absolute = {"/music/a.wav": "/music/a.wav", "C:/a.wav": "C:/a.wav"}
    files = {**absolute, "../b/a.wav": "b/a.wav", "../../a.wav": "../a.wav"}
    tracks = tuple(SessionTrack(file, file, "#000000", outside=True) for file in files)
    found = [
        values(track.items[0].find("SOURCE"), "FILE")[0]
        for track in read_tracks(project_of(replace(ONE, tracks=tracks)))
    ]
    assert found == list(files.values())


def test_an_empty_batch_is_an_empty_project():
    assert read_tracks(project_of()) == [] and regions(project_of()) == []


def test_any_batch_is_read_back_without_overlap_or_stretching():
    rng = random.Random(11)
    for _ in range(15):
        sessions = [random_session(rng) for _ in range(rng.randrange(1, 7))]
        songs = [BatchSong(session, f"{index}/ü") for index, session in enumerate(sessions)]
        project = rpp.loads(batch_text(songs))
        places = regions(project)
        assert len(places) == len(sessions)
        for (_, end, _), (start, _, _) in pairwise(places):
            assert start - end >= GAP_S - 1e-9 and start == int(start)
        files: dict[str, tuple[float, float, str]] = {}
        for track in read_tracks(project):
            found = spans(track.items)
            assert all(a[1] < b[0] for a, b in pairwise(found)), "two items overlap"
            for item, (start, end) in zip(track.items, found, strict=True):
                assert values(item, "PLAYRATE")[:3] == ["1", "1", "0"] and values(item, "BEAT") == ["0"]
                files[values(item.find("SOURCE"), "FILE")[0]] = (start, end, track.name)
        for index, (session, place) in enumerate(zip(sessions, places, strict=True)):
            assert place[2] == one_line(region_name(session))
            for track in session.tracks:
                start, end, name = files.pop(f"{index}/ü/{track.file}")
                assert start == place[0] and name == one_line(track.name)
                assert round((end - start) * session.sample_rate) == session.samples
        assert not files
        check_song_tempos(sessions, places, project)


def check_song_tempos(sessions: list[Session], places: list, project) -> None:
    points = read_points(project)
    assert bool(points) == any(session.tempo for session in sessions)
    if not points:
        return
    check_bars(points)
    by_song = defaultdict(list)
    for point in points:
        by_song[max(index for index, place in enumerate(places) if place[0] <= point.at_s)].append(point)
    for index, session in enumerate(sessions):
        own = by_song[index]
        assert own[0].at_s == places[index][0] and own[0].bar
        if not session.tempo:
            assert [point.bpm for point in own] == [120]
        else:
            assert {round(point.bpm, 6) for point in own} == {round(change.bpm, 6) for change in session.tempo}


def test_the_same_batch_gives_the_same_bytes_and_every_guid_is_its_own(tmp_path: Path):
    songs = [BatchSong(ONE, "a"), BatchSong(ONE, "b"), BatchSong(TWO, "c")]
    for name in ("1.RPP", "2.RPP"):
        write_batch_rpp(songs, tmp_path / name)
    text = (tmp_path / "1.RPP").read_text(encoding="utf-8")
    assert text == (tmp_path / "2.RPP").read_text(encoding="utf-8")
    keys = ("IGUID", "GUID", "TRACKID", "EGUID")
    guids = [line.split()[1] for line in text.splitlines() if line.split()[0] in keys]
    assert len(guids) == len(set(guids)) == 2 * 6 + 4 + 1
