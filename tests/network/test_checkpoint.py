from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import CheckpointError
from tsbs_daw.models import registry
from tsbs_daw.network import TINY, TwoStageSeparator, checkpoint

SMALL = replace(TINY, feature_dim=16, mask_blocks=1, map_blocks=1, headdim=16, stems=("one", "two"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_survive_the_journey_to_disk(tmp_path, dtype):
    network, path = TwoStageSeparator(SMALL), tmp_path / "small.safetensors"
    checkpoint.save(network, path, {"note": "a test"}, dtype=dtype)
    loaded = checkpoint.load(path)
    assert loaded.config == SMALL and not loaded.training
    assert checkpoint.read_metadata(path)["note"] == "a test"
    for mine, theirs in zip(network.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(mine.to(dtype).float(), theirs)
    assert [file.name for file in tmp_path.iterdir()] == ["small.safetensors"]


def damaged(kind: str, path) -> None:
    checkpoint.save(TwoStageSeparator(SMALL), path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "not a model":
        path.write_bytes(b"\x80\x04 a pickle")
    elif kind == "somebody else's":
        save_file({"weight": torch.zeros(3)}, path)
    else:
        config = {**SMALL.to_dict(), "colour": 1} if kind == "unknown config" else SMALL.to_dict()
        header = {"format": checkpoint.FORMAT, "config": json.dumps(config)}
        save_file({"weight": torch.zeros(3)}, path, metadata=header)


@pytest.mark.parametrize("kind", ["cut", "not a model", "somebody else's", "unknown config", "other tensors"])
def test_what_is_not_a_whole_model_is_refused_by_name(tmp_path, kind):
    path = tmp_path / "broken.safetensors"
    damaged(kind, path)
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        checkpoint.load(path)


LIES = {
    "an absolute path": {"stems": ["/tmp/abs", "two"]},
    "a way out of the folder": {"stems": ["../../two", "one"]},
    "a device of Windows": {"stems": ["nul", "one"]},
    "the cache's own name": {"stems": ["Residual", "one"]},
    "one name in two cases": {"stems": ["One", "one"]},
    "stems that are numbers": {"stems": [1, 2]},
    "a stem with NUL": {"stems": ["one\0", "two"]},
    "half a character": {"stems": ["one\ud83d", "two"]},
    "no stems": {"stems": []},
    "seventeen stems": {"stems": [f"stem {number}" for number in range(17)]},
    "stems as text": {"stems": "one"},
    "a feature_dim that fills the memory": {"feature_dim": 96_000_000},
    "blocks without end": {"mask_blocks": 10**7},
    "a rate beyond sound": {"sample_rate": 10**9},
    "no rate": {"sample_rate": 0},
    "a rate in words": {"sample_rate": "44100"},
    "a rate that is true": {"sample_rate": True},
    "a chunk of ages": {"chunk_s": 1e9},
    "a chunk of nothing": {"chunk_s": 0},
    "a chunk that is no number": {"chunk_s": float("nan")},
    "a chunk in a list": {"chunk_s": [3.0]},
    "no hop": {"hop_length": 0},
    "a hop backwards": {"hop_length": -512},
    "a hop beyond the window": {"hop_length": 4096},
    "bands of text": {"band_widths": "abc"},
    "bands below zero": {"band_widths": [-1, 1026]},
    "a width that fits in no memory": {"expand": 16, "feature_dim": 1024, "mask_blocks": 64, "map_blocks": 64},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_config_that_lies_is_refused_before_memory_is_taken_for_it(tmp_path, lie):
    path = tmp_path / "liar.safetensors"
    network = TwoStageSeparator(SMALL)
    header = {"format": checkpoint.FORMAT, "config": json.dumps({**SMALL.to_dict(), **LIES[lie]})}
    save_file({name: part.contiguous() for name, part in network.state_dict().items()}, path, metadata=header)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"liar\.safetensors"):
        checkpoint.load(path)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000


@pytest.mark.parametrize("config", ["[" * 100_000, "[]", "null", '"text"', "{"])
def test_a_config_that_is_no_config_is_refused(tmp_path, config):
    path = tmp_path / "odd.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata={"format": checkpoint.FORMAT, "config": config})
    with pytest.raises(CheckpointError, match=r"odd\.safetensors"):
        checkpoint.load(path)


def test_the_bundled_model_is_small_and_complete():
    path = registry.resolve("default", Settings.from_environment())
    assert path.stat().st_size <= 8_000_000
    assert checkpoint.load(path).config == TINY
