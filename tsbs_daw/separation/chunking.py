"""Chunks and overlap-add: pure functions of arrays, for a stream of any length.

A network sees `size` samples at a time. Neighbouring chunks overlap by `fade` samples, over which one is faded into
the other with weights that sum to one. The last chunk begins early enough to be as long as the others, because a
network with GroupNorm gives another result for another length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

OVERLAP = 0.25  # of a chunk, shared with the next one


class Chunk(NamedTuple):
    """A piece of the stream: its first sample's place, (channels, samples), and whether it ends the stream."""

    start: int
    audio: np.ndarray
    last: bool


def cut(blocks: Iterable[np.ndarray], size: int, fade: int) -> Iterator[Chunk]:
    """Cut a stream into overlapping chunks, holding no more than two of them.

    Args:   blocks: (channels, n) each, any n; size: samples of a chunk; fade: samples two neighbours share, < size
    Yields: chunks of `size` samples, size - fade apart; a stream shorter than `size` is one chunk as it is
    """
    start, base, buffer = 0, 0, None  # the next chunk's start; where in the stream the buffer begins
    for block in blocks:
        buffer = block if buffer is None else np.concatenate([buffer, block], axis=-1)
        # A sample beyond the chunk proves that it is not the last.
        while base + buffer.shape[-1] > start + size:
            yield Chunk(start, buffer[..., start - base : start - base + size], False)
            buffer, base = buffer[..., start - base :], start
            start += size - fade
    if buffer is not None and buffer.shape[-1]:
        begin = max(0, base + buffer.shape[-1] - size)
        yield Chunk(begin, buffer[..., begin - base :], True)


class OverlapAdd:
    """The inverse of `cut`: estimates of the chunks in order -> the stream, each sample exactly once."""

    def __init__(self, fade: int):
        self.fade = fade
        # A raised cosine between neighbours: rise + its mirror is one, and the slope is continuous at both ends.
        self.rise = (0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / max(fade, 1))).astype(np.float32)
        self.position = 0  # samples given out
        self.tail: np.ndarray | None = None  # the last chunk's fade, not yet given out

    def add(self, start: int, estimate: np.ndarray, last: bool) -> np.ndarray:
        """
        Args:    start, last: of the chunk; estimate: (..., samples) for it
        Returns: (..., n), the samples that are now final
        """
        estimate = estimate[..., self.position - start :]
        if self.tail is not None:
            faded = self.tail * self.rise[::-1] + estimate[..., : self.fade] * self.rise
            estimate = np.concatenate([faded, estimate[..., self.fade :]], axis=-1)
        if not last:
            self.tail = estimate[..., estimate.shape[-1] - self.fade :]
            estimate = estimate[..., : estimate.shape[-1] - self.fade]
        self.position += estimate.shape[-1]
        return estimate


def mean(streams: Sequence[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """The mean of equally long streams, (..., n) float32, in blocks of any lengths."""
    waiting: list[np.ndarray | None] = [None] * len(streams)
    while True:
        for index, stream in enumerate(streams):
            if waiting[index] is None:
                waiting[index] = next(stream, None)
        blocks = [block for block in waiting if block is not None]
        if len(blocks) < len(streams):
            return
        length = min(block.shape[-1] for block in blocks)
        together = np.asarray(np.mean([block[..., :length] for block in blocks], axis=0, dtype=np.float64))
        yield together.astype(np.float32)
        waiting = [block[..., length:] if block.shape[-1] > length else None for block in blocks]
