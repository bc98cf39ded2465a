"""The learning rate as a pure function of where a run stands: by its steps, or by the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from tsbs_daw.lab.training.recipe import OptimiserPart


def learning_rate(step: int, settings: OptimiserPart, share: float | None = None) -> float:
    """The rate of step `step` (the first is 0): a linear climb, then the decay, then the final rate for ever.

    Args: share: how much of the run's time has passed, 0 to 1, where the clock decides instead of `total_steps`
    """
    if share is None:
        length = max(1, settings.total_steps - settings.warmup_steps)
        share = min(1.0, max(0.0, (step - settings.warmup_steps) / length))
    climb = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    return settings.learning_rate * climb * _fall(share, settings)


def _fall(share: float, settings: OptimiserPart) -> float:
    if settings.decay == "constant":
        return 1.0
    if settings.decay == "exponential":
        return settings.final_share**share
    return settings.final_share + (1.0 - settings.final_share) * 0.5 * (1.0 + math.cos(math.pi * share))


def ema_decay(step: int, settings: OptimiserPart) -> float:
    """Short memory at first, so that the average forgets the random start soon."""
    return min(settings.ema_decay, (1.0 + step) / (10.0 + step))


class Clock:
    """How much of a run's time has passed, whatever a step costs: so a run of any length ends annealed.

    Time of earlier calls counts as passed, and what is left of this call is the rest.
    """

    def __init__(self, deadline: float, trained_s: float, now: Callable[[], float] = time.monotonic):
        """deadline: when steps end, in the time of `now`; trained_s: spent in steps by earlier calls"""
        self._now, self._deadline, self._before, self._begin = now, deadline, trained_s, now()

    def reserve(self, seconds: float) -> None:
        """End so much earlier: something else comes after the last step."""
        self._deadline -= seconds

    @property
    def share(self) -> float:
        passed = self._before + self._now() - self._begin
        whole = self._before + max(self._deadline - self._begin, 1e-3)
        return min(1.0, passed / whole)

    @property
    def over(self) -> bool:
        return self._now() >= self._deadline
