from __future__ import annotations

import numpy as np
import pytest

from tsbs_daw.contracts.analysis import Analysis, Beats, Key, Loudness, Tempo
from tsbs_daw.core.errors import DatasetError, UsageError
from tsbs_daw.lab.evaluation.analysis import compare, evaluate_analysis, summarise
from tsbs_daw.lab.evaluation.songs import Truth, read_truth

BEATS = tuple(np.arange(0.0, 20, 0.5).tolist())
TRUTH = Truth(120.0, BEATS, BEATS[::4], 4, (9, "minor"), (0.0, 10.0), 20.0)


def said(bpm: float, key: Key | None, *, doubtful: bool = False) -> Analysis:
    step = 60 / bpm
    times = tuple(np.arange(0.0, 20, step).tolist())
    return Analysis(
        duration_s=20.0,
        tempo=Tempo(bpm=bpm, confidence=0.5, doubtful=doubtful),
        beats=Beats(times_s=times, downbeats_s=times[::4], beats_per_bar=4, meter_doubtful=False),
        key=key,
        loudness=Loudness(integrated_lufs=None, range_lu=None, true_peak_db=None),
        intro_s=0.0,
    )


def key(tonic: str, mode: str) -> Key:
    return Key(tonic=tonic, mode=mode, camelot="8A", confidence=0.9, doubtful=False)


@pytest.mark.parametrize(
    ("answer", "found"),
    [(key("A", "minor"), "exact"), (key("C", "major"), "relative"), (key("E", "minor"), "fifth"),
     (key("A", "major"), "parallel"), (key("Eb", "major"), "wrong"), (None, "none")],
)  # fmt: skip
def test_a_key_is_compared_as_musicians_would(answer, found):
    assert compare(said(120, answer), TRUTH)["key"]["found"] == found


def test_an_octave_error_counts_as_right_only_when_it_is_marked():
    bold, careful = (compare(said(60, None, doubtful=doubtful), TRUTH)["tempo"] for doubtful in (False, True))
    assert not bold["right"] and bold["octave_error"] and not bold["right_or_marked_octave"]
    assert careful["right_or_marked_octave"]


def test_the_summary_counts_what_was_wrong_without_a_warning():
    songs = [compare(said(bpm, key("A", "minor")), TRUTH) for bpm in (120, 120, 60)]
    summary = summarise(songs)
    assert summary["songs"] == 3
    assert summary["tempo_right"] == pytest.approx(2 / 3, abs=1e-3)
    assert summary["trust"]["tempo"] == {
        "not_doubtful": 3, "of_these_wrong": 1, "doubtful": 0, "of_those_wrong": 0,
    }  # fmt: skip
    assert songs[0]["beats"]["f_measure"] == 1.0
    assert songs[0]["beats"]["bars_right"]


def test_truth_is_cut_with_the_song():
    rest = TRUTH.after(0.75)
    assert rest.beats_s[0] == pytest.approx(0.25)
    assert rest.downbeats_s[0] == pytest.approx(1.25)
    assert rest.duration_s == pytest.approx(19.25)


def test_a_folder_that_knows_nothing_and_a_missing_model_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"song\.json"):
        read_truth(tmp_path)
    with pytest.raises(UsageError, match="need a model"):
        evaluate_analysis([tmp_path], None)
