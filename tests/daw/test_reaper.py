"""REAPER projects, read back with the parser `rpp` that knows nothing of the writer."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import rpp

from tsbs_daw.daw.reaper import project_text, write_rpp
from tsbs_daw.daw.session import Session, SessionTrack
from tsbs_daw.errors import OutputError

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


def values(element, key: str) -> list[str]:
    found = element.find(key)
    assert found is not None, f"{element.tag} has no {key}"
    return list(found[1:])


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
    with pytest.raises(OutputError, match="cannot stand in a REAPER project"):
        project_text(replace(SESSION, tracks=(SessionTrack("t", file, "#000000"),)))


@pytest.mark.parametrize("file", ["/etc/passwd", "../other.wav", "", "a/../../b.wav"])
def test_a_file_outside_the_sessions_folder_is_a_programmer_error(file: str):
    with pytest.raises(AssertionError):
        SessionTrack("t", file, "#000000")


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
