"""Descriptions of checkpoints: the bundled ones hold, a user's own are checked; nothing is fetched without `pull`."""

from __future__ import annotations

import hashlib
import json
import re
import socket

import packaged_networks as networks
import pytest
import torch
from file_server import serving
from safetensors.torch import save_file

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import CheckpointError, OutputError, SettingsError, UnknownModel, UsageError
from tsbs_daw.models import registry
from tsbs_daw.models.convert import read_trainer_config
from tsbs_daw.models.convert_child import _packaged, read_tensors, recognise
from tsbs_daw.models.kinds import KINDS, load
from tsbs_daw.models.pull import pull
from tsbs_daw.models.registry import (
    bundled_descriptions,
    list_models,
    own_descriptions,
    read_description,
    resolve,
)

KIND = "bs-roformer"
NETWORK = networks.build(KIND, networks.TINY[KIND])
CONFIG = {key: value for key, value in networks.TINY[KIND].items() if key != "stems"}


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TSBS_DAW_HOME", str(tmp_path / "home"))
    found = Settings.from_environment()
    found.models.mkdir(parents=True)
    return found


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> bytes:
    """A checkpoint as trainers publish them."""
    path = tmp_path_factory.mktemp("published") / "model.ckpt"
    torch.save({name: part.clone() for name, part in NETWORK.stored().items()}, path)
    return path.read_bytes()


def describe(url: str, /, **values: object) -> str:
    facts = {
        "description": "a test's",
        "network": KIND,
        "config": CONFIG,
        "stems": ["drums", "bass"],
        "url": url,
        "licence": "MIT, as its page says.",
    }
    return json.dumps({**facts, **values})  # JSON is YAML


def test_every_bundled_description_is_a_network_with_its_licence_s_source_and_a_pinned_hash_where_there_is_one():
    for name, known in bundled_descriptions().items():
        assert known.name == name and known.licence_source.startswith("https://") and known.size_bytes
        assert known.measured_on and set(known.sdr_db) <= {*known.stems, "mean"}
        if known.network != "ts-bs-mamba2":
            assert known.sha256 and KINDS[known.network].config(known.values()).stems == known.stems


