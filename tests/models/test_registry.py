"""Models by name and by path; pulling, with the hash recorded on first use and checked ever after."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from file_server import serving
from golden_weights import CASE_B

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import CheckpointError, DownloadError, NoSpaceLeft, TsbsDawError, UnknownModel
from tsbs_daw.core.files import file_sha256
from tsbs_daw.models.convert import convert_into
from tsbs_daw.models.pull import pull
from tsbs_daw.models.registry import BUNDLED, KNOWN, Description, HashRecord, find, list_models, resolve
from tsbs_daw.network import TwoStageSeparator
from tsbs_daw.network.checkpoint import load, read_metadata, save
from tsbs_daw.separation.separator import Separator

SMALL = CASE_B.config


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TSBS_DAW_HOME", str(tmp_path / "home"))
    return Settings.from_environment()


@pytest.fixture(scope="session")
def pickled(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("published") / "model.ckpt"
    torch.save(CASE_B.state_dict(), path)
    return path.read_bytes()


def known(url: str) -> Description:
    return Description(name="small", description="a test's model", licence="none", url=url, stems=SMALL.stems)


def own_model(settings: Settings, name: str = "mine") -> Path:
    settings.models.mkdir(parents=True, exist_ok=True)
    path = settings.models / f"{name}.safetensors"
    save(TwoStageSeparator(SMALL), path)
    return path


def test_a_path_is_itself(settings, tmp_path):
    path = tmp_path / "some model.safetensors"
    save(TwoStageSeparator(SMALL), path)
    assert resolve(path, settings) == path
    assert resolve(str(path), settings) == path


def test_a_converted_model_has_its_file_name(settings):
    path = own_model(settings)
    assert resolve("mine", settings) == path
    assert find("mine", settings).path == path
    assert [entry.name for entry in list_models(settings)] == [*KNOWN, "mine"]


def test_the_bundled_model_is_in_the_package():
    path = find("default", Settings.from_environment()).path
    if path is None:
        with pytest.raises(CheckpointError, match="install tsbs-daw again"):
            resolve("default", Settings.from_environment())
    else:
        assert resolve("default", Settings.from_environment()) == path
        assert load(path).config.stems == KNOWN["default"].stems


def test_a_known_model_that_is_not_here_says_how_to_get_it(settings):
    with pytest.raises(UnknownModel, match="tsbs-daw models pull musdb18"):
        resolve("musdb18", settings)


@pytest.mark.parametrize(
    ("wrong", "hint"), [("musdb81", "did you mean 'musdb18'"), ("defualt", "'default'"), ("mien", "'mine'")]
)
def test_a_misspelt_name_gets_the_closest_one(settings, wrong, hint):
    own_model(settings)
    with pytest.raises(UnknownModel, match=hint):
        resolve(wrong, settings)


@pytest.mark.parametrize(
    "name", ["", ".", "/", "nothing/here.safetensors", "../mine", "a\0b", "x" * 5000, "~no such user/x"]
)
def test_what_is_neither_a_name_nor_a_file_is_an_unknown_model(settings, name):
    own_model(settings)
    with pytest.raises(UnknownModel):
        resolve(name, settings)


def test_a_name_cannot_leave_the_folder_of_models(settings):
    own_model(settings)
    (settings.models.parent / "secret.safetensors").write_bytes(b"")
    with pytest.raises(UnknownModel):
        resolve("../secret", settings)


def test_a_pickle_is_never_resolved(settings, tmp_path, pickled):
    path = tmp_path / "model.ckpt"
    path.write_bytes(pickled)
    with pytest.raises(CheckpointError, match="tsbs-daw models convert"):
        resolve(path, settings)


def test_a_model_that_changes_after_its_first_use_is_refused(settings):
    path = own_model(settings)
    resolve("mine", settings)
    resolve("mine", settings)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match="has changed since its first use"):
        resolve("mine", settings)


def test_a_damaged_record_of_hashes_is_said_and_nothing_is_trusted(settings):
    own_model(settings)
    for text in ("", "{", "[]", '{"schema": 2, "files": {}}', '{"schema": 1}', '{"schema": 1, "files": 3}'):
        (settings.models / "hashes.json").write_text(text)
        with pytest.raises(CheckpointError, match="damaged"):
            resolve("mine", settings)


def test_a_pulled_model_is_converted_recorded_and_usable(settings, pickled):
    seen = []
    with serving(pickled, cut_after=[40_000]) as server:
        path = pull(known(server.url), settings, progress=lambda *at: seen.append(at))
    assert seen[-1] == (len(pickled), len(pickled))
    assert load(path).config == SMALL
    metadata = read_metadata(path)
    assert metadata["name"] == "small" and metadata["source"] == server.url
    files = json.loads((settings.models / "hashes.json").read_text())["files"]
    assert files["small.safetensors"] == file_sha256(path)
    assert files["small.ckpt"] == metadata["source_sha256"]
    assert resolve("small", settings) == path
    assert not list(settings.models.glob("*.ckpt")) and not list(settings.models.glob("*.part*"))


def test_a_second_pull_checks_and_does_not_download(settings, pickled):
    with serving(pickled) as server:
        path = pull(known(server.url), settings)
        assert pull(known(server.url), settings) == path
        assert len(server.requests) == 1
        path.write_bytes(b"changed")
        with pytest.raises(CheckpointError, match="changed"):
            pull(known(server.url), settings)


def test_another_file_at_the_same_address_is_refused_unread(settings, pickled, tmp_path):
    with serving(pickled) as server:
        path = pull(known(server.url), settings)
        path.unlink()
        other = {name: part + 1 for name, part in CASE_B.state_dict().items()}
        torch.save(other, tmp_path / "other.ckpt")
        server.content = (tmp_path / "other.ckpt").read_bytes()
        with pytest.raises(CheckpointError, match="has changed since it was first pulled"):
            pull(known(server.url), settings)
        assert not path.exists() and not list(settings.models.glob("*.ckpt"))
        server.content = pickled
        assert pull(known(server.url), settings) == path


def test_a_page_in_place_of_the_file_is_not_remembered_as_the_model(settings, pickled):
    """What a hotel's login page answers must not become the hash that everything later is held to."""
    with serving(b"<html>please log in</html>") as server:
        with pytest.raises(CheckpointError):
            pull(known(server.url), settings)
        assert HashRecord(settings.models).known(Path("small.ckpt")) is None
        server.content = pickled
        assert pull(known(server.url), settings).is_file()


