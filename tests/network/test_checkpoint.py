from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

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


def test_the_bundled_model_is_small_and_complete():
    path = registry.resolve("default")
    assert path.stat().st_size <= 8_000_000
    assert checkpoint.load(path).config == TINY
