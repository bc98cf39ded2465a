"""The form of the network on a GPU is settled by trying; here the CPU stands in for the GPU."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from tsbs_daw.network import TINY, TwoStageSeparator
from tsbs_daw.separation import forms
from tsbs_daw.separation.forms import Form, GraphedForm, choose_form

CPU = torch.device("cpu")
SMALL = replace(TINY, feature_dim=16, mask_blocks=1, map_blocks=0, headdim=16, chunk_s=0.5)


@pytest.fixture
def plain(monkeypatch) -> Form:
    monkeypatch.setattr(forms, "TRIAL_S", 0.1)
    monkeypatch.setattr(forms, "TRIAL_RUNS", 1)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    torch.manual_seed(0)
    return Form("plain", TwoStageSeparator(SMALL).eval())


def choose(monkeypatch, plain: Form, networks: dict) -> Form:
    """Among these by name; a network, or what building one raises."""

    def build(name, network, dtype):
        if isinstance(networks[name], Exception):
            raise networks[name]
        return networks[name]

    monkeypatch.setattr(forms, "_candidates", lambda precision, config: [(n, torch.float32, False) for n in networks])
    monkeypatch.setattr(forms, "_network", build)
    with torch.inference_mode():
        return forms._first_that_works(plain, "auto")


def test_what_cannot_be_built_or_is_wrong_costs_a_line_each(monkeypatch, plain, caplog):
    other = TwoStageSeparator(SMALL).eval()
    networks = {"kernels": RuntimeError("OutOfResources"), "mamba-ssm": other, "plain": plain.network}
    with caplog.at_level(logging.INFO):
        form = choose(monkeypatch, plain, networks)
    assert (form.name, form.error) == ("plain", 0.0)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "the kernels form cannot be used here (RuntimeError: OutOfResources)"
    assert lines[1].startswith("the mamba-ssm form in float32 is off by ")
    assert lines[2].startswith("using the plain form in float32: off by 0.0e+00")


def test_the_first_right_one_is_taken_unless_it_is_slower(monkeypatch, plain):
    seconds = iter([1.0, 2.0, 0.5])  # exact, kernels, plain
    whole = forms._timed
    monkeypatch.setattr(forms, "_timed", lambda form, mixture: (whole(form, mixture)[0], next(seconds)))
    form = choose(monkeypatch, plain, {"kernels": plain.network, "plain": plain.network})
    assert (form.name, form.speed) == ("plain", 2.0)


def test_nothing_that_works_leaves_plain_float32(monkeypatch, plain):
    form = choose(monkeypatch, plain, {"kernels": ValueError("no")})
    assert (form.name, form.dtype, form.speed) == ("plain", torch.float32, None)


def test_strict_float32_is_plain_and_auto_begins_with_the_fastest():
    names = [form[0] for form in forms._candidates("float32", TwoStageSeparator(TINY))]
    assert "kernels" not in names and names[-1] == "plain"
    assert list(forms._candidates("auto", TwoStageSeparator(TINY)))[-1] == ("plain", torch.float32, True)


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
        monkeypatch.setattr(forms, "MOST_BYTES", 0)
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
        self._recordings[key] = forms.Recording(Graph(), mixture.clone(), form(mixture) + offset)
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
