from __future__ import annotations

import json

import numpy as np
import pytest

from tsbs_daw.analysis.features import Weights, extract_stream, likelihoods, using, weights
from tsbs_daw.core.errors import DatasetError
from tsbs_daw.lab.evaluation.analysis import _keep, _load, _ranges, _seed
from tsbs_daw.lab.evaluation.fit import cadence_examples, fit_weights, key_examples, least_sure


def examples(songs: int, seed: int = 3):
    """Candidates in varying number; the one with the largest first feature, less the second, is true."""
    rng = np.random.default_rng(seed)
    for _ in range(songs):
        features = rng.normal(size=(int(rng.integers(3, 7)), 3))
        right = np.zeros(len(features), bool)
        right[(features[:, 0] - features[:, 1]).argmax()] = True
        yield features, right


def test_weights_are_learnt_from_what_is_right():
    learnt = fit_weights(examples(200), penalty=0.1)
    assert learnt[0] > 1 > 0.3 > abs(learnt[2])
    assert learnt[1] < -1
    fresh = list(examples(100, seed=4))
    assert np.mean([right[(features @ learnt).argmax()] for features, right in fresh]) > 0.95


def test_examples_without_a_true_candidate_teach_nothing():
    blank = np.ones((4, 3)), np.zeros(4, bool)
    np.testing.assert_allclose(fit_weights([*examples(20), blank], 0.1), fit_weights(examples(20), 0.1))


def test_a_strong_penalty_leaves_weights_where_they_start():
    start = np.asarray([0.2, -0.7, 0.4])
    np.testing.assert_allclose(fit_weights(examples(20), 1e6, start), start, atol=1e-3)
    assert np.abs(fit_weights(examples(20), 0.1, start) - start).max() > 0.3


def test_doubt_begins_where_one_in_twenty_would_be_wrong():
    sure = [(0.9 + number / 1000, True) for number in range(40)]
    assert least_sure(sure) == 0.9
    assert least_sure([*sure, (0.5, False)]) == 0.9
    assert least_sure([*sure, (0.5, False), (0.4, True)]) == 0.4
    assert least_sure([*sure, *((0.5, False) for _ in range(5))]) == 0.9
    assert least_sure([(0.99, False)] * 3) == 1.01
    assert least_sure([(0.99, True)] * 10) == 1.01  # too few to tell


def test_other_weights_are_used_only_inside():
    bundled = weights()
    other = Weights({"bar": np.asarray([100.0])}, {})
    with using(other):
        assert weights() is other
        assert likelihoods("bar", np.asarray([[1.0], [0.0]]))[0] > 0.99
    assert weights() is bundled


def test_the_bundled_weights_say_how_they_came_about():
    from importlib.resources import files

    known = json.loads((files("tsbs_daw.analysis") / "weights.json").read_text(encoding="utf-8"))
    assert set(known["doubt"]) == {"tempo", "bars", "key"}
    assert known["how"]["command"].startswith("python -m tsbs_daw.lab fit")
    assert all(int(part.split("-")[1]) < 9500 for part in known["how"]["seeds"])
    assert known["unseen"]["separated"]["songs"] == known["how"]["songs"]


def test_what_was_heard_is_kept_whole(tmp_path):
    sound = np.random.default_rng(0).normal(0, 0.1, (2, 60_000)).astype(np.float32)
    extracted = {"": extract_stream([sound], 44100, 2), "drums": extract_stream([sound[:, ::-1]], 44100, 2)}
    _keep(extracted, tmp_path / "song.npz")
    again = _load(tmp_path / "song.npz")
    assert list(again) == ["", "drums"]
    for name in extracted:
        for field, value in extracted[name][0].__dict__.items():
            np.testing.assert_array_equal(getattr(again[name][0], field), value)


def test_songs_of_the_test_split_are_not_learnt_from(tmp_path):
    (tmp_path / "song.json").write_text('{"seed": 9500}')
    with pytest.raises(DatasetError, match="test split"):
        _seed(tmp_path)
    assert _ranges([7001, 7000, 7002, 1000, 7001]) == ["1000-1000", "7000-7002"]


def test_symbolic_songs_and_cadences_teach_one_key_each():
    found = key_examples(4)
    assert all(features.shape[0] == right.shape[0] == 24 and right.sum() == 1 for features, right in found)
    assert {int(right.argmax()) for _, right in cadence_examples()} == {0, 12}  # C major and C minor
