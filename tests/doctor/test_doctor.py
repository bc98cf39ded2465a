"""The doctor finds what is broken, says what to do, and survives everything it looks at."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from golden_weights import CASE_B

from tsbs_daw import doctor
from tsbs_daw.contracts.job import Heartbeat
from tsbs_daw.core.config import Settings
from tsbs_daw.doctor import Finding, Report, Status, examine
from tsbs_daw.doctor.probe import CORE
from tsbs_daw.network import TwoStageSeparator
from tsbs_daw.network.checkpoint import save
from tsbs_daw.queue.spool import Spool


@pytest.fixture
def settings(tmp_path) -> Settings:
    home = tmp_path / "home"
    return Settings(home, home / "cache", home / "models")


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    save(TwoStageSeparator(CASE_B.config), path)
    return path


def found(findings, topic: str) -> list[Finding]:
    return [finding for finding in findings if finding.topic == topic]


def broken_package(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)


def test_on_a_machine_that_works_the_command_says_so_in_json_and_ends_with_0(tmp_path, small_model):
    ended = subprocess.run(
        [sys.executable, "-m", "tsbs_daw", "doctor", "--json", "--model", str(small_model)],
        env=os.environ | {"TSBS_DAW_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    report = json.loads(ended.stdout)
    problems = [finding for finding in report["findings"] if finding["status"] == "problem"]
    assert not problems and report["ok"] and ended.returncode == 0
    told = {finding["topic"]: finding["what"] for finding in report["findings"]}
    assert "separated into one, two" in told["job"]
    assert "a small network on" in told["device"]
    assert report["machine"]["cores"] >= 1
    assert not (tmp_path / "home" / "spool").exists(), "the tiny job must not touch the user's own spool"


def test_a_missing_model_is_a_problem_with_a_way_out_and_the_command_ends_with_1(settings):
    findings = list(doctor._probe("job", settings, "musdb18"))
    assert [finding.status for finding in findings] == [Status.PROBLEM]
    assert "models pull musdb18" in findings[0].what
    assert not Report(tuple(findings)).ok


def test_folders_that_cannot_be_written_are_problems_and_the_rest_is_still_looked_at(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    home = tmp_path / "file" / "home"
    monkeypatch.setattr(doctor, "_probe", lambda name, settings, model: iter(()))
    findings = list(examine(Settings(home, home / "cache", home / "models")))
    assert {finding.status for finding in found(findings, "folders")} == {Status.PROBLEM}
    assert "TSBS_DAW_HOME" in found(findings, "folders")[0].advice
    assert found(findings, "memory") and found(findings, "daemon") and found(findings, "REAPER")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise ImportError('libcudart.so is missing')", "libcudart.so is missing"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
    ids=["does not import", "crashes", "exits"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals end processes differently there")
def test_a_broken_torch_is_found_and_does_not_take_the_doctor_with_it(settings, tmp_path, monkeypatch, code, told):
    broken_package(tmp_path / "broken", "torch", code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    for probe in ("imports", "device", "job"):
        findings = list(doctor._probe(probe, settings, "default"))
        problems = [finding for finding in findings if finding.status is Status.PROBLEM]
        assert any(told in finding.what for finding in problems)
        assert all(finding.advice for finding in problems)


def test_a_broken_audio_library_is_named(settings, tmp_path, monkeypatch):
    broken_package(tmp_path / "broken", "soundfile", "raise OSError('sndfile library not found')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    [problem] = doctor._probe("imports", settings, "default")
    assert problem.status is Status.PROBLEM and problem.what.startswith("soundfile cannot be imported")


def test_a_probe_that_hangs_is_ended(settings, tmp_path, monkeypatch):
    broken_package(tmp_path / "broken", "torch", "import time; time.sleep(100)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    monkeypatch.setattr(doctor, "PROBE_LIMIT_S", 1.0)
    [problem] = doctor._probe("device", settings, "default")
    assert problem.status is Status.PROBLEM and "within 1 s" in problem.what


def test_a_check_that_fails_in_an_unforeseen_way_is_itself_a_finding():
    def check():
        yield Finding("x", Status.OK, "half of it works")
        raise ZeroDivisionError("nobody thought of this")

    findings = list(doctor._caught("x", check))
    assert [finding.status for finding in findings] == [Status.OK, Status.PROBLEM]
    assert "nobody thought of this" in findings[1].what


def test_a_living_daemon_is_seen_and_a_dead_one_is_not(settings):
    assert next(doctor._daemon(settings)).status is Status.NOTE
    spool = Spool(settings.spool)
    spool.create()
    spool.write_heartbeat(Heartbeat(schema=1, pid=4242, version="9", updated_unix_s=time.time()))
    assert "4242" in next(doctor._daemon(settings)).what
    spool.write_heartbeat(Heartbeat(schema=1, pid=4242, version="9", updated_unix_s=time.time() - 60))
    assert next(doctor._daemon(settings)).status is Status.NOTE


def test_locks_are_tried_between_two_processes(settings):
    settings.home.mkdir()
    assert next(doctor._locks(settings)).status is Status.OK


def test_little_memory_and_little_space_are_problems(settings, monkeypatch):
    monkeypatch.setattr(doctor.machine, "memory_bytes", lambda: (8_000_000_000, 500_000_000))
    assert next(doctor._memory()).status is Status.PROBLEM
    monkeypatch.setattr(doctor, "NEEDED_DISK_BYTES", 1 << 60)
    assert all(finding.status is Status.PROBLEM and finding.advice for finding in doctor._space(settings))


def test_every_needed_package_of_the_metadata_is_imported_by_the_probe():
    needed = [line for line in importlib.metadata.requires("tsbs-daw") if "extra ==" not in line]
    names = {re.match(r"[A-Za-z0-9_-]+", line)[0].lower() for line in needed}
    assert names == {"pyyaml" if name == "yaml" else name for name in CORE}


def test_an_accelerator_that_does_not_compute_is_named_with_its_reason(monkeypatch, tmp_path, settings):
    import torch

    from tsbs_daw.doctor import probe
    from tsbs_daw.separation import devices

    def fails(device):
        if device.type == "meta":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        return 1e-7

    devices.failure.cache_clear()
    monkeypatch.setattr(devices, "accelerators", lambda: iter([torch.device("meta")]))
    monkeypatch.setattr(devices, "product_difference", fails)
    findings = list(probe.device(settings, "default", tmp_path))
    devices.failure.cache_clear()
    named = [finding for finding in findings if finding["what"].startswith("meta failed its check")]
    assert "no kernel image" in named[0]["what"] and named[0]["advice"]
    assert any(f["what"] == "cpu will be used: no accelerator computes correctly" for f in findings)


def test_the_device_that_the_user_named_is_the_one_that_is_reported(monkeypatch, tmp_path, settings):
    import torch

    from tsbs_daw.doctor import probe
    from tsbs_daw.separation import devices

    monkeypatch.setattr(devices, "accelerators", lambda: [torch.device("cuda:0")])
    monkeypatch.setattr(devices, "failure", lambda device: None)
    told = [finding["what"] for finding in probe.device(replace(settings, device="cpu"), "default", tmp_path)]
    assert "cpu will be used: TSBS_DAW_DEVICE is cpu" in told


def test_locks_in_a_home_that_cannot_be_written_are_a_problem_of_its_permissions(settings):
    settings.home.write_text("a file")
    (finding,) = doctor._locks(settings)
    assert finding.status is Status.PROBLEM
    assert finding.what.startswith("Cannot create a file in ") and "permissions" in finding.advice


def test_what_a_form_lacks_is_told_with_the_missing_step(monkeypatch, settings, small_model):
    import torch

    from tsbs_daw.doctor import probe
    from tsbs_daw.separation import forms

    def choose(network, device, precision, cache, patient):
        tried.append((cache, patient))
        forms.log.warning("the kernels form cannot be used here (OutOfResources)")
        return forms.Form("plain", network, alone=forms.Form("kernels", network))

    tried: list[tuple] = []
    monkeypatch.setattr(forms, "choose_form", choose)
    findings = list(probe._forms(settings, str(small_model), torch.device("cuda")))
    assert [finding["status"] for finding in findings] == ["ok", "ok", "note"]
    assert findings[0]["what"] == f"the model {small_model} runs as plain in float32; single chunks as kernels"
    assert "a full-size network runs as plain in float32" in findings[1]["what"]
    assert findings[2]["what"] == "the kernels form cannot be used here (OutOfResources)" and findings[2]["advice"]
    assert tried == [(settings.cache, True), (settings.cache, False)], "mamba-ssm is measured for the model alone"


@pytest.mark.parametrize("reason", ["is installed but cannot be used (undefined symbol)", "causal-conv1d is missing"])
def test_why_mamba_ssm_is_not_used_is_told(monkeypatch, settings, small_model, reason):
    import importlib.util

    import torch

    from tsbs_daw.doctor import probe
    from tsbs_daw.network import mamba2
    from tsbs_daw.separation import forms

    def choose(network, *others, patient):
        if "symbol" in reason:
            mamba2.log.warning("mamba-ssm %s", reason)
        return forms.Form("plain", network)

    monkeypatch.setattr(forms, "choose_form", choose)
    monkeypatch.setattr(mamba2, "_fused_kernel", lambda: None)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "mamba_ssm" or find(name))
    [note] = [found for found in probe._forms(settings, str(small_model), torch.device("cuda")) if found["advice"]]
    assert reason in note["what"] and note["status"] == "note"


def test_packages_for_other_systems_are_not_missing(monkeypatch):
    wanted = [
        "numpy>=1.26",
        "no-such-package>=3; (platform_system == 'Elsewhere') and extra == 'cuda'",
        "no-such-package-here; (platform_system != 'Elsewhere') and extra == 'media'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    told = [finding.what for finding in doctor._packages() if finding.status is Status.NOTE]
    assert told == ["[media] is incomplete: missing no-such-package-here"]


def test_the_missing_step_is_named_in_the_order_of_installing(monkeypatch):
    import importlib.util

    from tsbs_daw.doctor import probe

    there: set[str] = set()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in there else None)
    monkeypatch.setattr(probe.shutil, "which", lambda name: name if name in there else None)
    monkeypatch.setattr(probe.sys, "platform", "linux")
    monkeypatch.delenv("CC", raising=False)
    for part, words in (("triton", "pip install triton"), ("gcc", "C compiler"), ("mamba_ssm", "an alternative")):
        assert words in probe._missing_step()
        there.add(part)
    assert "--no-build-isolation causal-conv1d" in probe._missing_step()


@pytest.mark.parametrize(
    ("available", "driver", "cuda", "hip", "status", "told"),
    [
        (True, True, "13.0", None, "ok", "a card, 80 GB, CUDA 13.0"),
        (True, False, None, "6.4", "ok", "a card, 80 GB, ROCm 6.4"),
        (False, False, None, "6.4", "ok", "torch was built for ROCm 6.4, but finds no AMD GPU"),
        (False, True, None, None, "note", "this torch was built without CUDA"),
        (False, True, "13.0", None, "note", "torch's CUDA 13.0 cannot use it"),
        (False, False, "13.0", None, "ok", "no NVIDIA driver is installed"),
        (False, False, None, None, "ok", "for the CPU"),
    ],
)
def test_what_torch_was_built_for_is_told(monkeypatch, available, driver, cuda, hip, status, told):
    import types

    import torch

    from tsbs_daw.doctor import probe
    from tsbs_daw.separation import devices

    monkeypatch.setattr(devices, "nvidia_driver", lambda: driver)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "a card")
    card = types.SimpleNamespace(total_memory=80e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    [finding] = probe._cuda(torch)
    assert finding["status"] == status and told in finding["what"]
    assert bool(finding["advice"]) == (status == "note")
