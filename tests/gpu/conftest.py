"""Tests for a CUDA device, `pytest -m gpu`; skipped without one. Ordered by worth, so that a run may be cut.

What was measured is printed in lines that begin with "measured".
"""

from __future__ import annotations

import logging

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "tests/gpu/" in item.path.as_posix() and item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture
def device() -> torch.device:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.cuda.empty_cache()
    return torch.device("cuda")


@pytest.fixture
def measured(capsys):
    """Prints what was measured past pytest's capture, and holds it against a limit."""

    def check(what: str, value: float, limit: float) -> None:
        with capsys.disabled():
            print(f"\nmeasured {what}: {value:.2e} (limit {limit:.0e})", flush=True)
        assert value <= limit, f"{what}: {value:.2e} is more than {limit:.0e}"

    return check


@pytest.fixture(autouse=True)
def log_to_stderr(caplog):
    caplog.set_level(logging.INFO, logger="tsbs_daw")
