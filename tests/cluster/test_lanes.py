"""Chunks on lanes: wherever actors fail, each is answered once; what does not belong is refused by name."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from cli.program import small_model
from cluster.fakes import FakeRay, node, without_ray  # noqa: F401
from timeouts import PATIENCE_S

from tsbs_daw.cluster import check_address, lanes, places_of, read_paths
from tsbs_daw.cluster.bridge import RAY_ENVIRONMENT
from tsbs_daw.cluster.lanes import Hooks, Item, Lane, Lanes, Model
from tsbs_daw.cluster.node import DamagedInTransit, NodeSeparator, checked, digest, places
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import DeviceError, SettingsError, UsageError
from tsbs_daw.core.files import file_sha256
from tsbs_daw.doctor import Status, _cluster
from tsbs_daw.models.registry import BUNDLED

MODEL = Model("a" * 64, str(BUNDLED), "float32", None)


class Doubler:
    """Stands for a node: the estimate of a chunk is twice the chunk."""

    def __init__(self, **hello: str):
        self._hello, self.pieces = hello, 0

    def hello(self) -> dict:
        return {**NodeSeparator().hello(), **self._hello}

    def has(self, sha256: str) -> bool:
        return self.pieces > 0

    def receive(self, sha256: str, offset: int, piece: bytes, last: bool) -> None:
        self.pieces += 1

    def load(self, sha256: str, precision: str) -> dict:
        return {"mark": "bfloat16" if precision == "bfloat16" else None, "batch": 1, "device": "cpu"}

    def compute(self, sha256: str, precision: str, stage: str, song: int, chunks: list) -> list:
        return [(2 * checked(chunk, known), digest(2 * chunk)) for chunk, known in chunks]


class Desk:
    """Sends chunks, and takes down what becomes of them."""

    def __init__(self):
        self.lanes = Lanes("test", Hooks(self.done, self.failed, self.trouble_is))
        self.lanes.REOPEN_S = (0.0, 60.0)
        self.answers: dict[int, list[np.ndarray]] = {}
        self.failures: dict[int, str] = {}
        self.troubles: list[str] = []
        self._lock = threading.Lock()

    def done(self, item, answer):
        with self._lock:
            self.answers.setdefault(item.id, []).append(checked(*answer))

    def failed(self, item, error):
        self.failures[item.id] = error

    def trouble_is(self, sentence):
        self.troubles.append(sentence)

    def send(self, count: int, model: Model = MODEL) -> None:
        for number in range(count):
            chunk = np.full((2, 8), number, np.float32)
            self.lanes.add(Item(number, model, "full", 1, chunk, digest(chunk)))

    def settle(self, ray, nodes, condition) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end
            self.lanes.settle(ray, nodes, time.monotonic())
            time.sleep(0.01)
        for lane in self.lanes._lanes.values():
            lane.end()


@pytest.fixture
def desk(without_ray) -> Desk:  # noqa: F811
    return Desk()


def test_every_chunk_is_answered_once_wherever_actors_die(desk):
    ray, computed = FakeRay(Doubler), []

    def die_now_and_then(name, values):
        if name == "compute":
            computed.append(name)
            if len(computed) % 7 == 0:
                raise ConnectionError("the actor died")

    ray.before = die_now_and_then
    desk.send(60)
    desk.settle(ray, [node(1), node(2), node(3)], lambda: len(desk.answers) == 60)
    for number, found in desk.answers.items():
        assert [float(estimate[0, 0]) for estimate in found] == [2.0 * number]
    assert not desk.failures and len(ray.actors) > 3
    assert all("its chunks go elsewhere" in sentence and "studio-" in sentence for sentence in desk.troubles)


def test_a_chunk_that_no_node_can_compute_is_given_back_with_the_reason_and_the_others_go_on(desk):
    class Narrow(Doubler):
        def compute(self, sha256, precision, stage, song, chunks):
            if float(chunks[0][0][0, 0]) == 5:
                raise DeviceError("cpu has too little free memory")
            return super().compute(sha256, precision, stage, song, chunks)

    desk.send(10)
    desk.settle(FakeRay(Narrow), [node(1), node(2)], lambda: len(desk.answers) == 9 and desk.failures)
    assert list(desk.failures) == [5] and "too little free memory" in desk.failures[5]


def test_a_node_that_hears_something_else_than_was_sent_is_noticed(desk):
    class Deaf(Doubler):
        damaged = 1

        def compute(self, sha256, precision, stage, song, chunks):
            if Deaf.damaged:
                Deaf.damaged -= 1
                chunks = [(chunk + 1, known) for chunk, known in chunks]
            return super().compute(sha256, precision, stage, song, chunks)

    desk.send(4)
    desk.settle(FakeRay(Deaf), [node()], lambda: len(desk.answers) == 4)
    assert float(desk.answers[0][0][0, 0]) == 0.0
    assert "DamagedInTransit" in desk.troubles[0]


@pytest.mark.parametrize(
    ("hello", "words"),
    [({"version": "0.0.1"}, "runs tsbs-daw 0.0.1 and this machine"), ({"fingerprint": "other"}, "with other code")],
)
def test_a_node_of_another_version_is_refused_by_name_and_not_asked_again_soon(desk, hello, words):
    ray = FakeRay(lambda: Doubler(**hello))
    desk.settle(ray, [node(7)], lambda: desk.troubles)
    (sentence,) = desk.troubles
    assert "studio-7 10.0.0.7" in sentence and words in sentence and "\n" not in sentence
    desk.lanes.settle(ray, [node(7)], time.monotonic())
    desk.lanes.settle(ray, [node(7)], time.monotonic() + 30)
    assert len(ray.actors) == 1


def test_a_node_that_computes_in_another_number_format_is_refused_and_the_others_compute(desk):
    made = []

    class Fast(Doubler):
        def load(self, sha256, precision):
            return {"mark": "tf32", "batch": 1, "device": "cuda"}

    def make():
        made.append(Fast() if not made else Doubler())
        return made[-1]

    desk.send(6)
    desk.settle(FakeRay(make), [node(1), node(2)], lambda: len(desk.answers) == 6 and desk.troubles)
    assert "computes in tf32 and the daemon in float32; name one format with --precision." in desk.troubles[0]


def test_a_model_is_sent_once_and_in_pieces(desk):
    made = []

    def make():
        made.append(Doubler())
        return made[-1]

    desk.send(5)
    desk.settle(FakeRay(make), [node()], lambda: len(desk.answers) == 5)
    assert made[0].pieces == -(-Path(MODEL.path).stat().st_size // 10_000)


def test_a_lane_ends_when_its_node_is_gone_and_what_it_had_waits(desk):
    ray = FakeRay(Doubler)
    desk.settle(ray, [node()], lambda: desk.lanes.ready == 1)
    desk.lanes.settle(ray, [{**node(), "Alive": False}], time.monotonic())
    assert desk.lanes.ready == desk.lanes.capacity == 0 and ray.actors[0].dead


class Sharing(Doubler):
    """A node that looks at files as the real one does. own: where it keeps what it was sent"""

    def __init__(self):
        super().__init__()
        self.real = NodeSeparator()

    def use(self, *values):
        return self.real.use(*values)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda data: data, None),
        (lambda data: data[:-1], "has another size there"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "has other content there"),
        (None, "cannot be read there (No such file or directory)"),
    ],
)
def test_a_model_on_a_shared_folder_is_read_in_place_unless_the_folder_lies(desk, tmp_path, content, sentence):
    nodes, shared = [], tmp_path / "mnt" / BUNDLED.name
    shared.parent.mkdir()
    if content is not None:
        shared.write_bytes(content(BUNDLED.read_bytes()))
    paths = {"studio-1": {str(BUNDLED.parent): str(shared.parent)}, "studio-2": {str(BUNDLED.parent): "/nowhere"}}
    model = Model(file_sha256(BUNDLED), str(BUNDLED), "float32", None, places_of(BUNDLED, paths))

    def make():
        nodes.append(Sharing())
        return nodes[-1]

    desk.send(3, Model.from_json(json.loads(json.dumps(asdict(model)))))
    desk.settle(FakeRay(make), [node(1)], lambda: len(desk.answers) == 3)
    if sentence is None:
        assert nodes[0].pieces == 0 and not desk.troubles
        assert nodes[0].real.has(model.sha256)
    else:
        assert nodes[0].pieces > 0
        assert desk.troubles == [f"'{shared}' on studio-1 10.0.0.1 {sentence}; the model is sent instead."]


def test_the_longest_shared_prefix_counts_and_only_whole_names_of_folders():
    paths = {"a": {"/m": "/x", "/m/big": "/y"}, "10.0.0.2": {"/m/bi": "/z"}}
    assert places_of(Path("/m/big/model.safetensors"), paths) == (("a", "/y/model.safetensors"),)


@pytest.mark.parametrize("text", ["paths: [a]", "path: {}", "paths: {studio-2: /mnt}", "- a"])
def test_a_wrong_file_of_shared_folders_is_refused_with_its_place(tmp_path, text):
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"cluster\.yaml:1"):
        read_paths(tmp_path)


def test_estimates_come_back_with_the_answer_and_not_through_object_stores(desk):
    ray = FakeRay(Doubler)
    desk.settle(ray, [node()], lambda: desk.lanes.ready == 1)
    allowed = ray.options[0]["runtime_env"]["env_vars"]
    four_stems = 4 * 2 * 3 * 44100 * 4
    for name in ("RAY_max_direct_call_object_size", "RAY_task_rpc_inlined_bytes_limit"):
        assert int(allowed[name]) >= lanes.GROUP * four_stems
        assert RAY_ENVIRONMENT[name] == allowed[name]  # both ends have to agree


def test_gpus_get_an_actor_each_and_cores_share_one_by_eight():
    found = list(places([node(1, GPU=4.0, CPU=64.0), node(2, CPU=20.0), node(3, CPU=1.0), node(4, memory=1.0)]))
    assert [(place.gpus, place.cpus) for place in found] == [(1, 0.0)] * 4 + [(0, 10.0)] * 2 + [(0, 1.0)]


def test_a_node_takes_a_model_in_pieces_and_holds_it_to_its_hash(tmp_path, monkeypatch):
    monkeypatch.setenv("TSBS_DAW_HOME", str(tmp_path))
    content = BUNDLED.read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    import hashlib

    sha256 = hashlib.sha256(changed).hexdigest()
    actor = NodeSeparator()
    assert not actor.has(sha256)
    for data, kept in ((content, False), (changed, True)):
        actor.receive(sha256, 0, data[:1000], False)
        if kept:
            actor.receive(sha256, 1000, data[1000:], True)
        else:
            with pytest.raises(DamagedInTransit):
                actor.receive(sha256, 1000, data[1000:], True)
        assert actor.has(sha256) is kept


def test_chunks_of_several_songs_meet_on_a_node_and_come_out_as_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("TSBS_DAW_HOME", str(tmp_path))
    from tsbs_daw.core.files import file_sha256
    from tsbs_daw.separation import Separator

    actor, sha256 = NodeSeparator(), file_sha256(BUNDLED)
    here = Separator.load("default", "cpu")
    chunks = np.random.default_rng(1).normal(0, 0.1, (2, 2, 44100)).astype(np.float32)
    assert actor.load(sha256, "float32")["mark"] == here.precision_mark
    found = [actor.compute(sha256, "float32", "full", song, [(c, digest(c))])[0] for song, c in enumerate(chunks)]
    for chunk, answer in zip(chunks, found, strict=True):
        np.testing.assert_allclose(checked(*answer), here.batcher.submit([chunk])[0].array(), rtol=0, atol=1e-6)
    status = actor.status()
    assert (status["models"], status["songs"], status["chunks"]) == ([sha256], 2, 2)


@pytest.mark.parametrize("address", ["", "somewhere", "ray://head:10001", "head:port", "head:"])
def test_an_address_that_cannot_be_is_refused(address):
    with pytest.raises(UsageError, match="Invalid --cluster"):
        check_address(address)


def test_without_ray_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'tsbs-daw\[cluster\]'"):
        check_address("10.0.0.1:6379")


def test_a_lane_closes_once(desk):
    lane = Lane(FakeRay(Doubler), next(places([node()])), "x", Hooks(desk.done, desk.failed, desk.trouble_is))
    lane.open()
    lane.end()
    lane.end()
    assert lane.closed.is_set() and lane.capacity == 0


def test_doctor_has_every_node_compute_and_names_the_one_that_computes_something_else(
    without_ray,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    from tsbs_daw.cluster.status import trials

    monkeypatch.setenv("TSBS_DAW_HOME", str(tmp_path))

    class Wrong(NodeSeparator):
        def compute(self, *values):
            return [(1.1 * estimate, digest(1.1 * estimate)) for estimate, _ in super().compute(*values)]

    model = small_model(tmp_path / "small.safetensors")
    ray = FakeRay(NodeSeparator)
    (right,) = trials(ray, [node(1)], {}, model, "auto")
    assert right["ok"] and right["difference"] <= 1e-6 and right["nice"] == os.nice(0) and ray.actors[0].dead
    (wrong,) = trials(FakeRay(Wrong), [node(2)], {}, model, "auto")
    assert not wrong["ok"] and wrong["name"] == "studio-2 10.0.0.2 (CPU 0)"
    (old,) = trials(FakeRay(lambda: Doubler(version="0.0.1")), [node(3)], {}, model, "auto")
    assert not old["ok"] and "runs tsbs-daw 0.0.1" in old["error"]


def test_doctor_says_where_actors_wait_for_everything_else(monkeypatch):
    trial = {"ok": True, "speed": 2.0, "difference": 0.0}
    trials = [{**trial, "name": "studio-1 (CPU 0)", "nice": 15}, {**trial, "name": "studio-2 (CPU 0)", "nice": 0}]
    monkeypatch.setattr("tsbs_daw.cluster.status.ask", lambda *_: {"trials": trials})
    findings = list(_cluster("10.0.0.1:6379", Settings.from_environment(), "default"))
    (note,) = (finding for finding in findings if finding.status is Status.NOTE)
    assert "studio-1" in note.what and "studio-2" not in note.what and "RAY_worker_niceness=0" in note.advice
