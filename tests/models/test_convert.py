"""Published pickles become safetensors with the same output; hostile, cut and foreign ones are refused unrun."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import CASE_A, CASE_B

from tsbs_daw.core.errors import CheckpointError, UsageError
from tsbs_daw.models.convert import convert
from tsbs_daw.models.convert_child import choose_config, read_state_dict
from tsbs_daw.network import FULL, LITE, TINY, TwoStageSeparator, load_reference_state_dict, reference_state_dict
from tsbs_daw.network.checkpoint import load, read_metadata

STEMS_B = CASE_B.config.stems


class Hostile:
    """Unpickled by an unrestricted reader, this makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def saved(content: object, path: Path, **options) -> Path:
    torch.save(content, path, **options)
    return path


def estimates(model: TwoStageSeparator, mixture: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(mixture).float()).estimates.numpy()


@pytest.mark.parametrize("case", [CASE_A, CASE_B], ids=lambda case: case.name)
def test_a_published_checkpoint_gives_the_same_output_after_conversion(tmp_path, case):
    source = saved(case.state_dict(), tmp_path / "published.ckpt")
    done = convert(source, tmp_path / "out.safetensors", stems=case.config.stems, metadata={"name": "golden"})
    converted = load(done.path)

    original = TwoStageSeparator(case.config).eval()
    load_reference_state_dict(original, case.state_dict())
    assert converted.config == case.config
    assert done.parameters == sum(part.numel() for part in original.parameters())
    mixture = case.mixture()
    assert np.array_equal(estimates(converted, mixture), estimates(original, mixture))
    expected = case.expected()
    error = np.abs(estimates(converted, mixture) - expected).max() / np.sqrt(np.mean(expected**2))
    assert error < 1e-5

    assert read_metadata(done.path)["name"] == "golden"
    assert read_metadata(done.path)["converted_from"] == "published.ckpt"
    assert {path.name for path in tmp_path.iterdir()} == {"published.ckpt", "out.safetensors"}


def test_the_usual_wrappers_and_prefixes_are_taken_off(tmp_path):
    weights = CASE_B.state_dict()
    for number, content in enumerate(
        (
            weights,
            OrderedDict(weights),
            {"state_dict": weights, "epoch": 11},
            {"model_state_dict": weights, "optimizer": {"step": 3}},
            {"model": weights},
            {f"module.{name}": part for name, part in weights.items()},
            {"state_dict": {f"model._orig_mod.{name}": part for name, part in weights.items()}},
        )
    ):
        found = read_state_dict(saved(content, tmp_path / f"{number}.ckpt"))
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], part) for name, part in weights.items())


def test_the_old_file_format_and_half_precision_are_read_too(tmp_path):
    weights = CASE_B.state_dict()
    old = read_state_dict(saved(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False))
    assert all(torch.equal(old[name], part) for name, part in weights.items())
    half = {name: part.half() for name, part in weights.items()}
    assert read_state_dict(saved(half, tmp_path / "half.pth")).keys() == weights.keys()


