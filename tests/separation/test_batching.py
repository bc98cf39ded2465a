"""Chunks of several songs in common batches: equal results, and no song pays for another."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import signals
import torch
from timeouts import PATIENCE_S

from tsbs_daw.core.errors import DeviceError, JobCancelled
from tsbs_daw.network import TINY, TwoStageSeparator
from tsbs_daw.network.seam import SeparationNetwork
from tsbs_daw.separation import Separator
from tsbs_daw.separation.engine import Batcher, Engine

CPU = torch.device("cpu")
SMALL = replace(TINY, feature_dim=16, mask_blocks=1, map_blocks=1, headdim=16, chunk_s=0.5)
POISON = 0.987654


class Echo(SeparationNetwork):
    """Answers each stem with the mixture itself; fails on command.

    room:  no memory for batches above it
    gate:  the first batch is not done before it opens
    """

    config = SMALL

    def __init__(self, room: int = 99, gate: threading.Event | None = None):
        super().__init__()
        self.room, self.gate = room, gate
        self.begun = threading.Event()
        self.batches: list[int] = []  # how many chunks each had

    def estimate(self, mixture, stage="full"):
        self.begun.set()
        if self.gate is not None and not self.batches:
            self.batches.append(len(mixture))
            assert self.gate.wait(PATIENCE_S)
        else:
            self.batches.append(len(mixture))
        if len(mixture) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if (mixture == POISON).any():
            raise RuntimeError("this song cannot be computed")
        return mixture[:, None].expand(-1, len(SMALL.stems), -1, -1)


def songs(count: int, duration_s: float = 2.0) -> list[np.ndarray]:
    """Stereo songs of different lengths."""
    return [signals.mixture(signals.song(duration_s + 0.3 * seed, seed=seed)) for seed in range(count)]


def separate_at_once(separator: Separator, mixtures: list[np.ndarray], **options) -> list:
    """What came of each song, stems or an exception; every song in a thread of its own."""
    found: list = [None] * len(mixtures)

    def work(place: int) -> None:
        try:
            wishes = {name: value[place] for name, value in options.items()}
            found[place] = separator.separate(mixtures[place], 44100, **wishes)
        except BaseException as error:
            found[place] = error

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(mixtures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "it hangs"
    return found


def network() -> TwoStageSeparator:
    torch.manual_seed(0)
    return TwoStageSeparator(SMALL)


def largest_difference(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(found[stem] - wanted[stem]).max()) for stem in SMALL.stems)


def test_songs_that_are_separated_at_once_are_equal_to_the_bit_where_chunks_are_computed_one_by_one():
    mixtures, separator = songs(3), Separator(network(), CPU)
    alone = [separator.separate(mixture, 44100) for mixture in mixtures]
    for found, wanted in zip(separate_at_once(separator, mixtures), alone, strict=True):
        assert largest_difference(found, wanted) == 0


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_in_common_batches_they_are_equal_but_for_the_order_of_products(ahead):
    mixtures, separator = songs(3), Separator(network(), CPU, batch_size=3)
    alone = [Separator(network(), CPU).separate(mixture, 44100) for mixture in mixtures]
    separator.batcher = Batcher(separator.engine, ahead)
    for found, wanted in zip(separate_at_once(separator, mixtures), alone, strict=True):
        assert largest_difference(found, wanted) < 1e-6


def waiting(batcher: Batcher, count: int) -> None:
    """Until so many chunks lie there."""
    with batcher._changed:
        while len(batcher._waiting) < count:
            batcher._changed.wait(0.01)


def submit_behind_a_gate(batcher: Batcher, network: Echo, chunks: list[list[np.ndarray]]) -> list[list]:
    """Futures of several songs whose chunks come while the device is busy with another's."""
    futures: list = [None] * len(chunks)

    def submit(place: int) -> None:
        futures[place] = batcher.submit(chunks[place])

    first = threading.Thread(target=batcher.submit, args=([np.zeros((2, 22050), np.float32)],))
    others = [threading.Thread(target=submit, args=(place,)) for place in range(len(chunks))]
    first.start()
    assert network.begun.wait(PATIENCE_S)
    for count, thread in enumerate(others, 1):
        thread.start()
        waiting(batcher, sum(map(len, chunks[:count])))
    network.gate.set()
    for thread in (first, *others):
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    return futures


def chunks_of(seed: int, count: int, samples: int = 22050) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [0.1 * generator.standard_normal((2, samples)).astype(np.float32) for _ in range(count)]


def assert_echoed(futures: list, chunks: list[np.ndarray]) -> None:
    for future, chunk in zip(futures, chunks, strict=True):
        np.testing.assert_array_equal(future.array(), np.repeat(chunk[None], len(SMALL.stems), 0))


