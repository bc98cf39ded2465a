"""Tiles side by side: each of torch's threads computes whole tiles, instead of its share of every operation.

A tile then stays in one core's cache, no thread waits for another at each of some hundred operations, and one whose
core is busy with something else takes fewer tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

T = TypeVar("T")

# More would wait for the interpreter's lock. Where torch has more threads, several compute a tile together.
MOST_SIDE_BY_SIDE = 8


def side_by_side() -> int:
    """How many tiles are computed at once."""
    return min(torch.get_num_threads(), MOST_SIDE_BY_SIDE)


def for_each(work: Callable[[T], None], tiles: Iterable[T]) -> None:
    """work(tile) for all of them, in any order. Raises: what `work` raised"""
    threads, count, inference = torch.get_num_threads(), side_by_side(), torch.is_inference_mode_enabled()
    if count == 1:
        for tile in tiles:
            work(tile)
        return

    def one(tile: T) -> None:
        with torch.inference_mode(inference):  # which each thread has for itself
            work(tile)

    for _ in _pool(count, threads // count).map(one, tiles):
        pass
    torch.set_num_threads(threads)  # for threads to come, which the pool's own took over


@lru_cache(maxsize=1)
def _pool(count: int, threads: int) -> ThreadPoolExecutor:
    """`count` threads, each of which computes with `threads` of torch's."""
    return ThreadPoolExecutor(count, "tile", initializer=torch.set_num_threads, initargs=(threads,))
