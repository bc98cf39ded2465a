"""Tiles side by side: each of torch's threads computes whole tiles, instead of its share of every operation.

A tile then stays in one core's cache, no thread waits for another at each of some hundred operations, and one whose
core is busy with something else takes fewer tiles.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import torch

T = TypeVar("T")

# More would wait for the interpreter's lock. Where torch has more threads, several compute a tile together.
MOST_SIDE_BY_SIDE = 8


_here = threading.local()


@contextmanager
def side_by_side() -> Iterator[None]:
    """Within, `for_each` has all of torch's threads to give work to, and everything else has one.

    Threads that share an operation wait for each other at its end, busily: with every core taken by somebody else as
    well, that was measured to cost several times the work.
    """
    threads = torch.get_num_threads()
    _here.threads = threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _here.threads = 1
        torch.set_num_threads(threads)


def at_once() -> int:
    """How many tiles are computed at once."""
    return min(getattr(_here, "threads", 1), MOST_SIDE_BY_SIDE)


def for_each(work: Callable[[T], None], tiles: Iterable[T]) -> None:
    """work(tile) for all of them, in any order. Raises: what `work` raised"""
    count, inference = at_once(), torch.is_inference_mode_enabled()
    if count == 1:
        for tile in tiles:
            work(tile)
        return

    def one(tile: T) -> None:
        with torch.inference_mode(inference):  # which each thread has for itself
            work(tile)

    for _ in _pool(count, _here.threads // count).map(one, tiles):
        pass


@lru_cache(maxsize=1)
def _pool(count: int, threads: int) -> ThreadPoolExecutor:
    """`count` threads, each of which computes with `threads` of torch's."""
    return ThreadPoolExecutor(count, "tile", initializer=torch.set_num_threads, initargs=(threads,))