def test_nothing_is_fetched_without_pull(settings, monkeypatch):
    """Listing, showing, resolving and building every kind, with no way to the network."""

    def refuse(*arguments, **options):
        raise AssertionError(f"a connection was opened: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert {entry.state for entry in list_models(settings)} == {"bundled", "not pulled"}
    for name in bundled_descriptions():
        with pytest.raises(UnknownModel, match=f"tsbs-daw models pull {name}"):
            resolve(name, settings)
    for kind, values in networks.TINY.items():
        path = networks.saved(networks.build(kind, values), settings.models / f"{kind}.safetensors")
        assert load(path).config.kind == kind
    with pytest.raises(AssertionError, match="a connection was opened"):
        pull("musdb18", settings)


def test_a_user_s_description_is_pulled_by_its_file_and_then_by_its_name(settings, published, tmp_path):
    path, digest = tmp_path / "mine.yaml", hashlib.sha256(published).hexdigest()
    with serving(published) as server:
        path.write_text(describe(server.url, sha256=digest))
        model = pull(str(path), settings)
    assert model == settings.models / "mine.safetensors" and resolve("mine", settings) == model
    assert load(model).config == NETWORK.config
    (entry,) = (entry for entry in list_models(settings) if entry.name == "mine")
    assert entry.state == "pulled" and entry.known is not None and entry.known.licence == "MIT, as its page says."


def test_another_file_than_described_is_deleted_unread(settings, published, tmp_path):
    with serving(published) as server:
        (settings.models / "mine.yaml").write_text(describe(server.url, sha256="0" * 64))
        with pytest.raises(CheckpointError, match="differs from its description"):
            pull("mine", settings)
    assert {path.suffix for path in settings.models.iterdir()} <= {".yaml", ".json", ".lock"}


def test_a_licence_that_must_be_accepted_is_asked_for_before_anything_comes(settings, published):
    with serving(published) as server:
        (settings.models / "mine.yaml").write_text(
            describe(server.url, accept_licence=True, licence_source="https://example.org")
        )
        with pytest.raises(UsageError, match=r"MIT, as its page says\. Source: .* --accept-licence"):
            pull("mine", settings)
        assert not server.requests
        assert pull("mine", settings, accept_licence=True).is_file()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network": "scnet"}, "network"),
        ({"sha256": "abc"}, "sha256"),
        ({"url": "ftp://example.org/x"}, "url"),
        ({"complement": "vocals"}, "complement"),
        ({"licence": ""}, "licence"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_description_that_cannot_be_used_is_said_with_its_place(tmp_path, change, said):
    (tmp_path / "mine.yaml").write_text(describe("https://example.org/x", **change))
    with pytest.raises(SettingsError, match=rf"mine\.yaml:\d+:\d+: .*{said}"):
        read_description(tmp_path / "mine.yaml")


def test_a_broken_description_hides_no_other_model(settings, caplog):
    (settings.models / "broken.yaml").write_text("network: [")
    (settings.models / "htdemucs.yaml").write_text(describe("https://example.org/x"))
    (settings.models / "good.yaml").write_text(describe("https://example.org/x"))
    assert set(own_descriptions(settings.models)) == {"good"}
    assert "broken.yaml" in caplog.text and "has the name of a known model" in caplog.text
    assert len(list_models(settings)) == len(registry.KNOWN) + 1


def test_other_stems_than_the_checkpoint_has_are_said(tmp_path):
    weights, _ = read_tensors(_file(tmp_path, NETWORK.stored()))
    values = {**networks.TINY[KIND], "stems": ["drums", "bass", "vocals"]}
    with pytest.raises(CheckpointError, match="has 2 stems, but 3 are named"):
        _packaged(tmp_path / "x.ckpt", weights, KIND, values, {})


def _file(folder, tensors, **metadata):
    path = folder / "published.safetensors"
    save_file({name: part.clone().contiguous() for name, part in tensors.items()}, path, metadata or None)
    return path


def test_a_published_safetensors_says_its_own_arguments(tmp_path):
    """As the author of HTDemucs publishes them."""
    values = networks.TINY["htdemucs"]
    network = networks.build("htdemucs", values)
    stated = {"channels": 8, "bottom_channels": 0, "t_layers": 1, "t_dropout": 0.1, "audio_channels": 2}
    stated["segment"] = {"_type": "fraction", "numerator": 1, "denominator": 1}
    weights, arguments = read_tensors(_file(tmp_path, network.stored(), kwargs=json.dumps(stated)))
    found = _packaged(tmp_path / "x", weights, "htdemucs", {"stems": values["stems"]}, arguments)
    assert found.config == network.config
    assert all(torch.equal(part, found.stored()[name]) for name, part in network.stored().items())


def test_each_network_is_recognised_by_its_tensors_and_a_confusion_is_named(tmp_path):
    for kind, values in networks.TINY.items():
        assert recognise(networks.build(kind, values).stored()) == kind
    kim = {"band_split.to_features.0.0.gamma": 0, "layers.0.0.forward_blocks.0.0.mixer.A_log": 0, "final_norm.gamma": 0}
    assert recognise(kim) == "BSMamba2 by Kim and Choi"
    assert recognise({"weight": 0}) is None
    weights = {name: torch.zeros(1) for name in kim}
    with pytest.raises(CheckpointError, match="BSMamba2 by Kim and Choi, which tsbs-daw does not support"):
        _packaged(tmp_path / "x.ckpt", weights, KIND, {"stems": ["a"]}, {})
    weights = dict(NETWORK.stored())
    with pytest.raises(CheckpointError, match="of BS-RoFormer, not of HTDemucs; convert it with --network bs"):
        _packaged(tmp_path / "x.ckpt", weights, "htdemucs", {"stems": ["a"]}, {})


TRAINED = """
audio: {chunk_size: 352800, sample_rate: 44100}
model:
  dim: 384
  depth: 6
  num_bands: 60
  linear_transformer_depth: 0
  multi_stft_resolutions_window_sizes: !!python/tuple
  - 4096
  - 2048
training: {instruments: [vocals, other], target_instrument: vocals, normalize: true}
inference: {num_overlap: 2}
"""


def test_a_trainer_s_config_says_network_stems_level_and_chunk(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(TRAINED)
    found = read_trainer_config(path)
    assert found.network == "mel-band-roformer" and found.arguments["dim"] == 384
    assert found.values == {
        "stems": ["vocals", "other"],
        "complement": "other",
        "standardised": True,
        "chunk_size": 352800,
    }
    config = KINDS[found.network].config(found.values, found.arguments)
    assert config.outputs == ("vocals",) and config.standardised


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("linear_transformer_depth: 0", "linear_transformer_depth: 1", "not supported"),
        ("dim: 384", "dim: 3000000", "dim must be at most"),
    ],
)
def test_a_trainer_s_config_beyond_the_package_is_refused(tmp_path, old, new, said):
    path = tmp_path / "config.yaml"
    path.write_text(TRAINED.replace(old, new))
    found = read_trainer_config(path)
    with pytest.raises(ValueError, match=said):
        KINDS[found.network].config(found.values, found.arguments)


def test_a_description_that_cannot_be_copied_is_told_in_a_sentence(settings, tmp_path):
    (tmp_path / "mine.yaml").write_text(describe("https://example.org/x"))
    settings.models.rmdir()
    settings.models.write_text("a file")
    with pytest.raises(OutputError, match=r"Cannot create .* Set TSBS_DAW_HOME to another folder"):
        pull(str(tmp_path / "mine.yaml"), settings)


@pytest.mark.parametrize("size", ["abc", "-1", "true", "[1]"])
@pytest.mark.parametrize("network", ["num_bands", "num_repeat_mask"])
def test_a_config_whose_chunk_has_no_length_is_said_with_its_file(tmp_path, network, size):
    path = tmp_path / "config.yaml"
    path.write_text(re.sub(r"chunk_size: \d+", f"chunk_size: {size}", TRAINED).replace("num_bands", network))
    with pytest.raises(SettingsError, match=r"config\.yaml.*`audio: chunk_size:` must be a positive number, not"):
        read_trainer_config(path)


@pytest.mark.parametrize("segment", [{"numerator": 39}, {"numerator": 39, "denominator": 0}, {}, [], "long"])
def test_a_segment_that_is_no_length_is_refused(segment):
    with pytest.raises(ValueError, match=r"segment|long"):
        KINDS["htdemucs"].config({"stems": ["vocals", "other"]}, {"segment": segment})


@pytest.mark.parametrize(
    "text",
    ["audio: {}", "model: {sources: 1}\ntraining: {instruments: [a]}", TRAINED.replace("num_bands", "bands"), "- 1"],
)
def test_a_config_of_another_network_is_said_with_its_file(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"config\.yaml"):
        read_trainer_config(path)
