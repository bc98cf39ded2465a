"""Proof, figures and training on one GPU, each in a process with its own limit; results are written after each.

Run by run.sh. A phase that fails or overruns costs itself only. Files under $OUT: summary.json, log.txt (what the
phases wrote), figures.jsonl, profile.txt, bundled.safetensors, train.curve.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

LIMITS = {"proof": 90.0, "figures": 60.0, "train": 600.0}  # seconds at most
RESERVE_S = 8.0  # at the end, to pack up; and between the training's own end and its limit
TRAIN = (
    "{python} -m tsbs_daw train bundled --data {songs} --out {run} --device {device} --minutes {minutes} "
    "--export {export}"
)
OUT = Path(os.environ.get("OUT", "out/gpu")).absolute()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--songs", required=True)
    parser.add_argument("--budget", type=float, default=510.0)
    parser.add_argument("--only", default=",".join(LIMITS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="shows that everything runs, not how fast")
    options = parser.parse_args()
    began = float(os.environ.get("STARTED", time.time()))
    summary: dict[str, dict] = {}
    for name in options.only.split(","):
        left = options.budget - (time.time() - began) - RESERVE_S
        limit = min(LIMITS[name], left)
        if limit < 10:
            summary[name] = {"error": "no time left"}
        else:
            summary[name] = run_phase(name, limit, options)
        summary[name]["ended_after_s"] = round(time.time() - began, 1)
        (OUT / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
        print(f"== {name}\n{json.dumps(summary[name], indent=1)}", flush=True)
    return 0


def run_phase(name: str, limit: float, options: argparse.Namespace) -> dict:
    started = time.time()
    result = run({"proof": proof, "figures": figures, "train": train}[name](limit, options), limit)
    collect = {"proof": tests_of_proof, "figures": lines_of_figures, "train": files_of_training}[name]
    try:
        result |= collect()
    except Exception as error:  # whatever a phase left behind must not cost the next one
        result["unread"] = repr(error)
    return result | {"seconds": round(time.time() - started, 1)}


def run(command: list[str], limit: float) -> dict:
    """Wait for it, or end it."""
    with (OUT / "log.txt").open("ab") as log:
        log.write(f"\n$ {shlex.join(command)}\n".encode())
        log.flush()
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            child.terminate()  # training saves its state then
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, 9)
                child.wait()
            return {"cut_after_s": round(limit, 1)}
    return {"exit_code": code}


def proof(limit: float, options: argparse.Namespace) -> list[str]:
    return [
        *(sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "-v", "-p", "no:cacheprovider", "-W", "default"),
        *("--tb=short", "--durations=15", f"--junitxml={OUT / 'proof.xml'}"),
    ]


def tests_of_proof() -> dict:
    """From the log, because a run that was cut writes no XML."""
    lines = (OUT / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    words = [line.split() for line in lines if line.startswith("tests/gpu/")]
    results = {parts[0].partition("::")[2]: parts[1] for parts in words if len(parts) > 1 and parts[1].isupper()}
    failed = sorted(name for name, result in results.items() if result in ("FAILED", "ERROR"))
    seconds = {}
    if (OUT / "proof.xml").exists():
        tree = ElementTree.parse(OUT / "proof.xml")
        seconds = {case.get("name"): case.get("time") for case in tree.iter("testcase")}
    measured = [line for line in lines if line.startswith("measured ")]
    return {"tests": len(results), "failed": failed, "results": results, "test_s": seconds, "measured": measured}


def figures(limit: float, options: argparse.Namespace) -> list[str]:
    command = [sys.executable, "tools/gpu/figures.py", "--out", str(OUT), "--seconds", str(limit - 6)]
    return [*command, "--device", options.device, *(["--quick"] if options.quick else [])]


def lines_of_figures() -> dict:
    rows = [json.loads(line) for line in (OUT / "figures.jsonl").read_text(encoding="utf-8").splitlines()]
    return {"figures": {row.pop("name"): row for row in rows}}


def train(limit: float, options: argparse.Namespace) -> list[str]:
    minutes = max(0.1, (limit - 25) / 60)
    names = {"python": sys.executable, "songs": options.songs, "run": "/tmp/tsbs-run", "device": options.device}
    names |= {"minutes": f"{minutes:.2f}", "export": str(OUT / "bundled.safetensors")}
    shutil.rmtree("/tmp/tsbs-run", ignore_errors=True)
    wait_for_songs(Path(options.songs))
    command = shlex.split(os.environ.get("TRAIN", TRAIN).format(**names))
    return [*command, "--set", "optimiser.batch=2"] if options.quick else command  # a full batch needs 24 GB


def wait_for_songs(songs: Path, most_s: float = 30.0) -> None:
    """Until there is something to begin with: the rest is rendered while the training runs."""
    began = time.time()
    while time.time() - began < most_s:
        if all(len(list((songs / split).glob("*/vocals.wav"))) >= 2 for split in ("train", "valid")):
            return
        time.sleep(1)


def files_of_training() -> dict:
    found = {}
    for name in ("curve.jsonl", "best.safetensors"):
        path = Path("/tmp/tsbs-run") / name
        if path.exists() and path.stat().st_size < 15_000_000:
            target = OUT / ("best.safetensors" if name == "best.safetensors" else f"train.{name}")
            shutil.copy(path, target)
    curve = OUT / "train.curve.jsonl"
    if curve.exists():
        rows = [json.loads(line) for line in curve.read_text(encoding="utf-8").splitlines()]
        found["steps"] = max((row.get("step", 0) for row in rows), default=0)
        found["validation"] = [row for row in rows if row.get("kind") == "validation"][-6:]
        found["last_steps"] = [row for row in rows if row.get("kind") == "step"][-3:]
    return found


if __name__ == "__main__":
    sys.exit(main())
