"""Batches, streams, songs and lack of memory on a GPU."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch

from tsbs_daw.network import FULL, TINY, TwoStageSeparator
from tsbs_daw.separation import Separator
from tsbs_daw.separation.engine import Engine

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")


def network() -> TwoStageSeparator:
    torch.manual_seed(0)
    return TwoStageSeparator(TINY)


def chunks(seed: int, count: int, samples: int = 44100) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((count, 2, samples)).astype(np.float32)


def ratio(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted)) if np.isfinite(found).all() else np.inf


@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-4), ("auto", 2e-2)])
def test_batches_under_way_do_not_disturb_each_other(device, measured, precision, limit):
    """Twelve batches are begun before the first is waited for; graphs are recorded and replayed meanwhile."""
    engine = Engine(network(), device, precision=precision, batch_size=4)
    exact = Engine(network(), CPU, precision="float32")
    mixtures = [chunks(seed, 4) for seed in range(12)]
    under_way = [engine.start(mixture) for mixture in mixtures]
    for index in (0, 1, 2, 11):
        found = under_way[index].array()
        measured(f"streams {precision}, batch {index}", ratio(found[:1], exact.estimate(mixtures[index][:1])), limit)


def test_four_songs_at_once_equal_the_same_songs_alone(device, measured):
    separator = Separator(network(), device, batch_size=4)
    songs = [chunks(seed, 1, 20 * 44100)[0] for seed in range(4)]
    alone, together = [separator.separate(song, 44100) for song in songs[:2]], [None] * 4

    def work(index: int) -> None:
        together[index] = separator.separate(songs[index], 44100)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(2):
        measured("four songs at once", ratio(together[index]["bass"], alone[index]["bass"]), 1e-3)


def test_a_replayed_graph_gives_what_the_form_gives(device, measured):
    engine = Engine(network(), device, batch_size=2)
    for seed in range(4):
        mixture = torch.from_numpy(chunks(seed, 2)).to(device)
        with torch.inference_mode():
            found = engine.run(mixture)
            wanted = engine.form(mixture)
        measured(f"graph, run {seed}", ratio(found.cpu().numpy(), wanted.cpu().numpy()), 1e-5)
    assert any(recording for recording in engine._run._recordings.values()), "no graph was recorded"


def test_a_batch_that_finds_no_memory_is_made_smaller(device, measured):
    engine = Engine(network(), device, precision="float32", batch_size=16)
    mixtures = np.concatenate([chunks(seed, 4) for seed in range(4)])
    wanted = engine.estimate(mixtures)
    engine._free_memory()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 0.2e9) / total)
    try:
        found = engine.estimate(mixtures)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert engine.batch_size < 16
    measured(f"out of memory, batches of {engine.batch_size}", ratio(found, wanted), 1e-4)


def test_what_is_planned_for_a_chunk_is_what_it_takes(device, measured):
    """The plan is above what is taken, and at most five times that."""
    for name, config in (("tiny", TINY), ("full", FULL)):
        torch.manual_seed(0)
        engine = Engine(TwoStageSeparator(config), device, batch_size=4)
        mixture = torch.from_numpy(chunks(0, 4, config.chunk_samples)).to(device)
        with torch.inference_mode():
            engine.form(mixture)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            engine.form(mixture)
            taken = (torch.cuda.max_memory_allocated() - before) / 4
        planned = engine.form.chunk_bytes()
        measured(f"{name} taken of the {planned / 1e6:.0f} MB planned", taken / planned, 1.0)
        assert taken >= 0.2 * planned, f"{name}: {taken / 1e6:.0f} MB taken of {planned / 1e6:.0f} MB planned"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one CUDA device")
def test_the_second_device_computes_the_same(device, measured):
    """Triton launches on the current device, which stays the first."""
    engine = Engine(network(), torch.device("cuda:1"), batch_size=2)
    exact = Engine(network(), CPU, precision="float32")
    for seed in range(4):  # from the third on by a graph
        found = engine.estimate(chunks(seed, 2))
        measured(f"on cuda:1, run {seed}", ratio(found, exact.estimate(chunks(seed, 2))), 2e-2)
    assert torch.cuda.current_device() == 0


def test_the_cpu_takes_over_from_a_device_without_any_memory(device, measured):
    engine = Engine(copy.deepcopy(network()), device, precision="float32", batch_size=1)
    mixture = chunks(5, 1, 30000)
    wanted = engine.estimate(mixture)
    engine._free_memory()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 1e6) / total)
    try:
        found = engine.estimate(mixture)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert engine._processor is not None
    measured("the CPU took over", ratio(found, wanted), 1e-4)
