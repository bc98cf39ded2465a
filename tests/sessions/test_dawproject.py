"""DAWprojects: valid by the published schemas, and read back with lxml."""

from __future__ import annotations

import random
import zipfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from lxml import etree
from sessions.session_samples import in_order, random_session

from tsbs_daw.core.errors import OutputError
from tsbs_daw.sessions.dawproject import write_dawproject
from tsbs_daw.sessions.session import About, Marker, Session, SessionTrack, TempoChange, one_line

SCHEMAS = Path(__file__).parent / "data" / "dawproject"
TRACKS = (
    SessionTrack("acapella", "acapella.wav", "#e05050"),
    SessionTrack("drums", "stems/drums.wav", "#0180ff", muted=True, group="drums"),
    SessionTrack("bass", "stems/bass.wav", "#4caf50", muted=True, group="music"),
    SessionTrack("other", "stems/other.wav", "#4caf50", group="music"),
)
SESSION = Session("Night Drive", 48000, 48000 * 3 + 1, 48000 * 10 + 7, 2, TRACKS)


class Opened:
    """A DAWproject as a reader sees it: valid, or the test fails."""

    def __init__(self, path: Path):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            self.names = archive.namelist()
            self.project = valid("Project.xsd", archive.read("project.xml"))
            self.tags = valid("MetaData.xsd", archive.read("metadata.xml"))
        self.by_id = {element.get("id"): element for element in self.project.iter() if element.get("id")}
        assert len(self.by_id) == len(self.project.xpath("//*[@id]"))

    def one(self, path: str):
        (found,) = self.project.xpath(path)
        return found

    @property
    def audio_tracks(self) -> list:
        return self.project.xpath("//Track[@contentType='audio']")

    def clip(self, track):
        return self.one(f"//Lanes[@track='{track.get('id')}']/Clips/Clip")

    def seconds(self, quarters: float) -> float:
        """A place on the tempo map in seconds, by its own reading of the map."""
        points = [
            (float(p.get("time")), float(p.get("value"))) for p in self.project.xpath("//TempoAutomation/RealPoint")
        ]
        points = points or [(0.0, float(self.one("//Transport/Tempo").get("value")))]
        assert points[0][0] == 0
        total = 0.0
        for (at, bpm), (until, _) in zip(points, [*points[1:], (float("inf"), 0.0)], strict=True):
            total += max(0.0, min(quarters, until) - at) * 60 / bpm
        return total


def valid(schema: str, document: bytes):
    root = etree.fromstring(document)
    etree.XMLSchema(etree.parse(SCHEMAS / schema)).assertValid(root)
    return root


def written(session: Session, into: Path, **options) -> Opened:
    path = into / "session.dawproject"
    write_dawproject(session, path, **options)
    return Opened(path)


def test_every_track_has_its_name_colour_mute_and_clip_with_the_exact_file(tmp_path: Path):
    found = written(SESSION, tmp_path)
    for track, expected in zip(found.audio_tracks, TRACKS, strict=True):
        assert (track.get("name"), track.get("color")) == (expected.name, expected.color)
        assert track.find("Channel/Mute").get("value") == str(expected.muted).lower()
        assert float(track.find("Channel/Volume").get("value")) == 1
        clip = found.clip(track)
        assert round(float(clip.get("time")) * 48000) == SESSION.start_samples
        for key in ("duration", "playStop"):
            assert round(float(clip.get(key)) * 48000) == SESSION.samples
        assert (clip.get("playStart"), clip.get("contentTimeUnit")) == ("0", "seconds")
        assert clip.getparent().getparent().getparent().get("timeUnit") == "seconds"
        audio = clip.find("Audio")
        assert [audio.get(key) for key in ("sampleRate", "channels", "algorithm")] == ["48000", "2", "raw"]
        assert dict(audio.find("File").attrib) == {"path": expected.file, "external": "true"}


def test_groups_are_tracks_that_their_members_play_into(tmp_path: Path):
    found = written(SESSION, tmp_path)
    top = found.project.xpath("/Project/Structure/Track")
    assert [(track.get("name"), track.get("contentType")) for track in top] == [
        ("acapella", "audio"),
        ("drums", "tracks"),
        ("music", "tracks"),
        ("Master", "audio notes"),
    ]
    assert [member.get("name") for member in top[2].findall("Track")] == ["bass", "other"]
    master = top[-1].find("Channel")
    assert (master.get("role"), master.get("destination")) == ("master", None)
    for group in top[1:3]:
        channel = group.find("Channel")
        assert (channel.get("role"), channel.get("destination")) == ("submix", master.get("id"))
        assert {member.find("Channel").get("destination") for member in group.findall("Track")} == {channel.get("id")}
    assert top[0].find("Channel").get("destination") == master.get("id")


