"""Packages for GPUs that are there and broken cost a line in the log, not the separation."""

from __future__ import annotations

import logging
import sys

import pytest
import torch

from tsbs_daw.network import mamba2


@pytest.fixture(autouse=True)
def asked_anew():
    mamba2._fused_kernel.cache_clear()
    yield
    mamba2._fused_kernel.cache_clear()


@pytest.mark.parametrize(
    "code",
    [
        "raise AttributeError('triton has no attribute')",
        "raise RuntimeError('0 active drivers')",
        "raise OSError('libcudart.so.11: cannot open shared object file')",
        "import selective_scan_cuda_that_was_never_built",
    ],
)
def test_a_broken_mamba_ssm_is_told_once_and_not_used(tmp_path, monkeypatch, caplog, code):
    for name in ("causal_conv1d", "mamba_ssm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert not mamba2.fused_available() and not mamba2.fused_available()
    [record] = caplog.records
    assert record.getMessage().startswith("mamba-ssm is installed but cannot be used (")


def test_a_missing_mamba_ssm_is_no_news(caplog):
    if mamba2.fused_available():
        pytest.skip("it is installed")
    mamba2._fused_kernel.cache_clear()
    assert not mamba2.fused_available() and not caplog.records


def test_it_is_used_only_where_it_was_asked_for(monkeypatch):
    """Training, for one, does not ask: the first call of the kernels tunes itself for a minute."""

    class OnCuda:
        is_cuda, dtype = True, torch.float32

    monkeypatch.setattr(mamba2, "fused_available", lambda: True)
    assert not mamba2.fuses(OnCuda())
    with mamba2.fused_kernels(True):
        assert mamba2.fuses(OnCuda())
        with mamba2.fused_kernels(False):
            assert not mamba2.fuses(OnCuda())
    assert not mamba2.fuses(OnCuda())


def test_short_sequences_are_not_padded_to_256():
    assert [mamba2._fused_chunk_size(length) for length in (33, 57, 64, 130, 259)] == [64, 64, 64, 128, 128]
