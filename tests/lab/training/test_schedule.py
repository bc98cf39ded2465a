from __future__ import annotations

import pytest

from tsbs_daw.lab.training.recipe import OptimiserPart
from tsbs_daw.lab.training.schedule import Clock, ema_decay, learning_rate

SETTINGS = {"learning_rate": 1e-3, "warmup_steps": 10, "total_steps": 110, "final_share": 0.1}


def test_the_rate_climbs_from_the_first_step():
    settings = OptimiserPart(**SETTINGS)
    assert learning_rate(0, settings) == pytest.approx(1e-4)
    assert learning_rate(9, settings) == pytest.approx(1e-3)


@pytest.mark.parametrize(("decay", "half"), [("cosine", 5.5e-4), ("exponential", 1e-3 * 0.1**0.5), ("constant", 1e-3)])
def test_the_rate_falls_as_the_recipe_says(decay, half):
    settings = OptimiserPart(**SETTINGS, decay=decay)
    assert learning_rate(60, settings) == pytest.approx(half)
    rates = [learning_rate(step, settings) for step in range(10, 111)]
    assert rates == sorted(rates, reverse=True)


def test_after_the_last_step_the_rate_stays():
    settings = OptimiserPart(**SETTINGS)
    assert learning_rate(110, settings) == learning_rate(10**6, settings) == pytest.approx(1e-4)


def test_the_average_forgets_the_start():
    settings = OptimiserPart(ema_decay=0.999)
    assert ema_decay(0, settings) == pytest.approx(0.1)
    assert ema_decay(10**6, settings) == 0.999


def test_a_clock_lets_the_rate_fall_with_time_and_counts_what_earlier_calls_spent():
    now = 100.0
    clock = Clock(200.0, 0.0, lambda: now)
    settings = OptimiserPart(**SETTINGS)
    assert learning_rate(10**6, settings, clock.share) == pytest.approx(1e-3)
    now = 150.0
    assert clock.share == pytest.approx(0.5) and not clock.over
    clock.reserve(20.0)
    assert clock.share == pytest.approx(50 / 80)
    now = 180.0
    assert clock.over and learning_rate(10**6, settings, clock.share) == pytest.approx(1e-4)
    resumed = Clock(280.0, 100.0, lambda: now)
    assert resumed.share == pytest.approx(0.5)