def test_a_song_without_a_tempo_has_the_default_and_no_tempo_map(tmp_path: Path):
    found = written(SESSION, tmp_path)
    assert found.one("//Tempo").get("value") == "120"
    assert found.project.xpath("//TempoAutomation | //TimeSignatureAutomation | //Markers") == []


def test_a_steady_song_from_the_start_needs_no_tempo_map(tmp_path: Path):
    found = written(replace(SESSION, start_samples=0, tempo=(TempoChange(0, 128.5, 3),)), tmp_path)
    assert found.one("//Tempo").get("value") == "128.5"
    assert dict(found.one("//TimeSignature").attrib).items() >= {"numerator": "3", "denominator": "4"}.items()
    assert found.project.xpath("//TempoAutomation") == []


def test_the_song_begins_with_a_bar_and_the_transport_has_its_own_tempo(tmp_path: Path):
    session = replace(SESSION, tempo=(TempoChange(24000, 128, 4), TempoChange(240000, 97)))
    found = written(session, tmp_path)
    assert found.one("//Tempo").get("value") == "128"
    points = found.project.xpath("//TempoAutomation/RealPoint")
    assert [float(point.get("value")) for point in points][-2:] == [128, 97]
    assert {point.get("interpolation") for point in points} == {"hold"}
    first, second = (float(point.get("time")) for point in points[-2:])
    assert round(found.seconds(first) * 48000) == SESSION.start_samples + 24000
    assert round(found.seconds(second) * 48000) == SESSION.start_samples + 240000
    assert first in bar_lines(found, first)


def bar_lines(found: Opened, until: float) -> list[float]:
    """Where bars begin, in quarters. Asserts that a new time signature stands only there."""
    signs = found.project.xpath("//TimeSignatureAutomation/TimeSignaturePoint")
    lines = [0.0]
    for sign, following in zip(signs, [*signs[1:], None], strict=True):
        at = float(sign.get("time"))
        assert at == lines[-1], f"a bar of {sign.get('numerator')} begins at {at}, after {lines[-1]}"
        end = until if following is None else float(following.get("time"))
        while lines[-1] < end:
            lines.append(round(lines[-1] + int(sign.get("numerator")) * 4 / int(sign.get("denominator")), 9))
    return lines


def test_markers_are_in_seconds_on_the_timeline(tmp_path: Path):
    found = written(replace(SESSION, markers=(Marker(0, "A"), Marker(48000, "<B>\n"))), tmp_path)
    assert found.one("//Markers").get("timeUnit") == "seconds"
    markers = [(marker.get("name"), float(marker.get("time"))) for marker in found.project.xpath("//Marker")]
    assert markers == [("A", pytest.approx(SESSION.start_s)), ("<B>", pytest.approx(SESSION.start_s + 1))]


def test_tags_are_the_songs_and_unknown_ones_are_left_out(tmp_path: Path):
    about = About("Дорога & <so>", "Artist", "Album", "House", "1999", "live", "128.0 BPM", "~8A")
    tags = written(replace(SESSION, about=about), tmp_path).tags
    assert {tag.tag: tag.text for tag in tags} == {
        "Title": "Дорога & <so>",
        "Artist": "Artist",
        "Album": "Album",
        "Year": "1999",
        "Genre": "House",
        "Comment": "live, 128.0 BPM ~8A",
    }
    assert {tag.tag: tag.text for tag in written(SESSION, tmp_path).tags} == {"Title": "Night Drive"}


def test_audio_elsewhere_is_named_from_the_projects_folder(tmp_path: Path):
    outside = ["../source.wav", "/music/source.wav", "C:/source.wav"]
    tracks = (TRACKS[0], *(SessionTrack("source", file, "#000000", outside=True) for file in outside))
    found = written(replace(SESSION, tracks=tracks), tmp_path, folder=tmp_path / "songs" / "one")
    files = [found.clip(track).find("Audio/File").get("path") for track in found.audio_tracks]
    assert files == ["songs/one/acapella.wav", "songs/source.wav", "/music/source.wav", "C:/source.wav"]