@pytest.mark.parametrize("kind", ["zip", "old", "bare"])
def test_a_hostile_pickle_is_refused_and_nothing_in_it_runs(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    source, trace = tmp_path / "evil.ckpt", tmp_path / "trace"
    content = {**CASE_B.state_dict(), "surprise": Hostile(trace)}
    if kind == "bare":
        source.write_bytes(pickle.dumps(Hostile(trace)))
    else:
        saved(content, source, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(CheckpointError, match="nothing in it was run"):
        convert(source, tmp_path / "out.safetensors", stems=STEMS_B)
    assert {path.name for path in tmp_path.iterdir()} == {"evil.ckpt"}


def test_the_hostile_pickle_would_have_run_without_the_restriction(tmp_path):
    source = saved({"surprise": Hostile(tmp_path / "trace")}, tmp_path / "evil.ckpt")
    torch.load(source, weights_only=False)
    assert (tmp_path / "trace").exists()


def test_a_cut_checkpoint_is_refused_wherever_it_is_cut(tmp_path):
    for old in (False, True):
        whole = saved(CASE_B.state_dict(), tmp_path / "whole.ckpt", _use_new_zipfile_serialization=not old).read_bytes()
        for fraction in (0.0, 0.001, 0.3, 0.9, 0.9999):
            cut = tmp_path / "cut.ckpt"
            cut.write_bytes(whole[: int(len(whole) * fraction)])
            with pytest.raises(CheckpointError, match="cut"):
                read_state_dict(cut)


def test_a_cut_checkpoint_leaves_nothing_behind(tmp_path):
    source = saved(CASE_B.state_dict(), tmp_path / "cut.ckpt")
    source.write_bytes(source.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match="download it again"):
        convert(source, tmp_path / "out.safetensors", stems=STEMS_B)
    assert {path.name for path in tmp_path.iterdir()} == {"cut.ckpt"}


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x80\x04K\x01.", os.urandom(5000)])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    source = tmp_path / "odd.ckpt"
    source.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_state_dict(source)


def test_an_archive_that_would_unpack_to_much_more_is_not_opened(tmp_path):
    source = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    with pytest.raises(CheckpointError, match="unpack"):
        convert(source, tmp_path / "out.safetensors")


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path):
    weights = CASE_B.state_dict()
    weights["mask.56.5.bias"] = weights["mask.56.5.bias"][:-1]
    del weights["in_conv.bias"]
    weights["in_conv.surprise"] = torch.zeros(3)
    source = saved(weights, tmp_path / "odd.ckpt")
    with pytest.raises(CheckpointError) as caught:
        convert(source, tmp_path / "out.safetensors", stems=STEMS_B)
    for name in ("in_conv.bias", "in_conv.surprise", "mask.56.5.bias", str(source)):
        assert name in str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_another_network_is_refused_as_such(tmp_path):
    source = saved(torch.nn.Linear(3, 4).state_dict(), tmp_path / "linear.ckpt")
    with pytest.raises(CheckpointError, match="does not have the tensors of this network"):
        convert(source, tmp_path / "out.safetensors")


def test_the_wrong_number_of_stem_names_is_said_so(tmp_path):
    with pytest.raises(CheckpointError, match="has 2 stems, but 4 are named"):
        choose_config("auto", FULL.stems, CASE_B.state_dict(), tmp_path / "x.ckpt")


@pytest.mark.parametrize("config", [FULL, LITE, TINY], ids=["full", "lite", "tiny"])
def test_auto_recognises_the_named_sizes_by_their_shapes(tmp_path, config):
    with torch.device("meta"):
        shapes = reference_state_dict(TwoStageSeparator(config))
    assert choose_config("auto", config.stems, shapes, tmp_path / "x.ckpt") == config


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    weights = CASE_B.state_dict()
    weights["in_conv.bias"][3] = value
    with pytest.raises(CheckpointError, match=r"'in_conv\.bias' contains NaN"):
        read_state_dict(saved(weights, tmp_path / "nan.ckpt"))


@pytest.mark.parametrize(
    "value",
    [torch.zeros(3, dtype=torch.int64), torch.zeros(2, 2).to_sparse(), "text", torch.zeros(1).expand(1 << 40)],
    ids=["integers", "sparse", "text", "claims more than it has"],
)
def test_only_plain_tensors_that_are_really_there_are_taken(tmp_path, value):
    with pytest.raises(CheckpointError, match="odd"):
        read_state_dict(saved({"odd": value}, tmp_path / "file.ckpt"))


def test_a_storage_that_claims_gigabytes_more_than_the_file_has_is_refused(tmp_path):
    """The old format allocates what it is told: that happens in the child, which has a limit."""
    whole = io.BytesIO()
    torch.save({"x": torch.zeros(123457)}, whole, _use_new_zipfile_serialization=False)
    source = tmp_path / "huge.ckpt"
    claim = b"J" + (123457).to_bytes(4, "little")
    assert claim in whole.getvalue()
    source.write_bytes(whole.getvalue().replace(claim, b"J\xff\xff\xff\x7f"))
    with pytest.raises(CheckpointError):
        convert(source, tmp_path / "out.safetensors")


def test_nothing_is_overwritten_unasked(tmp_path):
    source = saved({}, tmp_path / "x.ckpt")
    (tmp_path / "out.safetensors").write_text("precious")
    with pytest.raises(UsageError, match="already exists"):
        convert(source, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_text() == "precious"


def test_wrong_use_is_said_before_anything_starts(tmp_path):
    source = saved({}, tmp_path / "x.ckpt")
    with pytest.raises(UsageError, match="does not exist"):
        convert(tmp_path / "none.ckpt", tmp_path / "out.safetensors")
    with pytest.raises(UsageError, match="config 'huge'"):
        convert(source, tmp_path / "out.safetensors", config="huge")
    with pytest.raises(UsageError, match="different names"):
        convert(source, tmp_path / "out.safetensors", stems=("a", "b", "a"))
    with pytest.raises(UsageError, match="must end in"):
        convert(source, tmp_path / "out.bin")
