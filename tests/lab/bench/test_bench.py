"""Every row of the benchmark can be measured. How good the figures are is for the benchmark itself to say."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tsbs_daw.cli.doctor import bench
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import TsbsDawError, UnknownModel, UsageError
from tsbs_daw.lab.bench import networks, probe
from tsbs_daw.lab.bench.groups import Options, Row
from tsbs_daw.lab.bench.measure import GROUPS, measure
from tsbs_daw.lab.bench.networks import _share_of_products, count_macs
from tsbs_daw.network import TINY, TwoStageSeparator
from tsbs_daw.network.checkpoint import save


@pytest.fixture(scope="module")
def smallest_model(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("models") / "smallest.safetensors"
    config = replace(TINY, feature_dim=16, mask_blocks=1, map_blocks=1, d_state=4, headdim=16)
    save(TwoStageSeparator(config), path)
    return str(path)


@pytest.fixture
def _home(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TSBS_DAW_HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("_home")
def test_every_row_is_measured_and_each_is_a_number(smallest_model, tmp_path):
    rows = list(measure(Options(model=smallest_model, quick=True)))
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
    expected = {row for group in GROUPS.values() if not group.long for row in group.rows}
    if sys.platform != "linux":
        expected -= {"daemon.cpu", "daemon.memory", "daemon.worker", "memory.short", "memory.long", "memory.growth"}
    assert expected <= set(names)
    assert {"separate.decode", "separate.separate", "separate.write"} <= set(names)
    assert all(math.isfinite(row.figure) and row.figure >= 0 and row.what and row.unit for row in rows)
    assert not Settings.from_environment().spool.exists(), "measuring must not touch the user's own spool"


@pytest.mark.usefixtures("_home")
def test_one_row_can_be_asked_for_and_the_report_says_where_it_was_measured(capsys):
    assert bench(only=["start.help"], quick=True, as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in report["rows"]] == ["start.help"]
    assert report["machine"]["cores"] >= 1 and report["versions"]["torch"] and report["date"]
    assert report["rows"][0]["target"] == 0.3


def test_a_row_that_does_not_exist_is_wrong_use():
    with pytest.raises(UsageError, match="choose from"):
        list(measure(Options(only=("memory.huge",))))


@pytest.mark.usefixtures("_home")
def test_what_fails_in_its_process_is_said_here(tmp_path):
    with pytest.raises(UnknownModel, match="did you mean"):
        list(measure(Options(model="defualt", only=("network",), quick=True)))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no model")
    with pytest.raises(TsbsDawError, match="Cannot read the model"):
        list(measure(Options(model=str(broken), only=("network",), quick=True)))


def test_a_target_is_met_or_missed_in_its_own_direction():
    fast, slow = (Row("a", "", figure, "x real time", 4.0, True) for figure in (8.0, 2.0))
    assert fast.ok and fast.ratio == 2.0 and not slow.ok and slow.ratio == 0.5
    small, large = (Row("a", "", figure, "MB", 150.0) for figure in (75.0, 300.0))
    assert small.ok and small.ratio == 2.0 and not large.ok and large.ratio == 0.5
    assert Row("a", "", 3.0, "s").ok is None and Row("a", "", 0.0, "%", 1.0).ok


def test_multiply_adds_are_counted_as_on_paper():
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    assert count_macs(lambda: a @ b) == 3 * 5 * 7
    convolution = torch.nn.Conv1d(4, 6, kernel_size=3)
    assert count_macs(lambda: convolution(torch.zeros(2, 4, 10))) == 2 * 6 * 8 * 4 * 3
    stacked = torch.zeros(9, 3, 5)
    assert count_macs(lambda: torch.einsum("gbi,gio->gbo", stacked, torch.zeros(9, 5, 7))) == 9 * 3 * 5 * 7


def test_the_picture_shows_each_figure_as_a_speed(tmp_path):
    script = Path(__file__).parents[3] / "tools" / "speed_picture.py"
    spec = spec_from_file_location("speed_picture", script)
    picture = module_from_spec(spec)
    spec.loader.exec_module(picture)
    rows = [{"name": "separate.factor", "figure": 0.1}, {"name": "sizes.full.bfloat16.speed", "figure": 0.5}]
    rows.append({"name": "peers.htdemucs", "figure": 0.5})
    report = {"rows": rows, "date": "2026-01-01T00:00:00", "machine": {"cores": 2, "processor": "a processor"}}
    assert list(picture.speeds(report).items()) == [
        ("bundled model, file to session", 10.0),
        ("HTDemucs", 2.0),
        ("full model, bfloat16", 0.5),
    ]
    picture.draw(report, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_networks_in_turn_are_measured_per_second_of_audio():
    from tsbs_daw.lab.bench.networks import time_in_turn

    turns = []
    runs = {"long": (lambda: turns.append("long"), 10.0), "short": (lambda: turns.append("short"), 1.0)}
    found = time_in_turn(runs, torch.device("cpu"), rounds=3)
    assert turns == ["long", "short"] * 4  # one to warm up
    assert set(found) == {"long", "short"} and all(value >= 0 for value in found.values())


def test_a_network_s_own_arithmetic_is_that_of_the_plain_network():
    from tsbs_daw.lab.bench.networks import own_macs, random_chunk, random_network

    device = torch.device("cpu")
    network, chunk = random_network(TINY, device), random_chunk(TINY, device)
    with torch.inference_mode():
        assert own_macs(TINY) == count_macs(lambda: network(chunk))


def test_on_cuda_only_kernels_count_and_the_products_among_them_are_known():
    from torch.autograd import DeviceType

    def event(key: str, kind: DeviceType, time_us: float) -> SimpleNamespace:
        return SimpleNamespace(key=key, device_type=kind, self_device_time_total=time_us, self_cpu_time_total=1.0)

    events = [
        event("aten::mm", DeviceType.CPU, 30.0),  # the same time as its kernel's
        event("nvjet_tst_128x256_64x4", DeviceType.CUDA, 30.0),
        event("aten::add", DeviceType.CPU, 10.0),
        event("vectorized_elementwise_kernel", DeviceType.CUDA, 10.0),
    ]
    assert _share_of_products(events, "cuda") == pytest.approx(0.75)
    events = [
        event("scan_kernel", DeviceType.CUDA, 20.0),
        event("output_kernel", DeviceType.CUDA, 10.0),
        event("norm_kernel", DeviceType.CUDA, 10.0),
    ]
    assert _share_of_products(events, "cuda") == pytest.approx(0.75)


@pytest.mark.usefixtures("_home")
def test_without_a_gpu_its_group_has_no_rows():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert not list(measure(Options(quick=True, only=("gpu",))))


def test_arithmetic_that_the_counter_cannot_see_counts(monkeypatch, smallest_model):
    monkeypatch.setattr(networks, "count_macs", lambda run: 0)  # as for Triton's kernels
    monkeypatch.setattr(networks, "own_macs", lambda config: 300)
    found = probe.network({"model": smallest_model, "device": "cpu", "quick": True})
    assert found["macs_per_s_of_audio"] == pytest.approx(100)


@pytest.mark.parametrize(("device", "precision"), [("cpu", "float32"), ("cuda", "auto")])
def test_networks_are_compared_as_songs_are_separated_on_cuda(monkeypatch, device, precision):
    asked = []

    def engine(network, device, *, precision="auto"):
        asked.append(precision)
        return SimpleNamespace(run=None)

    monkeypatch.setattr(networks, "Engine", engine)
    monkeypatch.setattr(networks, "random_network", lambda config, device: None)
    monkeypatch.setattr(networks, "random_chunk", lambda config, device: None)
    monkeypatch.setattr(networks, "as_reference", lambda network: None)
    monkeypatch.setattr(networks, "time_in_turn", lambda runs, device, rounds: {})
    monkeypatch.setattr(networks, "installed", list)
    kind = SimpleNamespace(config=lambda values: TINY, build=lambda config: None, title="", package="")
    monkeypatch.setattr(networks, "KINDS", {"other": kind})
    peer = networks._peer(SimpleNamespace(name="other", network="other", values=dict))
    chosen = torch.device(device)
    networks.time_peers(chosen, 1, quick=True)
    networks.time_reference(chosen, 1, quick=True)
    assert peer.build(chosen)[1] == 3.0
    assert asked == [precision] * 3
