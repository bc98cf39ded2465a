"""The product's own doctor and training on a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

pytestmark = pytest.mark.gpu


def test_the_doctor_finds_the_device_right(device, tmp_path):
    from tsbs_daw.core.config import Settings
    from tsbs_daw.doctor import probe

    settings = Settings(tmp_path, tmp_path / "cache", tmp_path / "models")
    findings = list(probe.device(settings, "default", tmp_path))
    for finding in findings:
        print(finding["status"], finding["what"])
    assert all(finding["status"] != "problem" for finding in findings)
    assert any("cuda will be used" in finding["what"] for finding in findings)


@pytest.fixture
def songs(tmp_path) -> Path:
    songs = tmp_path / "songs"
    for index, split in enumerate(("train", "train", "valid")):
        folder = songs / split / f"song {index}"
        folder.mkdir(parents=True)
        for place, stem in enumerate(("drums", "bass", "other", "vocals")):
            noise = 0.1 * np.random.default_rng(10 * index + place).standard_normal((6 * 44100, 2))
            sf.write(folder / f"{stem}.wav", noise, 44100)
    return songs


def test_a_step_of_training_does_not_wait_for_the_device(any_device, songs, tmp_path):
    """A step as the bundled model's recipe has it, Muon included. On a CPU only the step itself is tried."""
    from lightning_fabric import Fabric

    from tsbs_daw.lab.training.recipe import load_recipe
    from tsbs_daw.lab.training.trainer import RunOptions, Trainer

    changes = ["optimiser.batch=2", "optimiser.compile=false", "data.segment_s=1.0"]
    changes += ["validation.excerpts=2", "validation.segment_s=1.0"]
    on_cuda = any_device.type == "cuda"
    recipe = load_recipe("bundled", changes if on_cuda else [*changes, "model.overrides.feature_dim=16"])
    fabric = Fabric(accelerator=any_device.type, devices=1, precision="bf16-mixed" if on_cuda else "32-true")
    fabric.launch()
    trainer = Trainer(fabric, recipe, RunOptions(songs, tmp_path / "run"), report=lambda row: None)
    try:
        before = [parameter.detach().clone() for parameter in trainer.parameters]
        for _ in range(2):  # torch and cuBLAS set themselves up
            trainer._step()
        if on_cuda:
            torch.cuda.set_sync_debug_mode("error")
        for _ in range(2):
            trainer._step()
    finally:
        if on_cuda:
            torch.cuda.set_sync_debug_mode("default")
        trainer.sources.close()
    same = [torch.equal(*pair) for pair in zip(before, trainer.parameters, strict=True)]
    assert not any(same)
    assert all(parameter.isfinite().all() for parameter in trainer.parameters)


def test_training_goes_on_where_it_stopped(device, songs, tmp_path):
    run = tmp_path / "run"
    for steps, more in ((2, []), (4, ["--resume"])):
        changes = [f"optimiser.total_steps={steps}", "optimiser.batch=2", "optimiser.warmup_steps=1"]
        changes += ["validation.excerpts=2", "validation.every_steps=1000", "log.checkpoint_every_steps=2"]
        changes += ["validation.segment_s=3.0", "optimiser.compile=false"]
        command = [sys.executable, "-m", "tsbs_daw", "train", "tiny-bundled", "--data", str(songs), "--out", str(run)]
        command += ["--device", "cuda", *(f"--set={change}" for change in changes), *more]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=80)
        assert ended.returncode == 0, ended.stderr[-3000:]
        assert f"{steps} steps are done" in ended.stdout
