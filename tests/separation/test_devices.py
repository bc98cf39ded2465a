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
    for name in ("product_difference", "scan_difference", "network_difference"):
        monkeypatch.setattr(devices, name, lambda device: 1e-6)
    assert choose_device("auto") == ELSEWHERE
    assert songs_at_once("auto") == 1


@pytest.mark.usefixtures("one_accelerator")
def test_one_whose_fourier_transforms_are_wrong_is_not_chosen(monkeypatch):
    whole = torch.stft

    def stft(mixture, *args, **options):
        wrong = mixture.dtype == torch.float32  # on the device; the reference is float64
        return whole(mixture, *args, **options) * (0.5 if wrong else 1.0)

    monkeypatch.setattr(torch, "stft", stft)
    assert failure(CPU).startswith("a small network is off by ")


def test_every_kind_of_accelerator_is_offered_the_best_first(monkeypatch):
    there = {"cuda"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: "xpu" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    for kind in ("xpu", "mps"):
        assert [device.type for device in devices.accelerators()] == sorted(there, key=["cuda", "xpu", "mps"].index)
        there.add(kind)
    there.clear()
    assert list(devices.accelerators()) == []


@pytest.mark.parametrize(("built", "why"), [(None, "was built without CUDA"), ("13.0", "cannot use it with CUDA 13.0")])
def test_a_driver_that_torch_cannot_use_is_told_once(monkeypatch, caplog, built, why):
    devices._look_for_unused_driver.cache_clear()
    monkeypatch.setattr(devices, "accelerators", lambda: iter(()))
    monkeypatch.setattr(devices.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    for _ in range(2):
        assert choose_device("auto") == CPU
    devices._look_for_unused_driver.cache_clear()
    assert caplog.messages == [
        f"an NVIDIA driver is installed, but this torch {why}; `tsbs-daw doctor` says what to do"
    ]
