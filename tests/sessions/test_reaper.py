"""REAPER projects, read back with the parser `rpp` that knows nothing of the writer."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import rpp
from sessions.session_samples import check_bars, in_order, random_session, read_points, read_tracks, values

from tsbs_daw.core.errors import OutputError
from tsbs_daw.sessions.rpp import project_text, quoted, write_rpp
from tsbs_daw.sessions.session import Marker, Session, SessionTrack, TempoChange, one_line

TRACKS = (
    SessionTrack("acapella", "acapella.wav", "#e05050"),
    SessionTrack("vocals", "stems/vocals.wav", "#0180ff", muted=True),
    SessionTrack("drums", "stems/drums.wav", "#4caf50", muted=True),
)
SESSION = Session("Night Drive", 48000, 48000 * 3 + 1, 48000 * 10 + 7, 2, TRACKS)


def parsed(session: Session):
    return rpp.loads(project_text(session))


def folder_and_children(session: Session):
    folder, *children = parsed(session).findall("TRACK")
    return folder, children


def test_the_project_carries_the_sample_rate_and_makes_reaper_use_it():
    assert values(parsed(SESSION), "SAMPLERATE")[:2] == ["48000", "1"]


def test_the_project_opens_with_the_cursor_at_the_song_and_keeps_items_in_place_when_the_tempo_changes():
    project = parsed(SESSION)
    assert float(values(project, "CURSOR")[0]) == pytest.approx(SESSION.start_s, abs=1e-12)
    assert values(project, "TIMELOCKMODE") == ["0"]


def test_a_folder_track_named_after_the_song_comes_first_and_has_no_item():
    folder, _ = folder_and_children(SESSION)
    assert values(folder, "NAME") == ["Night Drive"]
    assert values(folder, "ISBUS") == ["1", "1"]
    assert folder.find("ITEM") is None


def test_every_track_has_its_name_colour_mute_and_routing():
    _, children = folder_and_children(SESSION)
    assert [values(track, "NAME")[0] for track in children] == ["acapella", "vocals", "drums"]
    assert [values(track, "MUTESOLO") for track in children] == [["0", "0", "0"], ["1", "0", "0"], ["1", "0", "0"]]
    for track in children:
        assert values(track, "MAINSEND") == ["1", "0"]
        assert values(track, "NCHAN") == ["2"]
        assert values(track, "VOLPAN")[:2] == ["1", "0"]
        assert list(track.attrib) == values(track, "TRACKID")


def test_colours_are_stored_with_red_in_the_low_byte_and_the_custom_bit():
    _, children = folder_and_children(SESSION)
    colors = [int(values(track, "PEAKCOL")[0]) for track in children]
    assert colors == [0x015050E0, 0x01FF8001, 0x0150AF4C]


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_folder_depth_closes_at_zero(count: int):
    session = replace(SESSION, tracks=tuple(SessionTrack(f"t{i}", f"t{i}.wav", "#112233") for i in range(count)))
    depths = [int(values(track, "ISBUS")[1]) for track in parsed(session).findall("TRACK")]
    assert len(depths) == count + 1
    assert sum(depths) == 0
    running = [sum(depths[: i + 1]) for i in range(len(depths))]
    assert all(depth >= 1 for depth in running[:-1]), "a track left the folder too early"


def test_every_item_plays_its_file_whole_from_the_time_reference_unchanged():
    _, children = folder_and_children(SESSION)
    for track, expected in zip(children, TRACKS, strict=True):
        (item,) = track.findall("ITEM")
        assert round(float(values(item, "POSITION")[0]) * 48000) == SESSION.start_samples
        assert round(float(values(item, "LENGTH")[0]) * 48000) == SESSION.samples
        assert values(item, "LOOP") == ["0"]
        assert values(item, "SOFFS") == ["0"]
        assert values(item, "PLAYRATE")[:3] == ["1", "1", "0"]
        assert values(item, "MUTE")[0] == "0"
        assert values(item, "NAME") == [expected.name]
        assert float(values(item, "FADEIN")[1]) == float(values(item, "FADEOUT")[1]) == 0
        source = item.find("SOURCE")
        assert list(source.attrib) == ["WAVE"]
        assert values(source, "FILE") == [expected.file]


def test_a_region_with_the_songs_name_spans_the_song():
    begin, end = (list(marker[1:]) for marker in parsed(SESSION).findall("MARKER"))
    assert begin[0] == end[0] == "1"
    assert begin[2] == "Night Drive" and end[2] == ""
    assert begin[3] == end[3] == "1", "the flag that makes a marker a region"
    assert round(float(begin[1]) * 48000) == SESSION.start_samples
    assert round(float(end[1]) * 48000) == SESSION.start_samples + SESSION.samples
    assert begin[6] == "R"


def test_any_position_at_any_rate_comes_back_to_the_sample():
    rng = random.Random(1)
    for _ in range(300):
        rate = rng.choice([8000, 11025, 44100, 48000, 96000, 192000, 384000])
        start, samples = rng.randrange(rate * 86400), rng.randrange(1, rate * 7200)
        _, children = folder_and_children(replace(SESSION, sample_rate=rate, start_samples=start, samples=samples))
        item = children[0].find("ITEM")
        position, length = values(item, "POSITION")[0], values(item, "LENGTH")[0]
        assert round(float(position) * rate) == start and round(float(length) * rate) == samples
        assert "e" not in position + length


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("plain", "plain"),
        ("", ""),
        ('12" mix', '12" mix'),
        ("it's", "it's"),
        ("`tick`", "`tick`"),
        ('"both" it\'s', '"both" it\'s'),
        ('"all" it\'s `three`', "\"all\" it's 'three'"),
        ("two\nlines\r\nthree\u2028four", "two lines  three four"),
        ("<TRACK", "<TRACK"),
        (">", ">"),
        ("|pipe", "|pipe"),
        ("# not a comment ; neither", "# not a comment ; neither"),
        ("Дорога 🎧 さくら é", "Дорога 🎧 さくら é"),
        ("broken \udcff byte", "broken \ufffd byte"),
        ("tab\tand\x00nul\x1b", "tab and nul"),
    ],
)
def test_names_survive_quoting(name: str, stored: str):
    tracks = (SessionTrack(name, "a.wav", "#000000"),)
    project = parsed(replace(SESSION, song=name, tracks=tracks))
    folder, child = project.findall("TRACK")
    assert values(folder, "NAME") == values(child, "NAME") == [stored]
    assert values(child.find("ITEM"), "NAME") == [stored]
    assert project.findall("MARKER")[0][3] == stored


@pytest.mark.parametrize("file", ["it's/12\" mix.wav", "ünï cödé/ドラム.wav", "a b.wav", "#1;.wav"])
def test_file_names_are_stored_as_they_are(file: str):
    _, (child,) = folder_and_children(replace(SESSION, tracks=(SessionTrack("t", file, "#000000"),)))
    assert values(child.find("ITEM").find("SOURCE"), "FILE") == [file]


@pytest.mark.parametrize("file", ["all\"three'quotes`.wav", "new\nline.wav"])
def test_a_file_name_that_the_format_cannot_hold_is_refused_and_not_altered(file: str):
    with pytest.raises(OutputError, match="A REAPER project cannot hold the file name"):
        project_text(replace(SESSION, tracks=(SessionTrack("t", file, "#000000"),)))


@pytest.mark.parametrize(("channels", "expected"), [(1, "2"), (2, "2"), (5, "6"), (6, "6"), (32, "32")])
def test_tracks_are_wide_enough_for_every_channel(channels: int, expected: str):
    for track in parsed(replace(SESSION, channels=channels)).findall("TRACK"):
        assert values(track, "NCHAN") == [expected]


def test_all_guids_differ_and_the_same_session_gives_the_same_bytes(tmp_path: Path):
    for name in ("one.RPP", "two.RPP"):
        write_rpp(SESSION, tmp_path / name)
    assert (tmp_path / "one.RPP").read_bytes() == (tmp_path / "two.RPP").read_bytes()
    guids = []
    for track in parsed(SESSION).findall("TRACK"):
        guids += values(track, "TRACKID")
        for item in track.findall("ITEM"):
            guids += values(item, "IGUID") + values(item, "GUID")
    assert len(set(guids)) == len(guids) == 1 + 3 * 3
    other = project_text(replace(SESSION, song="Day Drive"))
    assert not [guid for guid in guids if guid in other], "another song must have its own GUIDs"


def test_two_tracks_of_the_same_name_have_their_own_guids():
    twice = (SessionTrack("vocals", "a.wav", "#000000"), SessionTrack("vocals", "b.wav", "#000000"))
    _, (one, two) = folder_and_children(replace(SESSION, tracks=twice))
    assert values(one, "TRACKID") != values(two, "TRACKID")


def test_the_file_is_utf8_with_unix_line_ends_and_survives_a_round_trip(tmp_path: Path):
    path = tmp_path / "Дорога.RPP"
    write_rpp(replace(SESSION, song="Дорога"), path)
    raw = path.read_bytes()
    assert b"\r" not in raw and raw.endswith(b">\n") and not raw.startswith(b"\xef\xbb\xbf")
    project = rpp.loads(raw.decode("utf-8"))
    assert rpp.dumps(rpp.loads(rpp.dumps(project))) == rpp.dumps(project)
    assert project.attrib[0] == "0.1"


def test_a_song_without_a_tempo_leaves_reapers_own_and_draws_no_tempo_map():
    project = parsed(SESSION)
    assert values(project, "TEMPO") == ["120", "4", "4"]
    assert project.find("TEMPOENVEX") is None
    assert values(project, "PROJOFFS") == ["0", "0", "0"]


def test_sound_keeps_its_place_in_seconds_whatever_becomes_of_the_tempo():
    project = parsed(SESSION)
    assert values(project, "TIMELOCKMODE") == values(project, "TEMPOENVLOCKMODE") == ["0"]
    for track in project.findall("TRACK"):
        assert values(track, "BEAT") == ["0"]
        assert [values(item, "BEAT") for item in track.findall("ITEM")] in ([["0"]], [])


def test_the_songs_first_bar_begins_at_its_first_tempo_change_and_is_bar_one():
    session = replace(SESSION, tempo=(TempoChange(24000, 128.5, 3), TempoChange(240000, 97)))
    project = parsed(session)
    assert values(project, "TEMPO") == ["128.5", "3", "4"]
    lead_in, first, second = read_points(project)
    assert (lead_in.at_s, lead_in.bpm, lead_in.bar) == (0, 128.5, (3, 4))
    assert round(first.at_s * 48000) == SESSION.start_samples + 24000 and first.bar == (3, 4) and first.cut
    assert round(second.at_s * 48000) == SESSION.start_samples + 240000
    assert (second.bpm, second.bar) == (97, None), "a tempo alone must not begin a bar"
    # 3.5 s at 128.5 bpm are 7.5 quarters: two bars of three, and half a bar.
    assert values(project, "PROJOFFS") == ["0", "-3", "0"]


def test_bars_before_the_song_are_not_counted_where_it_begins_the_timeline():
    session = replace(SESSION, start_samples=0, tempo=(TempoChange(0, 120, 4), TempoChange(240000, 97, 4)))
    project = parsed(session)
    assert values(project, "PROJOFFS") == ["0", "0", "0"]
    assert [(point.at_s, point.bpm, point.bar, point.cut) for point in read_points(project)] == [
        (0, 120, (4, 4), False),
        (5, 97, (4, 4), True),
    ]


def test_markers_have_names_and_numbers_beside_the_region():
    session = replace(SESSION, markers=(Marker(0, "Intro"), Marker(48000, 'A "1"'), Marker(48000, "")))
    markers = [marker[1:] for marker in parsed(session).findall("MARKER")][2:]
    assert [(marker[0], marker[2], marker[3]) for marker in markers] == [
        ("1", "Intro", "0"),
        ("2", 'A "1"', "0"),
        ("3", "", "0"),
    ]
    places = [round(float(marker[1]) * 48000) - SESSION.start_samples for marker in markers]
    assert places == [0, 48000, 48000]
    assert len({marker[7] for marker in markers}) == 3 and {marker[6] for marker in markers} == {"B"}


def test_groups_are_folders_inside_the_songs_folder():
    tracks = (
        SessionTrack("acapella", "a.wav", "#000000"),
        SessionTrack("drums", "d.wav", "#000000", muted=True, group="drums"),
        SessionTrack("bass", "b.wav", "#000000", group="music"),
        SessionTrack("other", "o.wav", "#000000", group="music"),
        SessionTrack("percussion", "p.wav", "#000000", group="drums"),
    )
    found = read_tracks(parsed(replace(SESSION, tracks=tracks)))
    assert [(track.folders, track.name, track.is_folder) for track in found] == [
        ((), "Night Drive", True),
        (("Night Drive",), "acapella", False),
        (("Night Drive",), "drums", True),
        (("Night Drive", "drums"), "drums", False),
        (("Night Drive", "drums"), "percussion", False),
        (("Night Drive",), "music", True),
        (("Night Drive", "music"), "bass", False),
        (("Night Drive", "music"), "other", False),
    ]
    assert [values(track.element, "MUTESOLO")[0] for track in found if track.name == "drums"] == ["0", "1"]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("a.wav", "WAVE"),
        ("a.aiff", "WAVE"),
        ("a.FLAC", "FLAC"),
        ("a.mp3", "MP3"),
        ("a.ogg", "VORBIS"),
        ("a.opus", "OPUS"),
        ("a.m4a", "VIDEO"),
        ("a", "WAVE"),
    ],
)
def test_the_source_says_which_decoder_reads_it(file: str, source: str):
    _, (child,) = folder_and_children(replace(SESSION, tracks=(SessionTrack("t", file, "#000000"),)))
    assert list(child.find("ITEM").find("SOURCE").attrib) == [source]


def test_the_source_may_lie_outside_the_songs_folder():
    outside = ["/music/a.wav", "C:/a.wav", "../a.wav"]
    tracks = tuple(SessionTrack("t", file, "#000000", outside=True) for file in outside)
    _, children = folder_and_children(replace(SESSION, tracks=tracks))
    files = [values(child.find("ITEM").find("SOURCE"), "FILE")[0] for child in children]
    assert files == outside


def test_any_session_is_read_back_as_it_was():
    rng = random.Random(7)
    for _ in range(60):
        session = random_session(rng)
        project = parsed(session)
        found = [track for track in read_tracks(project)[1:] if not track.is_folder]
        expected = in_order(session)
        assert [track.name for track in found] == [one_line(track.name) for track in expected]
        for track, wanted in zip(found, expected, strict=True):
            (item,) = track.items
            assert round(float(values(item, "POSITION")[0]) * session.sample_rate) == session.start_samples
            assert round(float(values(item, "LENGTH")[0]) * session.sample_rate) == session.samples
            assert values(item, "PLAYRATE")[:3] == ["1", "1", "0"] and values(item, "SOFFS") == ["0"]
            assert values(item.find("SOURCE"), "FILE") == [wanted.file]
            assert values(track.element, "MUTESOLO")[0] == str(int(wanted.muted))
            rgb = int(values(track.element, "PEAKCOL")[0]) & 0xFFFFFF
            assert rgb.to_bytes(3, "little").hex() == wanted.color[1:]
            assert track.folders[1:] == wanted.path
        check_tempo(session, project)


def check_tempo(session: Session, project) -> None:
    points = read_points(project)
    assert bool(points) == bool(session.tempo)
    if not points:
        return
    check_bars(points)
    first_s = session.at_s(session.tempo[0].at_samples)
    last = points[-len(session.tempo) :]
    for point, change in zip(last, session.tempo, strict=True):
        assert point.bpm == pytest.approx(change.bpm, abs=1e-11)
        if point.at_s or first_s >= 0.0005:
            assert round(point.at_s * session.sample_rate) == session.start_samples + change.at_samples
        assert point.bar == ((change.beats_per_bar, 4) if change.beats_per_bar else None) or point is last[0]
    before = values(project, "PROJOFFS")[1]
    bars = first_s * points[0].bpm / 60 / points[0].bar[0]
    assert -int(before) - 1 <= bars <= -int(before) + 1e-2


def test_a_name_of_any_length_makes_no_endless_line():
    assert len(quoted("x" * 5000)) < 600
