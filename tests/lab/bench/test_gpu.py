"""The benchmark of a GPU, run on the processor: a step of training is one that the trainer would take."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tsbs_daw.lab.bench import gpu
from tsbs_daw.lab.bench.networks import SIZES, random_network

SMALL = replace(SIZES["tiny"], chunk_s=0.5, feature_dim=16, headdim=16, mask_blocks=1)


@pytest.fixture
def one_step(monkeypatch):
    """Every timed call is made once, and takes half a second."""

    def timed(step, device, budget_s=0.5):
        step()
        return 0.5

    monkeypatch.setattr(gpu, "_median_s", timed)


def test_a_step_of_training_moves_every_weight(monkeypatch, one_step):
    pytest.importorskip("lightning_fabric")
    network = random_network(SMALL, torch.device("cpu"))
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    monkeypatch.setattr(gpu, "random_network", lambda config, device: network)
    assert gpu.training(SMALL, torch.device("cpu"), batch=2) == {"name": "training.2", "examples_per_s": 4.0}
    still = [name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])]
    assert not still


def test_a_step_that_fails_is_told_in_its_row(monkeypatch, one_step):
    def fail(config, device):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(gpu, "random_network", fail)
    row = gpu.training(SMALL, torch.device("cpu"), batch=2)
    assert "no kernel image" in row["error"]
    assert "examples_per_s" not in row