def test_embedded_audio_is_in_the_file_byte_by_byte(tmp_path: Path):
    song = tmp_path / "song"
    rng = random.Random(1)
    tracks = (*TRACKS, SessionTrack("again", TRACKS[0].file, "#000000"))
    outside = [SessionTrack("source", f"../{folder}/source.wav", "#000000", outside=True) for folder in "ab"]
    contents = {}
    for track in (*TRACKS, *outside):
        path = song / track.file
        path.parent.mkdir(parents=True, exist_ok=True)
        contents[track.file] = rng.randbytes(100_000)
        path.write_bytes(contents[track.file])
    found = written(replace(SESSION, tracks=(*tracks, *outside)), tmp_path, folder=song, embed=True)
    audio = sorted(found.audio_tracks, key=lambda track: track.get("name"))
    with zipfile.ZipFile(tmp_path / "session.dawproject") as archive:
        for track, expected in zip(audio, sorted((*tracks, *outside), key=lambda track: track.name), strict=True):
            file = found.clip(track).find("Audio/File")
            assert file.get("external") is None and file.get("path").startswith("audio/")
            assert ".." not in file.get("path")
            assert archive.read(file.get("path")) == contents[expected.file]
    assert len(found.names) == len(set(found.names)) == 2 + 4 + 2


def test_audio_that_is_missing_is_named_and_nothing_is_left(tmp_path: Path):
    with pytest.raises(OutputError, match=r"Cannot embed .*acapella\.wav' in the DAWproject"):
        write_dawproject(SESSION, tmp_path / "session.dawproject", embed=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["new\nline.wav", "\x00.wav", "\udcff.wav"])
def test_a_file_name_that_xml_cannot_hold_is_refused(file: str, tmp_path: Path):
    session = replace(SESSION, tracks=(SessionTrack("t", file, "#000000"),))
    with pytest.raises(OutputError, match="A DAWproject cannot hold the file name"):
        write_dawproject(session, tmp_path / "session.dawproject")


@pytest.mark.parametrize("file", [" a .wav", "it's/12\" <mix> & `.wav", "ünï/ドラム 🎧.wav", "100%20#.wav", "a\\b.wav"])
def test_any_other_file_name_is_kept_as_it_is(file: str, tmp_path: Path):
    found = written(replace(SESSION, tracks=(SessionTrack("t", file, "#000000"),)), tmp_path)
    assert found.one("//File").get("path") == file


def test_the_same_session_gives_the_same_bytes_wherever_it_is_written(tmp_path: Path):
    session = replace(SESSION, tempo=(TempoChange(24000, 128.7, 4),), markers=(Marker(0, "A"),))
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        write_dawproject(session, folder / "session.dawproject")
    one, two = ((folder / "session.dawproject").read_bytes() for folder in folders)
    assert one == two


def test_any_session_is_valid_and_read_back_as_it_was(tmp_path: Path):
    rng = random.Random(5)
    for _ in range(80):
        session = random_session(rng)
        found = written(session, tmp_path)
        expected = in_order(session)
        for track, wanted in zip(found.audio_tracks, expected, strict=True):
            assert (track.get("name"), track.get("color")) == (one_line(wanted.name), wanted.color)
            assert track.find("Channel/Mute").get("value") == str(wanted.muted).lower()
            folders = [parent.get("name") for parent in track.iterancestors("Track")]
            assert tuple(reversed(folders)) == wanted.path
            clip = found.clip(track)
            assert round(float(clip.get("time")) * session.sample_rate) == session.start_samples
            assert round(float(clip.get("duration")) * session.sample_rate) == session.samples
            assert clip.get("playStop") == clip.get("duration") == clip.find("Audio").get("duration")
            assert clip.find("Audio/File").get("path") == wanted.file and clip.find("Audio/Warps") is None
        places = [round(float(marker.get("time")) * session.sample_rate) for marker in found.project.xpath("//Marker")]
        assert places == [session.start_samples + marker.at_samples for marker in session.markers]
        check_tempo_map(session, found)


def check_tempo_map(session: Session, found: Opened) -> None:
    times = [float(point.get("time")) for point in found.project.xpath("//TempoAutomation/RealPoint")]
    signs = [float(point.get("time")) for point in found.project.xpath("//TimeSignaturePoint")]
    assert times == sorted(set(times)) and set(signs) <= set(times)
    if not session.tempo:
        assert not times
        return
    seconds = [found.seconds(time) for time in times or [0.0]]
    for index, change in enumerate(session.tempo):
        at_s = session.at_s(change.at_samples)
        nearest = min(seconds, key=lambda second: abs(second - at_s))
        assert abs(nearest - at_s) < 1e-6 or (index == 0 and at_s < 0.006)


def test_the_standard_librarys_parser_reads_it_too(tmp_path: Path):
    write_dawproject(SESSION, tmp_path / "session.dawproject")
    with zipfile.ZipFile(tmp_path / "session.dawproject") as archive:
        root = ElementTree.fromstring(archive.read("project.xml"))
    assert (root.tag, root.get("version")) == ("Project", "1.0")
