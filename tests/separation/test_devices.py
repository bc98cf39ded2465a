"""An accelerator is used when it computes right, whatever torch says of it."""

from __future__ import annotations

import logging

import pytest
import torch

from tsbs_daw.separation import devices
from tsbs_daw.separation.devices import choose_device, failure, songs_at_once

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")


@pytest.fixture
def one_accelerator(monkeypatch):
    devices.failure.cache_clear()
    monkeypatch.setattr(devices, "accelerators", lambda: iter([ELSEWHERE]))
    yield
    devices.failure.cache_clear()


def test_the_cpu_computes_right():
    assert failure(CPU) is None


@pytest.mark.usefixtures("one_accelerator")
def test_one_that_fails_when_it_computes_is_not_chosen(monkeypatch, caplog):
    def fails(device):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(devices, "product_difference", fails)
    with caplog.at_level(logging.WARNING):
        assert choose_device("auto") == CPU
    assert "meta is available but not used: RuntimeError: CUDA error: no kernel image" in caplog.text


@pytest.mark.usefixtures("one_accelerator")
@pytest.mark.parametrize("wrong", [0.3, float("nan"), float("inf")])
def test_one_that_computes_something_else_is_not_chosen(monkeypatch, caplog, wrong):
    monkeypatch.setattr(devices, "product_difference", lambda device: 1e-7)
    monkeypatch.setattr(devices, "scan_difference", lambda device: wrong)
    assert choose_device("auto") == CPU
    assert "a Mamba-2 scan is off by" in caplog.text


@pytest.mark.usefixtures("one_accelerator")
def test_one_that_computes_right_is_chosen(monkeypatch):
    for name in ("product_difference", "scan_difference"):
        monkeypatch.setattr(devices, name, lambda device: 1e-6)
    assert choose_device("auto") == ELSEWHERE
    assert songs_at_once("auto") == 1
