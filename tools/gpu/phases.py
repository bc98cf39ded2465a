"""Proof, figures and training on one GPU, each in a process with its own limit; results are written after each.

Run by run.sh. A phase that fails or overruns loses only its own results. Files under $OUT: summary.json, log.txt (the
output of the phases), proof.jsonl, figures.jsonl, profile.txt, bundled.safetensors, train.curve.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

LIMITS = {"proof": 150.0, "figures": 110.0, "train": 600.0}  # seconds
QUICK = (  # changes of the recipe
    "optimiser.batch=2",
    "validation.excerpts=2",
    "model.overrides.feature_dim=16",
    "log.curve_every_steps=4",
)
RESERVE_S = 8.0  # at the end, to collect the results
TRAIN = (
    "{python} -m tsbs_daw train bundled --data {songs} --out {run} --device {device} --minutes {minutes} "
    "--export {export}"
)
RUN = Path("/tmp/tsbs-run")  # the folder of the training run
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
        limit = min(LIMITS[name] * (3 if options.device == "cpu" else 1), left)  # the interpreter takes its time
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
    command = {"proof": proof, "figures": figures, "train": train}[name](limit, options)  # training waits for songs
    result = run(command, limit - (time.time() - started))
    collect = {"proof": tests_of_proof, "figures": lines_of_figures, "train": files_of_training}[name]
    try:
        result |= collect()
    except Exception as error:  # whatever a phase left behind must not cost the next one
        result["unread"] = repr(error)
    return result | {"seconds": round(time.time() - started, 1)}


def run(command: list[str], limit: float) -> dict:
    """Wait until the command ends; after `limit` seconds end it and every process that it started."""
    with (OUT / "log.txt").open("ab") as log:
        log.write(f"\n$ {shlex.join(command)}\n".encode())
        log.flush()
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            return {"exit_code": child.wait(limit)}
        except subprocess.TimeoutExpired:
            child.terminate()  # training then saves its state
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
            return {"cut_after_s": round(limit, 1)}
        finally:  # what a phase leaves running would slow down the next one
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, 9)
            child.wait()


def proof(limit: float, options: argparse.Namespace) -> list[str]:
    rows = OUT / "proof.jsonl"  # written by tests/gpu/conftest.py
    rows.unlink(missing_ok=True)
    command = ["env", f"GPU_PROOF={rows}", sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "-v"]
    return [*command, "-p", "no:cacheprovider", "-W", "default", "--tb=short", "--durations=15"]


def tests_of_proof() -> dict:
    """Collect the tests; one that was cut or never began is `not run`, and one whose end failed is `failed`."""
    rows = read_lines(OUT / "proof.jsonl")
    results: dict[str, str] = {}
    for row in rows:
        name = row["name"] = row.pop("nodeid").partition("::")[2]
        if row["outcome"] != "passed" or results.get(name) == "not run":
            results[name] = row["outcome"]
    lists = {outcome: [name for name in results if results[name] == outcome] for outcome in ("failed", "not run")}
    return {
        "tests": len(results),
        **lists,
        "reasons": {row["name"]: row["reason"] for row in rows if row.get("reason")},
        "results": results,
        "test_s": {row["name"]: round(row["seconds"], 1) for row in rows if "seconds" in row},
        "measured": [text for row in rows for text in row.get("measured", ())],
    }


def read_lines(path: Path) -> list[dict]:
    """Read a file of one JSON value per line, without a last line that was cut."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


def figures(limit: float, options: argparse.Namespace) -> list[str]:
    command = [sys.executable, "tools/gpu/figures.py", "--out", str(OUT), "--seconds", str(limit - 6)]
    return [*command, "--device", options.device, *(["--quick"] if options.quick else [])]


def lines_of_figures() -> dict:
    return {"figures": {row.pop("name"): row for row in read_lines(OUT / "figures.jsonl")}}


def train(limit: float, options: argparse.Namespace) -> list[str]:
    began = time.time()
    wait_for_songs(Path(options.songs), most_s=min(30.0, limit / 4))
    minutes = max(0.1, (limit - (time.time() - began) - 25) / 60)
    names = {"python": sys.executable, "songs": options.songs, "run": RUN, "device": options.device}
    names |= {"minutes": f"{minutes:.2f}", "export": str(OUT / "bundled.safetensors")}
    shutil.rmtree(RUN, ignore_errors=True)
    command = shlex.split(os.environ.get("TRAIN", TRAIN).format(**names))
    return [*command, *(f"--set={change}" for change in QUICK)] if options.quick else command


def wait_for_songs(songs: Path, most_s: float) -> None:
    """Wait until there are songs to begin with; the others are rendered while the training runs."""
    began = time.time()
    while time.time() - began < most_s:
        if all(len(list((songs / split).glob("*/vocals.*"))) >= 2 for split in ("train", "valid")):
            return
        time.sleep(1)


def files_of_training() -> dict:
    found = {}
    for name in ("curve.jsonl", "best.safetensors"):
        path = RUN / name
        if path.exists() and path.stat().st_size < 15_000_000:
            target = OUT / ("best.safetensors" if name == "best.safetensors" else f"train.{name}")
            shutil.copy(path, target)
    curve = OUT / "train.curve.jsonl"
    if curve.exists():
        rows = read_lines(curve)
        found["steps"] = max((row.get("step", 0) for row in rows), default=0)
        found["validation"] = [row for row in rows if row.get("kind") == "validation"][-6:]
        steps = [row for row in rows if row.get("kind") == "step"]
        found["last_steps"] = steps[-3:]
        recipe = json.loads((RUN / "recipe.json").read_text(encoding="utf-8"))
        found["examples_per_s"] = examples_per_s(steps, recipe["optimiser"])
    return found


def examples_per_s(steps: list[dict], optimiser: dict) -> float | None:
    """Compute the rate between the first and the last row, without validation; the first holds the start-up."""
    if len(steps) < 2:
        return None
    count = steps[-1]["step"] - steps[0]["step"]
    seconds = steps[-1]["trained_s"] - steps[0]["trained_s"]
    return round(count * optimiser["batch"] * optimiser["accumulate"] / seconds, 2) if seconds > 0 else None


if __name__ == "__main__":
    sys.exit(main())
