"""The product's own doctor and training on a GPU."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf

pytestmark = pytest.mark.gpu


def test_the_doctor_finds_the_device_right(device, tmp_path):
    from tsbs_daw.doctor import probe

    findings = list(probe.device(None, "default", tmp_path))
    for finding in findings:
        print(finding["status"], finding["what"])
    assert all(finding["status"] != "problem" for finding in findings)
    assert any("cuda will be used" in finding["what"] for finding in findings)


def test_training_goes_on_where_it_stopped(device, tmp_path):
    songs, run = tmp_path / "songs", tmp_path / "run"
    for index, split in enumerate(("train", "train", "valid")):
        folder = songs / split / f"song {index}"
        folder.mkdir(parents=True)
        for place, stem in enumerate(("drums", "bass", "other", "vocals")):
            noise = 0.1 * np.random.default_rng(10 * index + place).standard_normal((6 * 44100, 2))
            sf.write(folder / f"{stem}.wav", noise, 44100)
    for steps, more in ((2, []), (4, ["--resume"])):
        changes = [f"optimiser.total_steps={steps}", "optimiser.batch=2", "optimiser.warmup_steps=1"]
        changes += ["validation.excerpts=2", "validation.every_steps=1000", "log.checkpoint_every_steps=2"]
        changes += ["validation.segment_s=3.0"]
        command = [sys.executable, "-m", "tsbs_daw", "train", "tiny-bundled", "--data", str(songs), "--out", str(run)]
        command += ["--device", "cuda", *(f"--set={change}" for change in changes), *more]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=80)
        assert ended.returncode == 0, ended.stderr[-3000:]
        assert f"{steps} steps are done" in ended.stdout
