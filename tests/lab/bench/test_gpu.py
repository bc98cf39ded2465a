"""The benchmark of a GPU, run on the processor: its rows, their order, what is counted, and what failures cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from tsbs_daw.cli.doctor import bench
from tsbs_daw.core.errors import TsbsDawError
from tsbs_daw.lab.bench import gpu, groups, networks, probe
from tsbs_daw.lab.bench.groups import Options
from tsbs_daw.lab.bench.networks import SIZES, random_network
from tsbs_daw.separation import devices
from tsbs_daw.separation.forms import Form

SMALL = replace(SIZES["tiny"], chunk_s=0.5, feature_dim=16, headdim=16, mask_blocks=1)


@pytest.fixture
def one_step(monkeypatch):
    """Every timed call is made once, and takes half a second."""

    def timed(step, device, budget_s=0.5):
        step()
        return 0.5

    monkeypatch.setattr(gpu, "_median_s", timed)


def test_a_step_of_training_moves_every_weight(monkeypatch, one_step):
    pytest.importorskip("lightning_fabric")
    network = random_network(SMALL, torch.device("cpu"))
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    monkeypatch.setattr(gpu, "random_network", lambda config, device: network)
    assert gpu.training(SMALL, torch.device("cpu"), batch=2) == {"name": "training.2", "examples_per_s": 4.0}
    still = [name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])]
    assert not still


def test_a_step_that_fails_is_told_in_its_row(monkeypatch, one_step):
    def fail(config, device):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(gpu, "random_network", fail)
    row = gpu.training(SMALL, torch.device("cpu"), batch=2)
    assert "no kernel image" in row["error"]
    assert "examples_per_s" not in row


def test_a_failed_row_says_why_and_the_others_have_their_figures(monkeypatch, capsys):
    def probe(name, folder, options, *, file):
        rows = [
            {"name": "full.mamba-ssm.bfloat16.16", "error": "mamba-ssm is not installed"},
            {"name": "full.kernels graphed.bfloat16.1", "ms": 2.0, "off": 2e-4, "first_s": 9.0},
        ]
        Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    monkeypatch.setattr(groups, "probe", probe)
    assert bench(only=["gpu"]) == 0
    failed, *others = capsys.readouterr().out.splitlines()[1:]
    assert failed.split()[:2] == ["gpu.full.mamba-ssm.bfloat16.16", "-"]
    assert failed.endswith("failed: mamba-ssm is not installed")
    assert ["gpu.full.kernels-graphed.bfloat16.1.off", "0.0002"] in [line.split()[:2] for line in others]


def test_a_gpu_that_is_lost_costs_the_rows_that_were_not_measured_alone(monkeypatch, tmp_path):
    def rows(device, quick):
        yield {"name": "ceilings", "copy_tb_per_s": 3.0}
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def in_a_child(name, folder, options, **values):
        try:
            getattr(probe, name)({"device": "cuda", "quick": True, **values})
        except RuntimeError:
            raise TsbsDawError("Measuring gpu ended early") from None

    monkeypatch.setattr(gpu, "measure", rows)
    monkeypatch.setattr(devices, "choose_device", torch.device)
    monkeypatch.setattr(groups, "probe", in_a_child)
    found = groups._gpu(Options(quick=True))
    assert next(found).figure == 3.0
    with pytest.raises(TsbsDawError, match="ended early"):
        next(found)


def test_the_most_important_rows_come_first(monkeypatch):
    class Size:
        def __init__(self, name, *_):
            self.name = name

        def rows(self, kinds):
            return ({"name": f"{self.name}.{form}"} for form, *_ in kinds)

        def profile(self, name, *_):
            return {"name": f"{self.name}.profile"}

    monkeypatch.setattr(gpu, "_SizeOnDevice", Size)
    for name in ("ceilings", "song_from_file_to_session", "training", "quality"):
        monkeypatch.setattr(gpu, name, lambda *_, name=name: {"name": name})
    rows = gpu.measure(torch.device("cuda"), quick=True)
    names = list(dict.fromkeys(row["name"] for row in rows))
    kernels_first = ["ceilings", "full.kernels", "full.mamba-ssm"]
    assert names[:7] == [*kernels_first, "song_from_file_to_session", "training", "quality", "tiny.kernels"]


def test_multiply_adds_are_counted_once_for_a_size(monkeypatch):
    counted = []
    monkeypatch.setattr(networks, "count_macs", lambda run: counted.append(run) or 7)
    config, reachable = replace(SMALL, chunk_s=0.25), {"float32_tflop_per_s": 7e-12}
    size = gpu._SizeOnDevice("tiny", config, torch.device("cpu"), True, reachable)
    rows = list(size.rows([("plain", torch.float32, False, batch) for batch in (1, 2)]))
    assert len(counted) == 1
    assert [row["macs_per_s"] * row["ms"] / 1e3 for row in rows] == pytest.approx([7, 14])
    assert [row["reached"] * row["ms"] / 1e3 for row in rows] == pytest.approx([200, 400]), "2 flops for each of 7 macs"


def test_the_quality_of_each_format_is_that_of_its_estimates(monkeypatch):
    def form(network, name, dtype, tf32):
        exact = Form("plain", network)
        return exact if dtype == torch.float32 else lambda mixture: 0 * exact(mixture)

    monkeypatch.setattr(gpu, "_form", form)
    row = gpu.quality(torch.device("cpu"), quick=True)
    assert row["float32_sdr_db"] > 2, "the bundled model separates"
    assert row["tf32_sdr_db"] == row["float32_sdr_db"]
    assert row["bfloat16_sdr_db"] == pytest.approx(0), "silence"
    lost = next(row for row in groups._rows_of_gpu(row) if row.name == "gpu.quality.sdr_lost_db")
    assert lost.figure == pytest.approx(row["float32_sdr_db"]) and lost.ok is False


def test_only_kernels_are_counted_as_launches():
    def event(key, kind, count):
        return SimpleNamespace(key=key, device_type=kind, count=count)

    events = [event("cudaLaunchKernel", DeviceType.CPU, 5), event("scan_kernel", DeviceType.CUDA, 5)]
    assert [kernel.key for kernel in networks.kernels_of(events)] == ["scan_kernel"]


def test_batches_of_every_size_begin_with_the_chunk_that_is_compared():
    one, three = (gpu._chunks(SMALL, batch, torch.device("cpu")) for batch in (1, 3))
    assert torch.equal(one[0], three[0])
    assert not torch.equal(three[1], three[2])


def test_a_rehearsal_on_the_cpu_measures_every_row(monkeypatch):
    """With the plain network for the kernels, which need Triton's interpreter here."""
    form = gpu._form
    monkeypatch.setattr(
        gpu, "_form", lambda network, name, *format_: form(network, name.replace("kernels", "plain"), *format_)
    )
    monkeypatch.setattr(gpu, "quality", lambda device, quick: {"name": "quality"})
    rows = list(gpu.measure(torch.device("cpu"), quick=True))
    assert [row for row in rows if "error" in row] == []
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names)) == 22
    assert all(row["off"] < 1e-5 for row in rows if "off" in row)
