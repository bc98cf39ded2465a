"""What is known of a song, and how its names, tags and sessions say it."""

from __future__ import annotations

import pytest

from tsbs_daw.contracts.analysis import Analysis, Beats, Key, Loudness, Section, Tempo, TempoChange
from tsbs_daw.pipeline.song_info import SongInfo, info_from_tags, with_analysis
from tsbs_daw.sessions.session import Session
from tsbs_daw.sessions.session import TempoChange as Change

LEVEL = Loudness(integrated_lufs=-14.0, range_lu=4.0, true_peak_db=-1.0)


def analysis(
    bpm: float | None = 128.04,
    doubtful: bool = False,
    key: Key | None = None,
    changes: tuple[TempoChange, ...] = (),
    beats: Beats | None = None,
    sections: tuple[Section, ...] = (),
) -> Analysis:
    tempo = Tempo(bpm=bpm, confidence=0.5, doubtful=doubtful, changes=changes)
    return Analysis(
        duration_s=10, tempo=tempo, beats=beats or Beats(), key=key, loudness=LEVEL, intro_s=0, sections=sections
    )


def session_of(found: Analysis, markers: str = "sections") -> Session:
    bare = Session("song", 1000, 5000, 10_000, 2, ())
    return with_analysis(bare, SongInfo("song", "Nina", "Rain", found), markers)


@pytest.mark.parametrize(
    ("song", "tags", "artist", "title"),
    [
        ("Nina Vale - Night Drive", ("", ""), "Nina Vale", "Night Drive"),
        ("Nina Vale – Night - Drive", ("", ""), "Nina Vale", "Night - Drive"),
        ("01 - Night Drive", ("", ""), "", "01 - Night Drive"),
        ("night-drive", ("", ""), "", "night-drive"),
        ("さくら - 東京", ("", ""), "さくら", "東京"),
        ("Nina Vale - Night Drive", ("N. Vale", "Drive"), "N. Vale", "Drive"),
        ("Nina Vale - Night Drive", ("", "Drive"), "", "Drive"),
        ("Nina Vale - Night Drive", ("NINA VALE", ""), "NINA VALE", "Night Drive"),
        ("Nina Vale - Night Drive", ("N. Vale", ""), "N. Vale", "Nina Vale - Night Drive"),
    ],
)
def test_tags_come_before_names(song, tags, artist, title):
    facts = info_from_tags(song, *tags)
    assert (facts.artist, facts.title) == (artist, title)


def test_a_doubtful_figure_is_marked_in_names_and_kept_out_of_tags():
    minor = Key(tonic="Bb", mode="minor", camelot="3A", confidence=0.3, doubtful=True)
    sure = SongInfo("song", "", "song", analysis(key=minor.model_copy(update={"doubtful": False})))
    unsure = SongInfo("song", "", "song", analysis(doubtful=True, key=minor))
    assert [sure.fields[name] for name in ("bpm", "key", "camelot")] == ["128.0", "Bbm", "3A"]
    assert [unsure.fields[name] for name in ("bpm", "key", "camelot")] == ["~128.0", "~Bbm", "~3A"]
    assert (sure.sure_bpm, unsure.sure_bpm, unsure.sure_key) == (128.04, None, None)
    nothing = SongInfo("song", "", "song", analysis(bpm=None))
    assert nothing.fields["bpm"] == nothing.fields["key"] == "" and nothing.sure_bpm is None


def test_the_first_bar_begins_at_a_downbeat_and_later_tempos_follow():
    beats = Beats(times_s=(0.5, 1.0, 1.5), downbeats_s=(1.0,), beats_per_bar=4, meter_doubtful=False)
    changes = (TempoChange(at_s=0.5, bpm=120), TempoChange(at_s=6.0, bpm=90), TempoChange(at_s=11, bpm=80))
    assert session_of(analysis(changes=changes, beats=beats)).tempo == (Change(1000, 120, 4), Change(6000, 90))


def test_without_bars_the_grid_begins_at_the_first_beat():
    beats = Beats(times_s=(0.5, 1.0), downbeats_s=(1.0,), beats_per_bar=4, meter_doubtful=True)
    assert session_of(analysis(changes=(TempoChange(at_s=0.5, bpm=120),), beats=beats)).tempo == (Change(500, 120),)
    assert session_of(analysis(bpm=120, beats=beats)).tempo == (Change(500, 120),)
    assert session_of(analysis(doubtful=True, beats=beats)).tempo == ()
    assert session_of(analysis(bpm=None)).tempo == ()


def test_markers_are_in_order_and_inside_the_song():
    parts = [(6.0, 12.0, "B"), (0.0, 6.0, "A"), (12.0, 13.0, "C")]
    sections = tuple(Section(start_s=a, end_s=b, label=name, confidence=0.5) for a, b, name in parts)
    found = session_of(analysis(sections=sections, beats=Beats(downbeats_s=(1.0, 3.0))))
    assert [(marker.at_samples, marker.name) for marker in found.markers] == [(0, "A"), (6000, "B")]
    bars = session_of(analysis(sections=sections, beats=Beats(downbeats_s=(1.0, 3.0))), "bars")
    assert [(marker.at_samples, marker.name) for marker in bars.markers] == [(1000, "bar 1"), (3000, "bar 2")]
    assert session_of(analysis(sections=sections), "none").markers == ()


def test_a_session_says_what_its_song_is():
    key = Key(tonic="A", mode="minor", camelot="8A", confidence=0.9, doubtful=False)
    about = session_of(analysis(doubtful=True, key=key)).about
    assert (about.artist, about.title, about.tempo, about.key) == ("Nina", "Rain", "~128.0 BPM", "Am (8A)")
    without = with_analysis(Session("song", 1000, 0, 10, 2, ()), SongInfo("song", "", "song"), "bars")
    assert (without.tempo, without.markers, without.about.tempo) == ((), (), "")
