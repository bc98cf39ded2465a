"""CUDA graphs: a form of the network recorded once for a shape of batch, and replayed with one launch.

A small network is some hundred kernels of a few microseconds each; launching them one by one takes several times as
long as computing them. What cannot be recorded runs as before.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from torch import Tensor

from tsbs_daw.core.errors import described
from tsbs_daw.separation.forms import Form

log = logging.getLogger(__name__)

MOST_SHAPES = 3  # a graph keeps the memory that its shape needs
MOST_BYTES = 3_000_000_000  # planned for a batch; above it computing outweighs launching
LARGEST_ERROR = 1e-3  # of a replay's norm: the same kernels in another order of their sums


class Recording(NamedTuple):
    """A recorded run; it always reads and writes the same memory."""

    graph: torch.cuda.CUDAGraph
    mixture: Tensor
    estimates: Tensor


class GraphedForm:
    """A form on CUDA: a shape's first batch runs as it is, its second is recorded, the others are replayed."""

    def __init__(self, form: Form):
        self.form = form
        self._recordings: dict[tuple, Recording | None] = {}  # None: seen once
        # mamba-ssm tunes itself while it runs; a network that is not ours may do anything.
        self._possible = form.name in ("kernels", "plain") and form.speed is not None

    def __call__(self, mixture: Tensor, stage: str = "full") -> Tensor:
        key = (*mixture.shape, stage)
        if not self._possible or len(mixture) * self.form.chunk_bytes() > MOST_BYTES:
            return self.form(mixture, stage)
        if key not in self._recordings:
            if len(self._recordings) < MOST_SHAPES:
                self._recordings[key] = None
            return self.form(mixture, stage)
        if self._recordings[key] is None:
            return self._record_and_check(key, mixture, stage)
        return _replay(self._recordings[key], mixture)

    def _record_and_check(self, key: tuple, mixture: Tensor, stage: str) -> Tensor:
        """Record this shape. What comes out once it is replayed must be what came out before."""
        wanted = self.form(mixture, stage)
        if self._record(key, mixture, stage):
            found = _replay(self._recordings[key], mixture)
            if not float((found - wanted).norm()) <= LARGEST_ERROR * float(wanted.norm()):
                self._give_up("a replay gives something else")
        return wanted

    def _give_up(self, reason: str) -> None:
        self._possible = False
        self._recordings.clear()
        log.info("CUDA graphs are not used (%s)", reason)

    def _record(self, key: tuple, mixture: Tensor, stage: str) -> bool:
        """Whether it worked. Recording computes nothing."""
        try:
            graph, fixed = torch.cuda.CUDAGraph(), mixture.clone()
            # Other threads may go on allocating and copying meanwhile.
            with torch.cuda.device(mixture.device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                estimates = self.form(fixed, stage)
        except Exception as error:  # torch names a dozen reasons, of as many kinds
            self._give_up(described(error))
            return False
        self._recordings[key] = Recording(graph, fixed, estimates)
        return True


def _replay(recording: Recording, mixture: Tensor) -> Tensor:
    recording.mixture.copy_(mixture)
    recording.graph.replay()
    return recording.estimates.clone()