def test_chunks_of_several_songs_share_a_batch_and_each_song_gets_its_own_back():
    network = Echo(gate=threading.Event())
    batcher = Batcher(Engine(network, CPU, batch_size=4))
    chunks = [chunks_of(1, 2), chunks_of(2, 3), chunks_of(3, 1)]
    found = submit_behind_a_gate(batcher, network, chunks)
    assert network.batches == [1, 4, 2]
    for futures, wanted in zip(found, chunks, strict=True):
        assert_echoed(futures, wanted)


def test_chunks_of_another_length_or_stage_wait_for_a_batch_of_their_own():
    network = Echo(gate=threading.Event())
    batcher = Batcher(Engine(network, CPU, batch_size=9))
    chunks = [chunks_of(1, 2), chunks_of(2, 2, samples=30_000), chunks_of(3, 1)]
    found = submit_behind_a_gate(batcher, network, chunks)
    assert network.batches == [1, 3, 2]
    for futures, wanted in zip(found, chunks, strict=True):
        assert_echoed(futures, wanted)


@pytest.mark.parametrize("room", [1, 2])
def test_a_lack_of_memory_makes_the_batch_smaller_for_everybody_and_costs_no_song_anything(room):
    network = Echo(room, threading.Event())
    batcher = Batcher(Engine(network, CPU, batch_size=8))
    chunks = [chunks_of(1, 4), chunks_of(2, 4)]
    found = submit_behind_a_gate(batcher, network, chunks)
    assert batcher.engine.batch_size == room
    for futures, wanted in zip(found, chunks, strict=True):
        assert_echoed(futures, wanted)


def test_whole_songs_at_once_survive_the_ladder():
    mixtures, separator = songs(3), Separator(Echo(room=2), CPU, batch_size=8)
    for found, mixture in zip(separate_at_once(separator, mixtures), mixtures, strict=True):
        np.testing.assert_allclose(found["bass"], mixture, rtol=0, atol=1e-6)


def test_a_song_that_cannot_be_computed_takes_no_other_with_it():
    network = Echo(gate=threading.Event())
    batcher = Batcher(Engine(network, CPU, batch_size=9))
    bad = chunks_of(1, 2)
    bad[1][0, 100] = POISON
    good = chunks_of(2, 3)
    of_bad, of_good = submit_behind_a_gate(batcher, network, [bad, good])
    assert network.batches == [1, 5, 2, 3]
    assert_echoed(of_good, good)
    for future in of_bad:
        with pytest.raises(RuntimeError, match="cannot be computed"):
            future.array()


def test_too_little_memory_for_anything_is_told_to_every_song_and_none_waits_for_ever():
    found = separate_at_once(Separator(Echo(room=0), CPU, batch_size=4), songs(2))
    assert [type(error) for error in found] == [DeviceError, DeviceError]


def test_a_song_that_is_cancelled_leaves_the_others_as_they_were():
    mixtures, separator = songs(3), Separator(network(), CPU)
    alone = separator.separate(mixtures[2], 44100)
    asked = iter(range(100))
    cancelled = [lambda: False, lambda: next(asked) >= 2, lambda: False]
    found = separate_at_once(separator, mixtures, cancelled=cancelled)
    assert isinstance(found[1], JobCancelled)
    assert largest_difference(found[2], alone) == 0
    assert separator.batcher._waiting == []


def test_who_is_interrupted_while_he_computes_for_all_leaves_nobody_waiting(monkeypatch):
    network = Echo(gate=threading.Event())
    batcher = Batcher(Engine(network, CPU, batch_size=9))
    start, calls = batcher.engine.start, []

    def interrupted(mixtures, stage):
        calls.append(len(mixtures))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return start(mixtures, stage)

    monkeypatch.setattr(batcher.engine, "start", interrupted)
    monkeypatch.setattr(threading, "excepthook", lambda failure: None)
    submit_behind_a_gate(batcher, network, [chunks_of(1, 2), chunks_of(2, 3)])
    assert calls == [1, 5]


class Slow:
    """What is under way on a device that computes by itself."""

    def __init__(self, name: int, events: list[str]):
        self.name, self.events = name, events

    def wait(self) -> None:
        self.events.append(f"wait {self.name}")

    def array(self) -> np.ndarray:
        self.events.append(f"take {self.name}")
        return np.zeros((9, len(SMALL.stems), 2, SMALL.chunk_samples), np.float32)


def test_where_the_device_computes_by_itself_the_next_batch_is_begun_before_the_last_is_taken(monkeypatch):
    separator, events = Separator(Echo(), CPU, batch_size=1), []
    separator.batcher = Batcher(separator.engine, ahead=1)

    def start(mixtures, stage):
        name = sum(event.startswith("start") for event in events)
        events.append(f"start {name}")
        return Slow(name, events)

    monkeypatch.setattr(separator.engine, "start", start)
    separator.separate(songs(1, 1.6)[0], 44100)  # four chunks
    assert [event for event in events if "wait" not in event] == [
        "start 0", "start 1", "take 0", "start 2", "take 1", "start 3", "take 2", "take 3",
    ]  # fmt: skip
    assert events.index("wait 0") < events.index("start 2"), "no more than two are under way"
