from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import DeviceError, UsageError
from tsbs_daw.network import FULL, TINY, TwoStageSeparator
from tsbs_daw.network.seam import SeparationNetwork
from tsbs_daw.separation import Separator, engine, forms
from tsbs_daw.separation.engine import Engine
from tsbs_daw.separation.forms import choose_precision, mark

CPU = torch.device("cpu")
ELSEWHERE = torch.device("meta")  # stands for a device that is not the processor
SMALL = replace(TINY, feature_dim=16, mask_blocks=1, map_blocks=1, headdim=16, chunk_s=4.0)
MIXTURE = 0.1 * np.random.default_rng(0).standard_normal((4, 2, SMALL.chunk_samples)).astype(np.float32)


class Starved(SeparationNetwork):
    """Answers each stem with the mixture itself, but has no memory for more than `room` samples at once."""

    config = SMALL

    def __init__(self, room: int, error: RuntimeError | None = None, elsewhere_only: bool = False):
        super().__init__()
        self.room, self.elsewhere_only = room, elsewhere_only
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")

    def estimate(self, mixture, stage="full"):
        if mixture.shape[0] * mixture.shape[2] > self.room and (mixture.is_meta or not self.elsewhere_only):
            raise self.error
        return mixture[:, None].expand(-1, len(SMALL.stems), -1, -1)


