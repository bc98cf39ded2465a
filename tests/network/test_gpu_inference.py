"""The kernels for GPUs, in Triton's interpreter: they compute what the plain blocks compute.

The interpreter is chosen when a kernel is defined, so the tests run in a process of their own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tsbs_daw.network import FULL, LITE, TINY

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

# float64 in the plain block against the kernels' float32, as a ratio of norms of what the block adds.
PROGRAM = """
import copy, sys
from dataclasses import replace
import torch
from tsbs_daw.network import TINY
from tsbs_daw.network.blocks import SequenceUnit, TransformAverageConcatenate
from tsbs_daw.network.gpu_inference import KernelChannelStep, KernelSequenceUnit

def check(found, wanted, x, limit=2e-6):
    error = float((found - wanted).norm() / (wanted - x).norm())
    assert error < limit, error

bidirectional, length, activation = sys.argv[1] == "both", int(sys.argv[2]), sys.argv[3]
config = replace(TINY, feature_dim=16, headdim=16, bidirectional=bidirectional)
torch.manual_seed(0)
unit, step = SequenceUnit(config).eval(), TransformAverageConcatenate(16, activation).eval()
for parameter in (*unit.parameters(), *step.parameters()):
    parameter.data += 0.1 * torch.randn_like(parameter)
with torch.inference_mode():
    kernels, exact = KernelSequenceUnit(unit, torch.float32), copy.deepcopy(unit).double()
    x = torch.randn(1, 2, length, 16)  # along the frames, as the time step goes
    found = x.clone()
    kernels(found, 2, (length * 16, 16))
    check(found[0], exact(x[0].double()), x[0])
    x = torch.randn(length, 1, 2, 16)  # along the bands
    found = x.clone()
    kernels(found, 2, (16, 2 * 16))
    check(found[:, 0].transpose(0, 1), exact(x[:, 0].transpose(0, 1).double()), x[:, 0].transpose(0, 1))
    short = torch.randn(1, 1, 20, 16)
    found = short.clone()
    KernelSequenceUnit(unit, torch.float16)(found, 1, (20 * 16, 16))  # of bfloat16 the interpreter makes garbage
    check(found[0], exact(short[0].double()), short[0], 2e-3)
    x = torch.randn(1, 2, 5, 16)
    found = x.clone()
    KernelChannelStep(step, torch.float32)(found, 2)
    check(found, step.double()(x.double(), 2), x)
"""


@pytest.mark.parametrize(("directions", "length", "activation"), [("both", 70, "tanh"), ("one", 1, "prelu")])
def test_the_kernels_equal_the_plain_steps(directions, length, activation):
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "ignore::RuntimeWarning", "-c", PROGRAM, directions, str(length), activation]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_the_tests_for_a_gpu_run_in_the_interpreter(tmp_path):
    """The whole network with either activation; what needs a device is skipped."""
    rows = tmp_path / "proof.jsonl"
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "GPU_PROOF": str(rows)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    command += [str(Path(__file__).parents[1] / "gpu" / "test_1_network.py"), f"--basetemp={tmp_path / 'pytest'}"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stdout[-3000:]
    outcomes = [json.loads(line)["outcome"] for line in rows.read_text(encoding="utf-8").splitlines()]
    assert (outcomes.count("passed"), outcomes.count("skipped")) == (8, 1)


def test_every_shipped_size_can_be_computed_by_the_kernels():
    from tsbs_daw.network.gpu_inference import supports

    assert all(supports(config) for config in (FULL, LITE, TINY))
    assert not supports(replace(TINY, d_state=8))
    assert not supports(replace(TINY, feature_dim=48, headdim=32))
