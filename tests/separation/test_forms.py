"""The form of the network on a GPU is settled by trying; here the CPU stands in for the GPU."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
import torch

from tsbs_daw.core.errors import DeviceLost
from tsbs_daw.network import TINY, TwoStageSeparator
from tsbs_daw.separation import devices, forms
from tsbs_daw.separation.devices import GraphedForm
from tsbs_daw.separation.forms import Form, Trials, choose_form

CPU = torch.device("cpu")
SMALL = replace(TINY, feature_dim=16, mask_blocks=1, map_blocks=0, headdim=16, chunk_s=0.1)
ILLEGAL = RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")


@pytest.fixture
def plain(monkeypatch) -> Form:
    monkeypatch.setattr(forms, "TRIAL_S", 0.1)
    monkeypatch.setattr(forms, "TRIAL_RUNS", 1)
    monkeypatch.setattr(forms, "_of_process", {})
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    torch.manual_seed(0)
    return Form("plain", TwoStageSeparator(SMALL).eval())


class Chosen:
    """Choices among networks by name; in place of a network, what building one raises.

    Attributes:
        taken: Seconds that a chunk takes, alone and in large batches, by name.
        measured: Names of the forms that were measured, in order.
    """

    def __init__(self, monkeypatch, plain: Form, cache=None, taken=None):
        self.plain, self.cache, self.taken, self.measured = plain, cache, taken or {}, []
        monkeypatch.setattr(forms, "_network", self._build)
        monkeypatch.setattr(forms, "_shortest_s", self._shortest_s)
        monkeypatch.setattr(forms, "fitting_batch", lambda chunk_bytes, device, most: 4)
        monkeypatch.setattr(forms, "_candidates", lambda precision, network: iter(self.forms))

    def _build(self, form):
        if isinstance(network := self.networks[form.name], Exception):
            raise network
        return network

    def _shortest_s(self, run, mixture):
        self.measured.append(run.form.name)
        alone, many = self.taken.get(run.form.name, (3.0, 3.0))
        return alone if len(mixture) == 1 else many * len(mixture)

    def among(self, networks: dict, patient: bool = False) -> Form:
        self.networks, self.measured = networks, []
        self.forms = [Form(name, self.plain.network) for name in networks]
        with torch.inference_mode(), devices.translate_cuda_errors():
            return Trials(self.plain.network, self.cache).fastest("auto", patient)


def test_what_cannot_be_built_or_is_wrong_costs_a_line_each(monkeypatch, plain, caplog):
    other = TwoStageSeparator(SMALL).eval()
    networks = {"kernels": RuntimeError("OutOfResources"), "tiles": other, "plain": plain.network}
    with caplog.at_level(logging.INFO):
        form = Chosen(monkeypatch, plain).among(networks)
    assert (form.name, form.error) == ("plain", 0.0)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "the plain form in float32 takes 3000.0 ms a chunk alone, 3000.0 ms in batches of 4"
    assert lines[1] == "the kernels form in float32 cannot be used here (RuntimeError: OutOfResources)"
    assert lines[2].startswith("the tiles form in float32 is off by ")
    assert lines[3].startswith("using the plain form in float32 for batches: off by 0.0e+00, 1.0 times as fast")


@pytest.mark.parametrize(
    ("kernels", "mamba", "batches", "alone"),
    [
        ((1.0, 1.0), (2.0, 2.0), "kernels", None),
        ((2.0, 2.0), (1.0, 1.0), "mamba-ssm", None),
        ((1.0, 2.0), (2.0, 1.0), "mamba-ssm", "kernels"),
        ((4.0, 4.0), (9.0, 9.0), "plain", None),
        ((4.0, 1.0), (9.0, 9.0), "kernels", "plain"),
    ],
)
def test_the_fastest_is_taken_for_batches_and_for_single_chunks(monkeypatch, plain, kernels, mamba, batches, alone):
    chosen = Chosen(monkeypatch, plain, taken={"kernels": kernels, "mamba-ssm": mamba})
    form = chosen.among(dict.fromkeys(("kernels", "mamba-ssm", "plain"), plain.network), patient=True)
    assert (form.name, form.alone and form.alone.name) == (batches, alone)
    assert form.speed == 3.0 / {"kernels": kernels, "mamba-ssm": mamba, "plain": (3.0, 3.0)}[batches][1]
    assert form.for_batch(1).name == (alone or batches)
    assert form.for_batch(2) is form


def test_times_are_measured_once_and_errors_whenever_a_model_is_loaded(monkeypatch, plain, tmp_path):
    chosen = Chosen(monkeypatch, plain, tmp_path / "cache", {"kernels": (1.0, 1.0)})
    networks = dict.fromkeys(("kernels", "plain"), plain.network)
    assert chosen.among(networks).name == "kernels" and chosen.measured == ["plain"] * 2 + ["kernels"] * 2
    again = chosen.among(networks)
    assert (again.name, again.speed, again.error, chosen.measured) == ("kernels", 3.0, 0.0, [])
    other_weights = chosen.among(networks | {"kernels": TwoStageSeparator(SMALL).eval()})
    assert (other_weights.name, chosen.measured) == ("plain", [])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "another card")
    chosen.among(networks)
    assert len(chosen.measured) == 4


def test_without_a_cache_times_are_measured_once_in_a_process(monkeypatch, plain):
    chosen = Chosen(monkeypatch, plain)
    for measured in (["plain"] * 2, []):
        chosen.among({"plain": plain.network})
        assert chosen.measured == measured


def test_only_the_doctor_waits_for_mamba_ssm_and_what_it_finds_is_used_from_then_on(monkeypatch, plain, tmp_path):
    chosen = Chosen(monkeypatch, plain, tmp_path, {"mamba-ssm": (1.0, 1.0)})
    networks = dict.fromkeys(("mamba-ssm", "plain"), plain.network)
    assert chosen.among(networks).name == "plain" and "mamba-ssm" not in chosen.measured
    assert chosen.among(networks, patient=True).name == "mamba-ssm"
    assert chosen.among(networks).name == "mamba-ssm" and chosen.measured == []


def test_what_there_is_no_time_for_is_measured_at_the_next_start(monkeypatch, plain, tmp_path):
    chosen = Chosen(monkeypatch, plain, tmp_path, {"kernels": (1.0, 1.0)})
    networks = dict.fromkeys(("kernels", "plain"), plain.network)
    monkeypatch.setattr(forms, "TRIALS_LIMIT_S", -1.0)
    assert chosen.among(networks).name == "plain"
    monkeypatch.setattr(forms, "TRIALS_LIMIT_S", 9.0)
    assert chosen.among(networks).name == "kernels"


def test_a_form_that_breaks_the_gpu_is_not_tried_again(monkeypatch, plain, tmp_path, caplog):
    chosen = Chosen(monkeypatch, plain, tmp_path)
    networks = {"kernels": ILLEGAL, "plain": plain.network}
    with pytest.raises(DeviceLost, match="illegal memory access"):
        chosen.among(networks)
    caplog.clear()
    assert chosen.among(networks).name == "plain"
    [line] = caplog.messages
    assert line.startswith("the kernels form in float32 made the GPU fail, so it is not used; delete ")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": {"seconds": {"plain form in float32": [1]}}}', '{"a": 1}'])
def test_a_damaged_record_is_measured_again(monkeypatch, plain, tmp_path, text):
    (tmp_path / "forms.json").write_text(text)
    assert Chosen(monkeypatch, plain, tmp_path).among({"plain": plain.network}).name == "plain"
    [record] = json.loads((tmp_path / "forms.json").read_text()).values()
    assert record == {"seconds": {"plain form in float32": [3.0, 3.0]}, "lost": []}


def test_a_cache_that_cannot_be_written_costs_only_time(monkeypatch, plain, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert Chosen(monkeypatch, plain, tmp_path / "file").among({"plain": plain.network}).name == "plain"


def test_measuring_runs_whole_chunks(monkeypatch, plain):
    shapes = []

    class Noted(TwoStageSeparator):
        def estimate(self, mixture, stage="full"):
            shapes.append(tuple(mixture.shape))
            return super().estimate(mixture, stage)

    monkeypatch.setattr(forms, "_candidates", lambda precision, network: iter(()))
    with torch.inference_mode():
        trials = Trials(Noted(SMALL).eval(), None)
        assert trials.fastest("auto").name == "plain"
    assert shapes[1:] and set(shapes[1:]) == {(1, 2, SMALL.chunk_samples)}
    assert min(trials.record.seconds["plain form in float32"]) > 0


def test_a_card_too_small_for_plain_torch_has_its_kernels(monkeypatch, plain):
    chosen = Chosen(monkeypatch, plain, taken={"kernels": (1.0, 1.0)})
    measure = chosen._shortest_s

    def shortest_s(run, mixture):
        if run.form.name == "plain":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return measure(run, mixture)

    monkeypatch.setattr(forms, "_shortest_s", shortest_s)
    form = chosen.among(dict.fromkeys(("kernels", "plain"), plain.network))
    assert (form.name, form.speed) == ("kernels", 1.0)


def test_nothing_that_works_leaves_plain_float32(monkeypatch, plain):
    form = Chosen(monkeypatch, plain).among({"kernels": ValueError("no")})
    assert (form.name, form.dtype, form.tf32) == ("plain", torch.float32, False)


def test_strict_float32_is_plain_and_auto_begins_with_bfloat16():
    names = [form.name for form in forms._candidates("float32", TwoStageSeparator(TINY))]
    assert "kernels" not in names and names[-1] == "plain"
    labels = [form.label for form in forms._candidates("auto", TwoStageSeparator(TINY))]
    assert labels[0].endswith("bfloat16") and labels[-1] == "plain form in tf32"


def test_a_cpu_has_its_tiles():
    assert choose_form(TwoStageSeparator(SMALL), CPU, "auto").name == "tiles"


def test_what_cannot_be_recorded_runs_as_before(monkeypatch, plain, caplog):
    """A graph cannot be made without CUDA: that is the failure here."""
    form = replace(plain, speed=1.0)
    graphed, mixture = GraphedForm(form), torch.randn(1, 2, 3000)
    with torch.inference_mode(), caplog.at_level(logging.INFO):
        wanted = form(mixture)
        for _ in range(3):
            torch.testing.assert_close(graphed(mixture), wanted)
    assert [record.getMessage()[:25] for record in caplog.records] == ["CUDA graphs are not used "]


def test_a_shape_s_second_batch_is_recorded_and_large_ones_never(monkeypatch, plain):
    recorded = []
    monkeypatch.setattr(GraphedForm, "_record", lambda self, key, mixture, stage: recorded.append(key) or False)
    graphed = GraphedForm(replace(plain, speed=1.0))
    with torch.inference_mode():
        for _ in range(2):
            graphed(torch.randn(1, 2, 3000))
        assert recorded == [(1, 2, 3000, "full")]
        monkeypatch.setattr(devices, "MOST_BYTES", 0)
        for _ in range(2):
            graphed(torch.randn(2, 2, 3000))
    assert len(recorded) == 1


@pytest.mark.parametrize("offset", [0.0, 0.01, float("nan")])
def test_a_replay_that_gives_something_else_is_never_used(monkeypatch, plain, offset):
    form, mixture = replace(plain, speed=1.0), torch.randn(1, 2, 3000)

    class Graph:
        def replay(self) -> None:
            replayed.append(1)

    def record(self, key, mixture, stage):
        self._recordings[key] = devices.Recording(Graph(), mixture.clone(), form(mixture) + offset)
        return True

    replayed: list[int] = []
    monkeypatch.setattr(GraphedForm, "_record", record)
    graphed = GraphedForm(form)
    with torch.inference_mode():
        wanted = form(mixture)
        for _ in range(4):
            torch.testing.assert_close(graphed(mixture), wanted)
    assert len(replayed) == (3 if offset == 0 else 1)


def test_stems_made_in_tf32_are_not_taken_for_float32():
    from tsbs_daw.separation import Separator

    separator = Separator(TwoStageSeparator(SMALL), CPU)
    assert separator.precision_mark is None
    separator.engine.form = replace(separator.engine.form, tf32=True)
    assert separator.precision_mark == "tf32"
