"""Scores: the same seed writes the same song, and what is said of a song is true of its notes."""

from __future__ import annotations

import numpy as np
import pytest

from tsbs_daw.lab.songs.compose import GROOVES_3, GROOVES_4, compose
from tsbs_daw.lab.songs.kits import LEVEL
from tsbs_daw.lab.songs.render import BASS_FAMILIES, FAMILIES
from tsbs_daw.lab.songs.soundfont import DRUM_KEYS, PROGRAMS
from tsbs_daw.lab.songs.styles import STYLES

SEEDS = range(1000, 1060)


@pytest.fixture(scope="module")
def scores():
    return [compose(seed) for seed in SEEDS]


def test_the_same_seed_writes_the_same_score_and_another_seed_another():
    assert compose(1234) == compose(1234)
    assert compose(1234) != compose(1235)


@pytest.mark.parametrize("style", list(STYLES))
def test_every_style_can_be_composed_with_all_parts(style):
    score = compose(1000, 30.0, style=style, complete=True)
    assert {part.stem for part in score.parts if part.events} == {"vocals", "drums", "bass", "other"}


def test_every_name_in_the_tables_is_known():
    for style in STYLES.values():
        assert set(style.grooves) <= set(GROOVES_4) | set(GROOVES_3)
        assert set(style.basses) <= set(BASS_FAMILIES) & set(PROGRAMS)
        for _, families in style.comps:
            assert set(families) <= set(FAMILIES) & set(PROGRAMS)


def test_grooves_fill_their_bar_with_known_pieces():
    for steps, table in ((16, GROOVES_4), (12, GROOVES_3)):
        for name, groove in table.items():
            for piece, pattern in groove.items():
                assert len(pattern) == steps, (name, piece)
                assert ("hat" if piece == "hat2" else piece) in LEVEL
    assert set(LEVEL) == set(DRUM_KEYS)


def test_drums_lie_on_the_grid_of_the_bar(scores):
    for score in scores:
        for part in score.parts:
            for hit in part.events if part.stem == "drums" else ():
                assert abs(hit.beat * 8 - round(hit.beat * 8)) < 1e-9


def test_most_first_beats_of_a_chorus_have_a_drum_on_them(scores):
    found = total = 0
    for score in scores:
        hits = {hit.beat for part in score.parts if part.stem == "drums" for hit in part.events}
        for section in score.sections:
            if section.name == "chorus" and "drums" in section.playing:
                total += 1
                found += float(section.bar * score.bar_beats) in hits
    assert found / total > 0.8


def test_chords_follow_each_other_without_gaps_and_belong_to_the_scale(scores):
    for score in scores:
        for chord, following in zip(score.chords, score.chords[1:], strict=False):
            assert chord.beat + chord.beats == pytest.approx(following.beat)
        assert all(chord.root in score.scale for chord in score.chords)
        inside = np.mean([pitch in score.scale for chord in score.chords for pitch in chord.pitch_classes])
        assert inside > 0.85


def test_melodies_stay_in_key_and_in_the_singers_range(scores):
    for score in scores:
        for part in score.parts:
            if part.stem != "vocals" or part.timbre["kind"] == "rap":
                continue
            pitches = [round(note.pitch) for note in part.events]
            assert np.mean([pitch % 12 in score.scale for pitch in pitches]) > 0.85
            assert min(pitches) >= 30
            assert max(pitches) <= 92


def test_bass_notes_are_low_and_other_parts_are_not(scores):
    for score in scores:
        for part in score.parts:
            if part.events and part.stem == "bass":
                assert 24 <= np.median([note.pitch for note in part.events]) <= 52
            if part.events and part.stem == "other":
                assert np.median([note.pitch for note in part.events]) > 45


def test_notes_lie_within_the_song(scores):
    for score in scores:
        for part in score.parts:
            for event in part.events:
                assert event.beat > -1e-9
                assert 0 < event.velocity <= 1.0


def test_songs_differ_as_much_as_the_tables_allow(scores):
    assert len({score.style for score in scores}) >= 12
    assert len({score.tonic for score in scores}) >= 9
    tempos = [score.tempo_bpm for score in scores]
    assert min(tempos) < 75
    assert max(tempos) > 150
    assert {"4/4", "3/4"} <= {score.meter for score in scores}
    without = [{"vocals", "drums", "bass", "other"} - {part.stem for part in score.parts} for score in scores]
    assert 0 < sum(bool(missing) for missing in without) < len(scores) / 3


def test_swing_delays_the_second_half_of_a_pair_only():
    score = next(score for score in map(compose, SEEDS) if score.swing > 0.6)
    pair_s = 2 * score.swing_unit * 60 / score.tempo_bpm
    assert score.seconds(0) == 0
    assert score.seconds(score.swing_unit) == pytest.approx(pair_s * score.swing)
    assert score.seconds(2 * score.swing_unit) == pytest.approx(pair_s)
