"""What runs the proof, the figures and the training on a GPU machine, without a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
import torch.nn.functional as F

ROOT = Path(__file__).parents[1]


def tool(name: str):
    spec = importlib.util.spec_from_file_location(f"gpu_tool_{name}", ROOT / "tools" / "gpu" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def phases(tmp_path, monkeypatch):
    module = tool("phases")
    monkeypatch.setattr(module, "OUT", tmp_path)
    monkeypatch.setattr(module, "RUN", tmp_path / "run")
    return module


def is_running(pid: int) -> bool:
    """Whether a process that is no child of this one still computes."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_every_failed_test_of_the_proof_counts(phases, tmp_path):
    folder = tmp_path / "tests" / "gpu"
    folder.mkdir(parents=True)
    (folder / "conftest.py").write_text((ROOT / "tests/gpu/conftest.py").read_text(encoding="utf-8"), encoding="utf-8")
    tests = """
        import os, pytest
        @pytest.mark.parametrize("value", [1.0, 3.0])
        def test_a_measured(measured, value):
            measured("deviation", value, 2.0)
        def test_b_of_the_device(device):
            pass
        @pytest.fixture
        def broken():
            yield
            raise OSError("the end is broken")
        def test_c_that_breaks_at_its_end(broken):
            pass
        def test_d_that_is_cut():
            os._exit(1)
        def test_e():
            pass
    """
    (folder / "test_some.py").write_text(textwrap.dedent(tests), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [part for part in phases.proof(60.0, None) if part not in ("-m", "gpu", "pytest")]
    command[3:3] = ["-m", "pytest"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, cwd=tmp_path, env=environment, timeout=120, capture_output=True)
    found = phases.tests_of_proof()
    assert found["results"] == {
        "test_a_measured[1.0]": "passed",
        "test_a_measured[3.0]": "failed",
        "test_b_of_the_device": "skipped",
        "test_c_that_breaks_at_its_end": "failed",
        "test_d_that_is_cut": "not run",
        "test_e": "not run",
    }
    assert found["failed"] == ["test_a_measured[3.0]", "test_c_that_breaks_at_its_end"]
    assert (found["tests"], found["not run"]) == (6, ["test_d_that_is_cut", "test_e"])
    assert "there is no CUDA device" in found["reasons"]["test_b_of_the_device"]
    assert "the end is broken" in found["reasons"]["test_c_that_breaks_at_its_end"]
    assert found["measured"] == ["deviation: 1.00e+00 (limit 2e+00)", "deviation: 3.00e+00 (limit 2e+00)"]


@pytest.mark.skipif(sys.platform != "linux", reason="the tools run on Linux")
@pytest.mark.parametrize("deaf", [False, True], ids=["ends by itself", "has to be killed"])
def test_a_phase_that_is_cut_leaves_nothing_running(phases, tmp_path, deaf):
    program = f"""
        import signal, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
        if {deaf}: signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    """
    found = phases.run([sys.executable, "-c", textwrap.dedent(program)], 3.0)
    assert found == {"cut_after_s": 3.0}
    pid, began = int((tmp_path / "pid").read_text()), time.monotonic()
    while is_running(pid) and time.monotonic() - began < 5:
        time.sleep(0.05)
    assert not is_running(pid)


def test_a_last_line_that_was_cut_is_left_out(phases, tmp_path):
    (tmp_path / "figures.jsonl").write_text('{"name": "ceilings", "copy": 1}\n{"name": "fu', encoding="utf-8")
    assert phases.lines_of_figures() == {"figures": {"ceilings": {"copy": 1}}}


def test_the_rate_of_training_is_counted_between_rows(phases, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps({"optimiser": {"batch": 24, "accumulate": 2}}), encoding="utf-8")
    steps = ((1, 30.0), (20, 32.0), (41, 34.0))
    rows = [{"kind": "step", "step": step, "trained_s": trained_s} for step, trained_s in steps]
    rows.insert(1, {"kind": "validation", "step": 20, "mean_db": 3.0})
    (run / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = phases.files_of_training()
    assert found["examples_per_s"] == 40 * 24 * 2 / 4.0
    assert (found["steps"], len(found["validation"])) == (41, 1)


def test_songs_travel_as_vorbis_and_are_not_waited_for(phases, tmp_path):
    sound = 0.1 * np.random.default_rng(1).standard_normal((22050, 2)).astype(np.float32)
    for song in ("train/a", "train/b", "valid/c", "valid/d"):
        folder = tmp_path / "songs" / song
        folder.mkdir(parents=True)
        (folder / "song.json").write_text("{}", encoding="utf-8")
        for stem in ("drums", "bass", "other", "vocals", "mixture"):
            sf.write(folder / f"{stem}.wav", sound, 44100)
    carried = tmp_path / "carried"
    tool("carry_songs").main(tmp_path / "songs", carried, 1e7)
    names = {path.name for path in (carried / "valid" / "d").iterdir()}
    assert names == {"drums.ogg", "bass.ogg", "other.ogg", "vocals.ogg", "song.json"}
    assert sf.info(carried / "train" / "a" / "bass.ogg").frames == 22050
    began = time.monotonic()
    phases.wait_for_songs(carried, most_s=30.0)
    assert time.monotonic() - began < 1.0


PROGRAM = """
import contextlib, copy, sys, types
import torch
sys.path.insert(0, sys.argv[1])
import mamba_shim
from tsbs_daw.network import TINY, mamba2

# The operators ask for these.
torch.cuda.device = lambda index: contextlib.nullcontext()
torch.cuda.get_device_properties = lambda device: types.SimpleNamespace(multi_processor_count=2)
assert mamba_shim.install_if_missing() and mamba2.fused_available()

def ratio(found, wanted):
    return float((found.double() - wanted).norm() / wanted.norm())

torch.manual_seed(2)
layer = mamba2.Mamba2(TINY, 2)
projected = 0.5 * torch.randn(2, 1, 20, layer.in_proj.shape[1])
exact, ours = projected.double().requires_grad_(), projected.clone().requires_grad_()
wanted = copy.deepcopy(layer).double().mix(exact)
found = mamba2.fused_mix(ours, layer)
gradient = torch.randn_like(found)
wanted.backward(gradient.double())
found.backward(gradient)
errors = ratio(found, wanted), ratio(ours.grad, exact.grad)
assert max(errors) < 2e-5, errors
mamba_shim.remove()
assert not mamba2.fused_available()
"""
SOURCES = Path(os.environ.get("MAMBA_SRC", ROOT / ".gpu" / "mamba"))


@pytest.mark.skipif(not (SOURCES / "mamba_ssm").is_dir(), reason="mamba-ssm's sources are not here: see prepare.sh")
def test_mamba_ssm_from_its_sources_equals_the_plain_layer():
    environment = os.environ | {"TRITON_INTERPRET": "1", "MAMBA_SRC": str(SOURCES)}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(ROOT / "tools" / "gpu")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-2000:]


@pytest.mark.parametrize("silu", [False, True])
def test_the_convolution_beside_mamba_ssm_has_its_gradients(silu):
    shim, dice = tool("mamba_shim"), torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=dice) for shape in ((2, 8, 11), (8, 4), (8,)))
    found = shim.forward(x, weight, bias, None, None, None, silu)
    exact = [part.double().requires_grad_() for part in (x, weight, bias)]
    wanted = F.conv1d(F.pad(exact[0], (3, 0)), exact[1][:, None], exact[2], groups=8)
    wanted = F.silu(wanted) if silu else wanted
    torch.testing.assert_close(found, wanted.float())
    grad, grad_x = torch.randn(found.shape, generator=dice), torch.empty_like(x)
    *gradients, of_initial = shim.backward(x, weight, bias, grad, None, None, None, grad_x, False, silu)
    for ours, theirs in zip(gradients, torch.autograd.grad(wanted, exact, grad.double()), strict=True):
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-5)
    assert gradients[0] is grad_x
    assert of_initial is None
