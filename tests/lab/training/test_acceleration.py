"""Compiled blocks: taken only when a child process has shown that they are right and faster, and given up on errors."""

from __future__ import annotations

import json
import sys
import time

import pytest
import torch
from torch import nn

from tsbs_daw.lab.training import acceleration
from tsbs_daw.lab.training.acceleration import BlockCompiler, try_compiled
from tsbs_daw.network import ModelConfig, TwoStageSeparator

SMALL = ModelConfig(chunk_s=0.5, feature_dim=16, d_state=16, headdim=16, mask_blocks=1, map_blocks=1)


class Child:
    """A child process that has ended, or still runs."""

    def __init__(self, status: int | None):
        self.status, self.killed = status, False

    def poll(self) -> int | None:
        return self.status

    def kill(self) -> None:
        self.killed = True

    def wait(self) -> None:
        pass


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler whose child's report is the test's own, for a network whose blocks say that they are compiled."""
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda block, **_: compiled.append(block))
    monkeypatch.setattr(acceleration.subprocess, "Popen", lambda *_, **__: Child(0))
    made = BlockCompiler(TwoStageSeparator(SMALL), [(22050, 2)], tmp_path, bfloat16=True)
    made.compiled = compiled
    return made


@pytest.mark.parametrize(("difference", "speedup", "taken"), [(0.01, 1.4, True), (0.2, 1.4, False), (0.01, 0.9, False)])
def test_blocks_are_compiled_where_the_report_says_right_and_faster(compiler, difference, speedup, taken):
    compiler.report.write_text(json.dumps({"difference": difference, "speedup": speedup}), encoding="utf-8")
    compiler.poll()
    assert compiler.active is taken
    assert compiler.compiled == (compiler.blocks if taken else [])


def test_without_a_report_the_blocks_stay_plain(compiler, caplog):
    compiler.poll()
    assert not compiler.active and not compiler.compiled
    assert "blocks are not compiled: the compiler failed; see" in caplog.text


def test_a_compiler_that_takes_too_long_is_ended(compiler, monkeypatch, caplog):
    child = compiler._child = Child(None)
    compiler.poll()
    assert not child.killed and not caplog.records
    monkeypatch.setattr(acceleration, "LIMIT_S", -1.0)
    compiler.poll()
    assert child.killed and not compiler.active
    assert "took more than" in caplog.text


def test_an_error_of_compiled_blocks_gives_plain_ones_back(compiler):
    compiler.active = True
    for block in compiler.blocks:
        block._compiled_call_impl = lambda *_: pytest.fail("still compiled")
    compiler.give_up(RuntimeError("an internal error of the compiler"))
    assert not compiler.active
    x = torch.zeros(SMALL.bands, 2, 4, SMALL.feature_dim)
    assert compiler.blocks[0](x, 2).shape == x.shape


def test_a_child_that_cannot_start_leaves_the_blocks_plain(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    compiler = BlockCompiler(TwoStageSeparator(SMALL), [(22050, 2)], tmp_path, bfloat16=False)
    compiler.poll()
    assert not compiler.active
    assert "blocks are not compiled" in caplog.text


def test_the_child_compares_output_and_gradients(monkeypatch):
    """With blocks that are not compiled, the two must be equal: what is compared is computed in the same way."""
    monkeypatch.setattr(nn.Module, "compile", lambda block, **_: None)
    monkeypatch.setattr(time, "perf_counter", iter(range(1000)).__next__)
    found = try_compiled(SMALL, [(8192, 1)], bfloat16=False, checkpointing=False, device="cpu")
    assert found["difference"] == 0.0
    assert found["speedup"] == 1.0
