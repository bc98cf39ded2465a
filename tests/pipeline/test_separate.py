from __future__ import annotations

import threading

import numpy as np
import pytest

from tsbs_daw.core.errors import NoSpaceLeft
from tsbs_daw.pipeline.separate import _Background


def test_what_is_done_background_is_done_in_order_and_one_at_a_time():
    done, at_work = [], threading.Lock()

    def work(value: np.ndarray) -> None:
        assert at_work.acquire(blocking=False)
        done.append((value.item(), threading.current_thread() is threading.main_thread()))
        at_work.release()

    with _Background() as background:
        for number in range(20):
            background.run(work, np.asarray(number))
        background.wait()
    assert done == [(number, False) for number in range(20)]


def test_what_fails_background_is_told_before_the_next_is_begun():
    done = []

    def work(value: np.ndarray) -> None:
        if value == 1:
            raise NoSpaceLeft("The disk is full.")
        done.append(value.item())

    with _Background() as background, pytest.raises(NoSpaceLeft):
        for number in range(4):
            background.run(work, np.asarray(number))
    assert done == [0]


def test_the_last_one_to_fail_is_told_too():
    def work(value: np.ndarray) -> None:
        raise NoSpaceLeft("The disk is full.")

    with _Background() as background, pytest.raises(NoSpaceLeft):
        background.run(work, np.zeros(1))
        background.wait()
