"""The worker's side: whatever becomes of bridges and clusters, a song comes out whole, or waits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from cli.program import small_model

from tsbs_daw.cluster import remote
from tsbs_daw.cluster.lanes import Model
from tsbs_daw.cluster.remote import Connection, RemoteBatcher, attach
from tsbs_daw.core.errors import ClusterUnavailable, JobCancelled
from tsbs_daw.separation import Separator

SCRIPT = Path(__file__).parent / "bridges.py"
MODEL = Model("a" * 64, "model.safetensors", "float32", None)


@pytest.fixture
def connect(tmp_path, monkeypatch):
    """Connections through a bridge of a kind of `bridges`, away at once or after the usual minute."""
    made = []
    monkeypatch.setenv("PYTHONPATH", str(Path(remote.__file__).parents[2]))
    monkeypatch.setattr(remote, "RESTART_S", (0.0, 0.0))

    def connection(kind: str, *, away_s: float = remote.AWAY_S) -> Connection:
        monkeypatch.setattr(remote, "AWAY_S", away_s)
        monkeypatch.setattr(remote, "python", lambda *_: [sys.executable, str(SCRIPT), kind, str(tmp_path)])
        made.append(Connection("10.0.0.1:6379"))
        return made[-1]

    yield connection
    for one in made:
        one.close()


@pytest.fixture
def separator(tmp_path) -> Separator:
    return Separator.load(str(small_model(tmp_path / "small.safetensors")), "cpu")


def song_of(separator: Separator, chunks: float) -> np.ndarray:
    samples = round(chunks * separator.chunk_samples)
    return np.random.default_rng(1).normal(0, 0.1, (2, samples)).astype(np.float32)


def over(connection: Connection, separator: Separator, *, local: bool = False) -> Separator:
    separator.batcher = RemoteBatcher(connection, MODEL, separator.batcher if local else None)
    return separator


@pytest.mark.parametrize("kind", ["good", "dies", "damages"])
def test_a_song_comes_out_whole_whatever_becomes_of_the_bridge(connect, separator, kind):
    song = song_of(separator, 8.3)
    found = over(connect(kind), separator).separate(song, 44100)
    for stem in found.values():
        np.testing.assert_allclose(stem, song / 2, rtol=0, atol=1e-6)


def test_while_the_cluster_is_away_this_machine_computes_the_same_as_ever(connect, separator):
    song = song_of(separator, 2.2)
    expected = separator.separate(song, 44100)
    found = over(connect("silent", away_s=0.0), separator, local=True).separate(song, 44100)
    for name, stem in expected.items():
        np.testing.assert_array_equal(found[name], stem)


def test_what_no_node_can_compute_is_computed_here(connect, separator):
    song = song_of(separator, 1.5)
    expected = separator.separate(song, 44100)
    found = over(connect("refuses"), separator, local=True).separate(song, 44100)
    np.testing.assert_array_equal(found["vocals"], expected["vocals"])


@pytest.mark.parametrize(
    ("kind", "words"), [("silent", "has no node that computes. The song waits"), ("refuses", "too little free memory")]
)
def test_where_this_machine_may_not_compute_the_song_waits_and_says_why(connect, separator, kind, words):
    remote_one = over(connect(kind, away_s=0.0 if kind == "silent" else remote.AWAY_S), separator)
    with pytest.raises(ClusterUnavailable, match=words) as raised:
        remote_one.separate(song_of(separator, 1.0), 44100)
    assert raised.value.retryable and "\n" not in str(raised.value)


def test_a_song_that_waits_for_the_cluster_can_be_cancelled(connect, separator):
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(JobCancelled):
        over(connect("silent"), separator).separate(song_of(separator, 1.0), 44100, cancelled=cancelled)


def test_a_song_of_any_length_has_a_bounded_number_of_chunks_under_way(connect, separator, monkeypatch):
    connection = connect("good")
    most, send = [0], connection.send

    def counted(*values):
        ticket = send(*values)
        most[0] = max(most[0], len(connection._outstanding))
        return ticket

    monkeypatch.setattr(connection, "send", counted)
    block = np.full((2, 44100), 0.1, np.float32)
    blocks = (block for _ in range(40))
    samples = sum(part.shape[-1] for part in over(connection, separator).stream(blocks, 44100))
    assert samples == 40 * 44100
    assert most[0] <= 6  # what the bridge can use, and one more


def test_an_attached_separator_names_the_number_format_for_every_node(connect, separator, monkeypatch):
    monkeypatch.setattr(remote, "connection_to", lambda address: connect("good"))
    batcher = attach(separator, "model.safetensors", "10.0.0.1:6379", fallback=False).batcher
    assert (batcher._model.sha256, batcher._model.precision) == (separator.model_hash, "float32")
    assert batcher._model.mark == separator.precision_mark
