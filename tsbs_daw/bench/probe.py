"""The measurements that need a process of their own: `python -m tsbs_daw.bench.probe REQUEST`.

REQUEST is JSON: which probe, and the options; the answer goes to `answer.json` in its folder. A process that measures
its own peak memory must have done nothing else, so the song is made by another one.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tsbs_daw import machine
from tsbs_daw.config import Settings
from tsbs_daw.errors import TsbsDawError

SONG_SEED = 11
SONG_S = 20.0  # a longer one is this one over and over: the network's work does not depend on the notes
SAMPLE_RATE = 44100


def main(request: dict[str, Any]) -> None:
    probes = {"resolve": resolve, "song": song, "separate": separate, "network": network}
    try:
        answer = probes[request["probe"]](request)
    except TsbsDawError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    (Path(request["folder"]) / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def resolve(request: dict[str, Any]) -> dict[str, Any]:
    """The model's file, looked up once."""
    from tsbs_daw.model.registry import resolve

    return {"path": str(resolve(request["model"]))}


def song(request: dict[str, Any]) -> dict[str, Any]:
    """A composed song of the wanted length, as a file."""
    import numpy as np

    from tsbs_daw.audio.write import AudioWriter
    from tsbs_daw.songs.compose import compose
    from tsbs_daw.songs.render import render

    path = Path(request["folder"]).absolute() / f"{request['file']}.wav"
    mixture = sum(render(compose(SONG_SEED, 5.0 if request["quick"] else SONG_S, complete=True)).values())
    left = round(request["seconds"] * SAMPLE_RATE)
    with AudioWriter(path, SAMPLE_RATE, 2) as writer:
        while left > 0:
            writer.write(np.ascontiguousarray(mixture[:, :left]))
            left -= mixture.shape[1]
    return {"path": str(path)}


def separate(request: dict[str, Any]) -> dict[str, Any]:
    """A job for each source, the whole way; the last one is timed."""
    from tsbs_daw.jobs.job import Job, Source
    from tsbs_daw.jobs.pipeline import run_job

    folder = Path(request["folder"]).absolute()
    settings = Settings(folder / "home", folder / "cache", Settings.from_environment().models)
    options = {"fence": 1, "attempt": 1}
    options |= {"progress": lambda fraction, message: None, "cancelled": lambda: False}
    named = {"output": folder / "out", "preset": request["preset"], "model": request["model"]}
    with ChildrenPeak() as children:
        for path in request["sources"]:
            job = Job(schema=1, source=Source(path=Path(path)), **named)
            began = time.perf_counter()
            result = run_job(job, settings=settings, **options)
            wall_s = time.perf_counter() - began
    own_bytes = machine.own_peak_bytes()
    manifest = json.loads(result.manifest.read_text(encoding="utf-8"))
    return {
        "seconds": result.samples / result.sample_rate,
        "wall_s": wall_s,
        "timings_s": manifest["timings_s"],
        "peak_bytes": None if own_bytes is None else own_bytes + children.peak_bytes,
    }


class ChildrenPeak:
    """The most memory that this process's children had at once, looked at five times a second.

    The system's own count for children cannot serve: a child that was started by a large process begins with its size.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ChildrenPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.2):
            self.peak_bytes = max(self.peak_bytes, machine.children_bytes(os.getpid()) or 0)


def network(request: dict[str, Any]) -> dict[str, Any]:
    """Speed and counted arithmetic of the network on chunks, beside the machine's own speed at matrix products."""
    import torch

    from tsbs_daw.separation import Separator

    separator = Separator.load(request["model"], request["device"])
    config, batch = separator.network.config, separator.batch_size
    chunk = torch.randn(batch, 2, separator.chunk_samples, device=separator.device) * 0.1
    with torch.inference_mode():
        macs = count_macs(lambda: separator.network(chunk))
        chunk_s = best_time_s(lambda: separator.network(chunk), 1 if request["quick"] else 8, separator.device)
    audio_s = batch * separator.chunk_samples / config.sample_rate
    return {
        "device": str(separator.device),
        "speed": audio_s / chunk_s,
        "macs_per_s_of_audio": macs / audio_s,
        "machine_macs_per_s": machine_macs_per_s(separator.device, 1 if request["quick"] else 8),
    }


def count_macs(run: Callable[[], Any]) -> int:
    """Multiply-adds of the matrix products and convolutions in `run`; transforms and pointwise work do not count."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


def best_time_s(run: Callable[[], Any], repetitions: int, device: Any) -> float:
    """The shortest of several runs, after one to warm up: others on the machine only ever make it longer."""
    import torch

    times = []
    for _ in range(repetitions + 1):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def machine_macs_per_s(device: Any, repetitions: int) -> float:
    """What large float32 matrix products reach here."""
    import torch

    size = 4096 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    return size**3 / best_time_s(lambda: a @ b, repetitions, device)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