def test_pulling_what_nobody_knows_names_the_closest(settings):
    with pytest.raises(UnknownModel, match="did you mean 'musdb18'"):
        pull("musdb", settings)


def test_a_pull_that_does_not_fit_is_refused_before_it_starts(settings, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    big = known("http://127.0.0.1:9/x").model_copy(update={"size_bytes": 1_000_000})
    with pytest.raises(NoSpaceLeft, match="free some space"):
        pull(big, settings)


def test_a_server_that_is_gone_leaves_no_model(settings):
    with serving(b"", status=404) as server, pytest.raises(DownloadError):
        pull(known(server.url), settings)
    assert [entry.name for entry in list_models(settings)] == [*KNOWN]


def test_converting_into_a_name_makes_it_a_model_that_may_be_replaced(settings, tmp_path, pickled):
    source = tmp_path / "model.ckpt"
    source.write_bytes(pickled)
    path = convert_into(source, "mine", settings, stems=SMALL.stems)
    assert resolve("mine", settings) == path
    convert_into(source, "mine", settings, stems=("a", "b"), overwrite=True)
    assert load(resolve("mine", settings)).config.stems == ("a", "b")
    with pytest.raises(UnknownModel, match="reserved for a known model"):
        convert_into(source, "musdb18", settings)


def test_every_message_is_one_sentence(settings, tmp_path):
    for name in ("musdb18", "musdb81", "no/file.safetensors", "zzz"):
        with pytest.raises(TsbsDawError) as caught:
            resolve(name, settings)
        assert "\n" not in str(caught.value) and str(caught.value)[-1] in ".?"


def test_the_known_models_state_where_they_are_from_and_under_which_licence():
    for name, model in KNOWN.items():
        assert model.name == name and model.description and model.licence and model.licence_source
        assert model.url is None or model.url.startswith("https://")
    assert KNOWN["musdb18"].stems == ("drums", "bass", "other", "vocals")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize(
    "kind", ["pipe", "device", "folder", "link to a pipe", "link to a device", "dangling link", "loop"]
)
@pytest.mark.parametrize("among", ["by path", "by name"])
def test_a_model_that_is_no_regular_file_is_refused_without_waiting(tmp_path, settings, kind, among):
    """Opening a pipe waits for whoever writes to it, and a device never ends."""
    settings.models.mkdir(parents=True, exist_ok=True)
    path = (tmp_path if among == "by path" else settings.models) / "model.safetensors"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    targets = {"device": "/dev/zero", "link to a pipe": pipe, "link to a device": "/dev/urandom", "loop": path}
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(targets.get(kind, tmp_path / "gone"))
    name = str(path) if among == "by path" else "model"
    with pytest.raises((UnknownModel, CheckpointError)):
        Separator.load(name, "cpu", settings)
    assert [entry.path for entry in list_models(settings) if entry.name == "model"] in ([], [None])


def test_a_model_may_be_a_link_to_a_file(tmp_path, settings):
    link = tmp_path / "model.safetensors"
    link.symlink_to(BUNDLED)
    assert resolve(str(link), settings).samefile(BUNDLED)
