"""Each kind of network behind the seam: the same as its own package, on disk and back, for any number of channels."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import packaged_networks as networks
import pytest
import torch
from safetensors.torch import save_file

from tsbs_daw.core import machine
from tsbs_daw.core.errors import CheckpointError, DeviceError, ModelError, UsageError
from tsbs_daw.models import kinds
from tsbs_daw.network import TINY, TwoStageSeparator, checkpoint
from tsbs_daw.network.checkpoint import read_metadata
from tsbs_daw.separation import Separator
from tsbs_daw.separation.engine import Engine

CPU = torch.device("cpu")
REAL = ("htdemucs", "htdemucs_6s", "bs_roformer", "melband_vocals")
PARAMETERS = {
    "htdemucs": 41_984_456,
    "htdemucs_6s": 27_414_996,
    "bs_roformer": 131_704_164,
    "melband_vocals": 228_202_852,
}
RATE = 44_100


def sound(samples: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((channels, samples))).astype(np.float32)


@pytest.mark.parametrize("model", REAL)
def test_a_network_of_its_real_size_gives_what_its_own_package_gives(model):
    """Short chunks: HTDemucs fills them up itself, and the others take any length."""
    network = networks.real_size(model)
    assert sum(part.numel() for part in network.parameters()) == PARAMETERS[model]
    mixture = sound(441 * 20)
    expected = networks.package_output(network, torch.from_numpy(mixture)[None])[0].numpy()
    found = Separator(network, CPU).separate(mixture, RATE)
    assert tuple(found) == network.config.stems
    scale = float(np.sqrt(np.mean(expected**2)))
    for index, stem in enumerate(network.config.outputs):
        assert np.abs(found[stem] - expected[index]).max() < 1e-5 * max(scale, 1.0)
    if network.config.complement:
        assert np.abs(sum(found.values()) - mixture).max() < 1e-6


@pytest.fixture(scope="module", params=list(networks.TINY))
def tiny(request) -> kinds.SeparationNetwork:
    return networks.build(request.param, networks.TINY[request.param])


def test_weights_come_back_from_disk_as_they_were(tiny, tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint.save(tiny, path, {"name": "x"})
    assert kinds.read_config(path) == tiny.config and read_metadata(path)["network"] == tiny.config.kind
    again = kinds.load(path)
    mixture = sound(9000)
    before, after = (Separator(network, CPU).separate(mixture, RATE) for network in (tiny, again))
    assert all(np.array_equal(before[stem], after[stem]) for stem in before)


@pytest.mark.parametrize("channels", [1, 2, 5, 6])
def test_any_number_of_channels_is_taken_in_pairs(tiny, channels):
    mixture = torch.from_numpy(sound(6000, channels))[None]
    with torch.inference_mode():
        found = tiny.estimate(mixture)
        assert found.shape == (1, len(tiny.config.stems), channels, 6000)
        pair = tiny.estimate(mixture[:, :2] if channels > 1 else mixture.expand(-1, 2, -1))
    wanted = pair if channels > 1 else pair.mean(2, keepdim=True)
    torch.testing.assert_close(found[:, :, :2], wanted[:, :, :channels], rtol=0, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 1000, 44_100, 100_003])
def test_any_length_comes_back_whole(tiny, samples):
    found = Separator(tiny, CPU).separate(sound(samples), RATE)
    assert {stem.shape for stem in found.values()} == {(2, samples)}
    assert all(np.isfinite(stem).all() for stem in found.values())


def test_only_two_stage_networks_have_a_mask_stage(tiny):
    with pytest.raises(UsageError, match="no mask stage; leave out --stage"):
        Separator(tiny, CPU).separate(sound(1000), RATE, stage="mask")


def test_bfloat16_on_a_processor_is_refused_in_a_sentence(tiny):
    with pytest.raises(UsageError, match="leave out --precision"):
        Separator(tiny, CPU, precision="bfloat16")


def test_a_chunk_that_cannot_be_shorter_is_not_made_shorter(tiny, monkeypatch):
    """HTDemucs fills chunks up to its segment: a shorter one needs the same memory."""
    engine, lengths = Engine(tiny, CPU), []

    def starved(mixture, stage="full"):
        lengths.append(mixture.shape[-1])
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(tiny, "estimate", starved)
    with pytest.raises(DeviceError, match="too little free memory"):
        engine.estimate(sound(44_100)[None])
    assert (len(set(lengths)) > 1) == tiny.config.any_length


def test_standardised_weights_hear_chunks_of_unit_deviation_whatever_the_level():
    config = {**networks.TINY["bs-roformer"], "standardised": True}
    network, mixture = networks.build("bs-roformer", config), sound(9000)
    engine = Engine(network, CPU)
    quiet, loud = engine.estimate(mixture[None]), engine.estimate(100 * mixture[None])
    np.testing.assert_allclose(loud, 100 * quiet, rtol=0, atol=1e-3)
    plain = Engine(networks.build("bs-roformer", networks.TINY["bs-roformer"]), CPU).estimate(mixture[None])
    assert np.abs(plain - quiet).max() > 1e-6


def test_an_old_config_of_ours_is_written_as_it_always_was():
    assert "standardised" not in TINY.to_dict() and "network" not in TINY.to_dict()


@pytest.mark.parametrize("extra", ["demucs", "roformer"])
def test_a_missing_package_is_one_sentence_with_the_way_out(monkeypatch, tmp_path, extra):
    kind = next(kind for kind in kinds.KINDS.values() if kind.extra == extra)
    path = networks.saved(networks.build(kind.name, networks.TINY[kind.name]), tmp_path / "model.safetensors")
    whole = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == kind.package else whole(name))
    with pytest.raises(ModelError, match=rf"pip install 'tsbs-daw\[{extra}\]'"):
        kinds.load(path)


def test_a_model_that_does_not_fit_in_memory_is_not_loaded(monkeypatch, tmp_path):
    path = networks.saved(networks.build("htdemucs", networks.TINY["htdemucs"]), tmp_path / "model.safetensors")
    monkeypatch.setattr(kinds, "memory_bytes", lambda: (8 << 30, 1000))
    with pytest.raises(DeviceError, match="close other programs, or choose a smaller model"):
        kinds.load(path)
    assert machine.memory_bytes()[0] != 1000


@pytest.mark.parametrize(
    "config",
    [
        {"dim": 1_000_000},
        {"depth": 10_000},
        {"stems": []},
        {"stems": ["a", "../b"]},
        {"stems": ["residual"]},
        {"freqs_per_bands": [1, 2]},
        {"surprise": 1},
        {"complement": "vocals"},
    ],
)
def test_a_config_from_anywhere_is_held_to_bounds(tmp_path, config):
    network = networks.build("bs-roformer", networks.TINY["bs-roformer"])
    header = {"format": checkpoint.FORMAT, "network": "bs-roformer"}
    header["config"] = json.dumps({**network.config.to_dict(), **config})
    save_file({"x": torch.zeros(1)}, tmp_path / "odd.safetensors", header)
    with pytest.raises(CheckpointError, match="describes a network"):
        kinds.load(tmp_path / "odd.safetensors")


def test_a_config_that_the_weights_do_not_bear_out_is_refused_before_it_is_built(tmp_path, monkeypatch):
    network = networks.build("bs-roformer", networks.TINY["bs-roformer"])
    header = {"format": checkpoint.FORMAT, "network": "bs-roformer"}
    header["config"] = json.dumps({**network.config.to_dict(), "dim": 2048, "depth": 48})
    tensors = {name: part.clone().contiguous() for name, part in network.stored().items()}
    save_file(tensors, tmp_path / "liar.safetensors", header)
    with pytest.raises(CheckpointError, match=r"liar\.safetensors lacks 940 tensors"):
        kinds.load(tmp_path / "liar.safetensors")


def test_a_kind_that_nobody_knows_is_said(tmp_path):
    header = {"format": checkpoint.FORMAT, "network": "future", "config": "{}"}
    save_file({"x": torch.zeros(1)}, tmp_path / "new.safetensors", header)
    with pytest.raises(CheckpointError, match="kind of network that this version does not support"):
        kinds.load(tmp_path / "new.safetensors")


def test_training_names_the_network_that_it_cannot_train(tmp_path):
    path = networks.saved(networks.build("htdemucs", networks.TINY["htdemucs"]), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="requires a TS-BSMamba2 model"):
        checkpoint.load(path)


def test_our_own_network_goes_through_the_same_door(tmp_path):
    torch.manual_seed(0)
    network = TwoStageSeparator(TINY).eval()
    checkpoint.save(network, tmp_path / "own.safetensors")
    assert "network" not in read_metadata(Path(tmp_path / "own.safetensors"))
    assert kinds.load(tmp_path / "own.safetensors").config == TINY
