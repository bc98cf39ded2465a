"""Tests for a CUDA device, `pytest -m gpu`; skipped without one. Ordered by worth, so that a run may be cut.

With TRITON_INTERPRET=1 the tests that use `any_device` also run without a GPU: on the CPU, in Triton's interpreter.
With GPU_PROOF naming a file, all tests and then each report are appended to it at once, as lines of JSON.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

INTERPRETED = not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_finish(session: pytest.Session) -> None:
    for item in session.items:
        note(item.nodeid, "not run")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or not report.passed:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        properties = report.user_properties if report.when == "call" else []
        measured = [text for name, text in properties if name == "measured"]
        note(report.nodeid, report.outcome, seconds=report.duration, reason=reason[-2000:], measured=measured)


def note(nodeid: str, outcome: str, **more: object) -> None:
    if path := os.environ.get("GPU_PROOF"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"nodeid": nodeid, "outcome": outcome} | more) + "\n")


@pytest.fixture
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.cuda.empty_cache()
    return torch.device("cuda")


@pytest.fixture
def any_device(request) -> torch.device:
    """The CUDA device, or the CPU where Triton's interpreter runs the kernels."""
    return torch.device("cpu") if INTERPRETED else request.getfixturevalue("device")


@pytest.fixture
def mamba_ssm(device) -> Iterator[None]:
    """mamba-ssm's kernels: the package, or for one test its Triton sources in $MAMBA_SRC."""
    from tsbs_daw.network.mamba2 import fused_available

    path = Path(__file__).parents[2] / "tools" / "gpu" / "mamba_shim.py"
    spec = importlib.util.spec_from_file_location("mamba_shim", path)
    shim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shim)
    installed = shim.install_if_missing()
    if not fused_available():
        pytest.skip("mamba-ssm is not installed, and $MAMBA_SRC does not hold its sources")
    yield
    if installed:
        shim.remove()


@pytest.fixture
def measured(capsys, record_property):
    """Print and record a measurement, and compare it with a limit."""

    def check(what: str, value: float, limit: float) -> None:
        text = f"{what}: {value:.2e} (limit {limit:.0e})"
        record_property("measured", text)
        with capsys.disabled():
            print(f"\nmeasured {text}", flush=True)
        assert value <= limit, f"{what}: {value:.2e} is more than {limit:.0e}"

    return check


@pytest.fixture(autouse=True)
def log_to_stderr(caplog):
    caplog.set_level(logging.INFO, logger="tsbs_daw")