def assert_passed_through(found: np.ndarray) -> None:
    assert found.shape == (4, 4, 2, SMALL.chunk_samples)
    np.testing.assert_allclose(found, np.repeat(MIXTURE[:, None], 4, axis=1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("out"), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_first_the_batch_becomes_smaller(error, caplog):
    found = Engine(Starved(SMALL.chunk_samples, error), CPU, batch_size=4)
    with caplog.at_level(logging.WARNING):
        assert_passed_through(found.estimate(MIXTURE))
    assert found.batch_size == 1
    assert found.max_chunk_samples is None
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory on cpu: batches of 2 from now on",
        "out of memory on cpu: batches of 1 from now on",
    ]


def test_then_the_chunk_becomes_shorter_with_the_same_overlap(monkeypatch, caplog):
    fades = []

    def cut(blocks, size, fade):
        fades.append(fade / size)
        return whole_cut(blocks, size, fade)

    whole_cut = engine.cut
    monkeypatch.setattr(engine, "cut", cut)
    found = Engine(Starved(SMALL.chunk_samples // 3), CPU, batch_size=4)
    with caplog.at_level(logging.WARNING):
        assert_passed_through(found.estimate(MIXTURE))
    assert found.max_chunk_samples == SMALL.chunk_samples // 4
    assert caplog.records[-1].getMessage() == "out of memory on cpu: chunks of 1.00 s from now on"
    assert fades
    assert all(fade == pytest.approx(0.25, abs=1e-4) for fade in fades)


def test_then_the_processor_takes_over(caplog):
    found = Engine(Starved(1, elsewhere_only=True), ELSEWHERE, batch_size=4)
    with caplog.at_level(logging.WARNING):
        assert_passed_through(found.estimate(MIXTURE))
    assert caplog.records[-1].getMessage() == "out of memory on meta: the rest of the song is separated on the CPU"


def test_the_processor_s_copy_takes_no_memory_on_the_full_device(monkeypatch):
    network = TwoStageSeparator(SMALL)
    wanted = Engine(network, CPU).estimate(MIXTURE[:1, :, :30_000])
    cloned = []
    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", lambda part, memo: cloned.append(part) or part)
    found = engine._on_processor(network)
    assert not set(map(id, cloned)) & set(map(id, network.parameters()))
    with torch.inference_mode():
        np.testing.assert_allclose(found(torch.from_numpy(MIXTURE[:1, :, :30_000])), wanted, rtol=0, atol=1e-6)


def test_a_device_without_memory_for_the_weights_leaves_them_to_the_processor(monkeypatch, caplog):
    whole = engine.choose_form

    def choose(network, device, *others):
        if device == ELSEWHERE:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(network, device, *others)

    monkeypatch.setattr(engine, "choose_form", choose)
    found = Engine(TwoStageSeparator(SMALL), ELSEWHERE)
    assert found.device == CPU
    assert caplog.records[-1].getMessage() == "meta has no memory for the network; it runs on the CPU"


def test_a_loaded_model_keeps_its_trials_in_the_cache(monkeypatch, tmp_path):
    whole, told = engine.choose_form, []

    def choose(network, device, precision, cache):
        told.append(cache)
        return whole(network, device, precision, cache)

    monkeypatch.setattr(engine, "choose_form", choose)
    Separator.load("default", "cpu", Settings(tmp_path, tmp_path / "cache", tmp_path / "models"))
    assert told == [tmp_path / "cache"]


@pytest.mark.parametrize("device", [CPU, ELSEWHERE])
def test_at_last_a_failure_says_so(device):
    with pytest.raises(DeviceError, match=r"cpu has too little free memory for the shortest chunk; close"):
        Engine(Starved(1), device, batch_size=4).estimate(MIXTURE)


@pytest.mark.parametrize("kind", ["xpu", "mps"])
def test_the_cache_of_every_accelerator_is_emptied(monkeypatch, kind):
    emptied = []
    monkeypatch.setattr(getattr(torch, kind), "empty_cache", lambda: emptied.append(kind))
    found = Engine(Starved(1), CPU)
    found.device = torch.device(kind)
    found._free_memory()
    assert emptied == [kind]


def test_another_song_begins_at_the_top_again():
    found = Engine(Starved(SMALL.chunk_samples // 2), CPU, batch_size=4)
    found.estimate(MIXTURE)
    found.begin()
    assert (found.batch_size, found.max_chunk_samples) == (4, None)


def test_a_whole_song_survives_the_ladder():
    mixture = MIXTURE.transpose(1, 0, 2).reshape(2, -1)[:, :500_000]
    found = Separator(Starved(SMALL.chunk_samples // 2), CPU, batch_size=4).separate(mixture, 44100)
    np.testing.assert_allclose(found["bass"], mixture, rtol=0, atol=1e-6)


def test_an_error_that_is_no_lack_of_memory_is_not_swallowed():
    with pytest.raises(RuntimeError, match="illegal"):
        Engine(Starved(1, RuntimeError("an illegal instruction")), CPU).estimate(MIXTURE)


def test_mixed_precision_of_the_plain_network_agrees_with_float32_above_40_db():
    """What runs on a GPU in bfloat16, here on a processor."""
    torch.manual_seed(0)
    network, mixture = TwoStageSeparator(SMALL), torch.from_numpy(MIXTURE[:1, :, :30_000])
    with torch.inference_mode():
        wanted = network(mixture).estimates
        with torch.autocast("cpu", torch.bfloat16):
            found = network(mixture).estimates
    assert 10 * torch.log10(wanted.square().sum() / (found - wanted).square().sum()) > 40


def test_bfloat16_is_chosen_where_it_pays(monkeypatch):
    monkeypatch.setattr(forms, "native_bfloat16", lambda: True)
    assert choose_precision("auto", CPU, FULL) == torch.bfloat16
    assert choose_precision("auto", CPU, TINY) == torch.float32
    assert choose_precision("auto", torch.device("cuda"), FULL) == torch.float32
    monkeypatch.setattr(forms, "native_bfloat16", lambda: False)
    assert choose_precision("auto", CPU, FULL) == torch.float32


def test_a_precision_can_be_asked_for():
    assert Separator(TwoStageSeparator(SMALL), CPU, precision="bfloat16").precision == "bfloat16"
    assert Separator(TwoStageSeparator(SMALL), CPU).precision == "float32"
    with pytest.raises(UsageError, match="float64"):
        Separator(TwoStageSeparator(SMALL), CPU, precision="float64")


def test_results_are_kept_under_the_precision_and_those_of_before_only_where_they_are_surely_float32():
    assert [mark(dtype, FULL) for dtype in (torch.float32, torch.bfloat16)] == ["float32", "bfloat16"]
    assert [mark(dtype, TINY) for dtype in (torch.float32, torch.bfloat16)] == [None, "bfloat16"]
