"""The bench of the cluster: nothing of Ray outlives it, and its rows come as they are known."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from timeouts import PATIENCE_S

from tsbs_daw.lab.bench import groups
from tsbs_daw.lab.bench.cluster import Bench, processes_of
from tsbs_daw.lab.bench.groups import Options
from tsbs_daw.lab.bench.measure import GROUPS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Ray's clusters are for Linux")

# A process that starts what Ray might start: one that ignores every polite signal, one that starts another, and one
# that only its log gives away.
BENCH = """
import subprocess, sys
from tsbs_daw.lab.bench.cluster import kept_folder
sleep = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleep!r}])"
with kept_folder() as folder:
    for program in (sleep, parent):
        subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    with (folder / "log").open("w") as log:
        subprocess.Popen([sys.executable, "-c", sleep], start_new_session=True, env={}, stderr=log)
    print(folder, flush=True)
    if sys.stdin.readline():
        raise RuntimeError("measuring failed")
"""


def until_gone(folder: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while folder.exists() or processes_of(folder):
        assert time.monotonic() < end, f"there is still {folder}: {processes_of(folder)}"
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, "it fails", "it ends"])
def test_nothing_of_ray_outlives_the_bench(how: signal.Signals | str):
    command = [sys.executable, "-c", BENCH]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    bench = subprocess.Popen(command, text=True, **pipes)
    folder = Path(bench.stdout.readline().strip())
    end = time.monotonic() + PATIENCE_S
    while len(processes_of(folder)) < 4:
        assert time.monotonic() < end
        time.sleep(0.05)
    if isinstance(how, signal.Signals):
        os.kill(bench.pid, how)
    bench.communicate("now\n" if how == "it fails" else "")
    until_gone(folder)


def test_every_row_of_the_cluster_comes_before_the_next_measurement_begins(monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []

    def probe(name: str, folder: str, options: Options, **values: object) -> dict[str, object]:
        done.append(name)
        assert name == "song" or values["limit_s"] == groups.CLUSTER_S  # none takes for ever
        figures = dict.fromkeys(("local_s", "remote_s", "local_processor_s", "remote_processor_s", "bytes_per_s"), 1.0)
        return {"path": "song.wav", "songs_per_minute": 1.0, **figures}

    monkeypatch.setattr(groups, "probe", probe)
    pytest.importorskip("ray")
    known = {row.name: done.count("cluster") for row in GROUPS["cluster"].measure(Options())}
    assert [known[name] for name in ("cluster.short.overhead", "cluster.long.overhead", "cluster.1", "cluster.3")] == [
        1,
        2,
        3,
        5,
    ]


def test_no_measurement_finds_the_stems_of_another_in_the_cache(tmp_path: Path):
    request = {"folder": str(tmp_path), "song": "song.wav", "model": "default"}
    assert Bench(request).settings.cache != Bench(request).settings.cache
