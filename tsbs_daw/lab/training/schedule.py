"""The learning rate as a pure function of the step: nothing to save, nothing to resume."""

from __future__ import annotations

import math

from tsbs_daw.lab.training.recipe import OptimiserPart


def learning_rate(step: int, settings: OptimiserPart) -> float:
    """The rate of step `step` (the first is 0): a linear climb, then the decay, then the final rate for ever."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.decay == "constant":
        return settings.learning_rate
    length = max(1, settings.total_steps - settings.warmup_steps)
    progress = min(1.0, (step - settings.warmup_steps) / length)
    if settings.decay == "exponential":
        return settings.learning_rate * settings.final_share**progress
    fall = 0.5 * (1.0 + math.cos(math.pi * progress))
    return settings.learning_rate * (settings.final_share + (1.0 - settings.final_share) * fall)


def ema_decay(step: int, settings: OptimiserPart) -> float:
    """Short memory at first, so that the average forgets the random start soon."""
    return min(settings.ema_decay, (1.0 + step) / (10.0 + step))
