"""Each network of its real size, untrained, through every way in, as processes: files hold its package's output.

A network is installed once, as a user installs a checkpoint of Music-Source-Separation-Training: by `models convert`.
The daemon's ways in run with the first network, and in the long form with all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import packaged_networks as networks
import pytest
import torch
from cli.program import run, song_file
from harness.stage import DaemonProcess, until
from harness.studio import sound_of
from safetensors.torch import save_file

from tsbs_daw.contracts.manifest import read_manifest
from tsbs_daw.core.config import DaemonOptions, Settings
from tsbs_daw.models import kinds
from tsbs_daw.network.seam import SeparationNetwork
from tsbs_daw.queue.spool import living_daemon

NETWORKS = ("htdemucs", "htdemucs_6s", "bs_roformer", "melband_vocals")
SONG_S = 0.5  # HTDemucs computes its whole segment for it, and the others no more than that
NOT_OF_THE_MODEL = ("stems", "complement", "sample_rate", "standardised", "chunk_size", "segment")
RAW = ("--residual", "drop", "--format", "wav32f", "--device", "cpu")
pytestmark = pytest.mark.timeout(3600)


class Installed:
    """A home with one network in it, named `mine`."""

    def __init__(self, home: Path, model: str):
        self.home, self.settings = home, Settings(home, home / "cache", home / "models", "cpu")
        network = networks.real_size(model)
        published = home / "published.safetensors"
        home.mkdir(parents=True)
        save_file({name: part.detach().clone().contiguous() for name, part in network.stored().items()}, published)
        (home / "config.yaml").write_text(json.dumps(trainer_config(network)))  # JSON is YAML
        converted = run(home, "models", "convert", published, "mine", "--config", home / "config.yaml")
        assert converted.returncode == 0, converted.stderr
        published.unlink()
        self.network = kinds.load(self.settings.models / "mine.safetensors")
        assert self.network.config == network.config

    def song(self, name: str, seed: int) -> Path:
        return song_file(self.home / "songs" / f"{name}.wav", SONG_S, seed=seed)

    def check(self, song: Path, folder: Path) -> None:
        """The files hold what the network's own package makes of the song."""
        mixture = torch.from_numpy(sound_of(song))[None]
        expected = networks.package_output(self.network, mixture)[0].numpy()
        scale = max(1.0, float(np.sqrt(np.mean(expected**2))))
        config = self.network.config
        for index, stem in enumerate(config.outputs):
            assert np.abs(sound_of(folder / f"{stem}.wav") - expected[index]).max() < 1e-5 * scale, stem
        if config.complement:
            rest = mixture[0].numpy() - expected.sum(0)
            assert np.abs(sound_of(folder / f"{config.complement}.wav") - rest).max() < 1e-5 * scale
        manifest = read_manifest(folder)
        assert [entry.name for entry in manifest.stems] == list(config.stems) and manifest.model.name == "mine"


def trainer_config(network: SeparationNetwork) -> dict[str, Any]:
    """What the trainer would publish beside these weights."""
    config = network.config
    model = {name: value for name, value in config.to_dict().items() if name not in NOT_OF_THE_MODEL}
    training: dict[str, Any] = {"instruments": list(config.stems)}
    if config.kind == "htdemucs":
        training |= {"segment": config.segment, "samplerate": config.sample_rate}
        return {"htdemucs": model, "training": training}
    if config.complement:
        training["target_instrument"] = config.outputs[0]
    return {"model": model, "audio": {"chunk_size": config.chunk_samples}, "training": training}


@pytest.fixture(scope="module")
def installed(request, tmp_path_factory) -> Installed:
    return Installed(tmp_path_factory.mktemp(request.param) / "home", request.param)


every_network = pytest.mark.parametrize("installed", NETWORKS, indirect=True)
one_network = pytest.mark.parametrize(
    "installed", [NETWORKS[0], *(pytest.param(name, marks=pytest.mark.long) for name in NETWORKS[1:])], indirect=True
)


@every_network
def test_separate_writes_what_the_package_gives(installed, tmp_path):
    song = installed.song("separated", 1)
    done = run(installed.home, "separate", song, "--out", tmp_path, "--model", "mine", *RAW)
    assert done.returncode == 0, done.stderr
    installed.check(song, tmp_path / "separated")


@one_network
def test_one_daemon_does_so_for_a_bridge_s_request_for_a_submitted_job_and_for_a_batch(installed, tmp_path):
    asked, submitted, listed = (installed.song(name, seed) for seed, name in enumerate(("a", "b", "batch/c"), 2))
    request = {
        "schema": 2,
        "id": "bridge-1",
        "source": {"path": str(asked)},
        "output": str(tmp_path / "out"),
        "model": "mine",
        "delivery": {"residual": "drop"},
        "priority": "interactive",
        "deliver": {"track": "Mix"},
    }
    place = installed.settings.spool / "inbox" / "bridge-1"
    place.mkdir(parents=True)
    (place / "job.json.tmp").write_text(json.dumps(request))
    (place / "job.json.tmp").rename(place / "job.json")
    raw, out = ("--model", "mine", "--residual", "drop"), tmp_path / "out"
    with DaemonProcess(installed.settings, options=DaemonOptions()):
        until(lambda: living_daemon(installed.settings.spool))
        sent = run(installed.home, "submit", submitted, "--out", out, *raw)
        assert sent.returncode == 0, sent.stderr
        batch = run(installed.home, "batch", listed.parent, "--out", tmp_path / "b", "--preset", "none", *raw)
        assert batch.returncode == 0, batch.stderr
        done = installed.settings.spool / "done" / "bridge-1" / "result.json"
        until(lambda: done.is_file() and (out / "b" / "manifest.json").is_file())
    result = json.loads(done.read_text())
    assert result["state"] == "done" and result["deliver"] == {"track": "Mix"}, result
    assert [stem["name"] for stem in result["stems"]] == list(installed.network.config.stems)
    installed.check(asked, Path(result["folder"]))
    installed.check(submitted, out / "b")
    (entry,) = json.loads((tmp_path / "b" / "catalogue.json").read_text())["songs"]
    assert entry["state"] == "done" and len(entry["files"]) == len(installed.network.config.stems)
    installed.check(listed, tmp_path / "b" / entry["folder"])
