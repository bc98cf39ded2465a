"""Measurements that run in their own process.

A request has the name of the probe, its options, and the folder for its files. A process that measures its own peak
memory must not do anything else, so another process makes the song.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsbs_daw.core import child, machine
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import TsbsDawError

if TYPE_CHECKING:
    import numpy as np

    from tsbs_daw.separation import Separator

SONG_SEED = 11
SONG_S = 20.0  # a longer song repeats this one, because the network's work does not depend on the notes
SAMPLE_RATE = 44100
# Seeds of the test split, on which no model was trained. Four songs would be too few: one song changes their mean by
# more than any overlap does.
OVERLAP_SEEDS = range(9701, 9713)
OVERLAP_SONG_S = 30.0
CHUNKS_S = (1.5, 3.0, 6.0)
OVERLAPS = (0.0, 0.1, 0.25, 0.5)


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Run a probe in the child process; see `core.child`."""
    from tsbs_daw.lab.bench.cluster import cluster

    probes = (resolve, song, random_model, separate, network, size, gpu, peers, reference, stems, overlap, cluster)
    try:
        return {probe.__name__: probe for probe in probes}[request["probe"]](request)
    except TsbsDawError as error:
        return {"error": str(error), "kind": type(error).__name__}


def resolve(request: dict[str, Any]) -> dict[str, Any]:
    """Look up the model's file."""
    from tsbs_daw.core.config import Settings
    from tsbs_daw.models.registry import resolve

    return {"path": str(resolve(request["model"], Settings.from_environment()))}


def song(request: dict[str, Any]) -> dict[str, Any]:
    """Write a generated song of the requested length."""
    import numpy as np

    from tsbs_daw.audio.writer import AudioWriter
    from tsbs_daw.lab.songs.compose import compose
    from tsbs_daw.lab.songs.render import render

    path = Path(request["folder"]).absolute() / f"{request['file']}.wav"
    stems = render(compose(SONG_SEED, 5.0 if request["quick"] else SONG_S, complete=True))
    mixture = np.asarray(sum(stems.values()))
    left = round(request["seconds"] * SAMPLE_RATE)
    with AudioWriter(path, SAMPLE_RATE, 2) as writer:
        while left > 0:
            writer.write(np.ascontiguousarray(mixture[:, :left]))
            left -= mixture.shape[1]
    return {"path": str(path)}


def random_model(request: dict[str, Any]) -> dict[str, Any]:
    """Write a model file of one size with random weights."""
    import torch

    from tsbs_daw.lab.bench.networks import SIZES, random_network
    from tsbs_daw.network.checkpoint import save

    path = Path(request["folder"]).absolute() / f"{request['size']}.safetensors"
    save(random_network(SIZES[request["size"]], torch.device("cpu")), path)
    return {"path": str(path)}


def separate(request: dict[str, Any]) -> dict[str, Any]:
    """Run a job for each source, and time the last one."""
    from tsbs_daw.contracts.job import Job, Source
    from tsbs_daw.pipeline.run import run_job

    folder = Path(request["folder"]).absolute()
    settings = Settings(folder / "home", folder / "cache", Settings.from_environment().models)
    options: dict[str, Any] = {"fence": 1, "attempt": 1}
    options |= {"progress": lambda fraction, message: None, "cancelled": lambda: False}
    named = {"output": folder / "out", "preset": request["preset"], "model": request["model"]}
    with ChildrenPeak() as children:
        for path in request["sources"]:
            job = Job(schema=1, source=Source(path=Path(path)), **named)
            began = time.perf_counter()
            result = run_job(job, settings=settings, **options)
            wall_s = time.perf_counter() - began
    own_bytes = machine.own_peak_bytes()
    assert result.manifest is not None
    manifest = json.loads(result.manifest.read_text(encoding="utf-8"))
    return {
        "seconds": result.samples / result.sample_rate,
        "wall_s": wall_s,
        "timings_s": manifest["timings_s"],
        "peak_bytes": None if own_bytes is None else own_bytes + children.peak_bytes,
    }


class ChildrenPeak:
    """Measures the peak memory of this process's children together, by polling five times a second.

    The system's counter for children is unusable, because a child starts with the size of its parent.
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
    """Time the requested model on chunks, and compare it with the machine's speed at matrix products."""
    import torch

    from tsbs_daw.lab.bench.networks import PRECISIONS, count_macs, held_against_floor, own_macs
    from tsbs_daw.network import ModelConfig
    from tsbs_daw.separation import Separator

    separator = Separator.load(request["model"], request["device"])
    batch = separator.batch_size
    chunk = torch.randn(batch, 2, separator.chunk_samples, device=separator.device) * 0.1
    with torch.inference_mode():
        config = separator.engine.config
        if isinstance(config, ModelConfig):  # in Triton's kernels, the counter sees no multiply-adds
            macs = batch * own_macs(config)
        else:
            macs = count_macs(lambda: separator.engine.run(chunk))
        dtype = PRECISIONS[separator.precision]
        found = held_against_floor(
            lambda: separator.engine.run(chunk), macs, separator.device, dtype, _rounds(request, 8)
        )
    audio_s = batch * separator.chunk_samples / separator.engine.config.sample_rate
    return found | {
        "device": str(separator.device),
        "speed": audio_s / found["seconds"],
        "macs_per_s_of_audio": macs / audio_s,
    }


def size(request: dict[str, Any]) -> dict[str, Any]:
    """Measure one size of the network in one precision, with random weights: speed, floor and memory."""
    import torch

    from tsbs_daw.lab.bench import networks
    from tsbs_daw.separation.devices import choose_device

    device, config = choose_device(request["device"]), networks.SIZES[request["size"]]
    dtype = networks.PRECISIONS[request["precision"]]
    engine = networks.random_engine(config, device, request["precision"])
    chunk = networks.random_chunk(config, device)

    def run() -> None:
        engine.run(chunk)

    with torch.inference_mode():
        run()
        peak_bytes = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else machine.own_peak_bytes()
        macs, executed_macs = networks.own_macs(config), networks.count_macs(run)
        found = networks.held_against_floor(run, macs, device, dtype, _rounds(request, 5))
        share = networks.share_in_products(run, device)
    return found | {
        "device": str(device),
        "speed": config.chunk_s / found["seconds"],
        "macs_per_s_of_audio": macs / config.chunk_s,
        "executed_macs_per_s_of_audio": executed_macs / config.chunk_s,
        "share_in_products": share,
        "peak_bytes": peak_bytes,
    }


def gpu(request: dict[str, Any]) -> dict[str, Any]:
    """Measure a CUDA device, and write each row to a file of JSON lines at once; no rows for other devices."""
    from tsbs_daw.lab.bench.gpu import measure
    from tsbs_daw.separation.devices import choose_device

    device = choose_device(request["device"])
    if device.type == "cuda":
        with Path(request["file"]).open("w", encoding="utf-8", buffering=1) as file:
            for row in measure(device, request["quick"]):
                file.write(json.dumps(row) + "\n")
    return {}


def peers(request: dict[str, Any]) -> dict[str, Any]:
    """Time sizes of this network and the installed peers, each on chunks of its own length."""
    from tsbs_daw.lab.bench.networks import time_peers
    from tsbs_daw.separation.devices import choose_device

    return time_peers(choose_device(request["device"]), _rounds(request, 5), request["quick"])


def reference(request: dict[str, Any]) -> dict[str, Any]:
    """Time this network and its straightforward implementation."""
    from tsbs_daw.lab.bench.networks import time_reference
    from tsbs_daw.separation.devices import choose_device

    return time_reference(choose_device(request["device"]), _rounds(request, 3), request["quick"])


def stems(request: dict[str, Any]) -> dict[str, Any]:
    """Time the bundled size with 1, 2, 4 and 8 stems, in seconds per second of audio."""
    from dataclasses import replace
    from functools import partial

    from tsbs_daw.lab.bench.networks import SIZES, random_chunk, random_engine, time_in_turn
    from tsbs_daw.separation.devices import choose_device

    device, runs = choose_device(request["device"]), {}
    for count in (1, 2, 4, 8):
        config = replace(SIZES["tiny"], stems=tuple(f"stem {index}" for index in range(count)))
        engine, chunk = random_engine(config, device), random_chunk(config, device)
        runs[str(count)] = (partial(engine.run, chunk), config.chunk_s)
    return time_in_turn(runs, device, _rounds(request, 5))


def overlap(request: dict[str, Any]) -> dict[str, Any]:
    """Measure SDR and time of several chunk lengths and overlaps, on songs with known stems."""
    from tsbs_daw.lab.songs.compose import compose
    from tsbs_daw.lab.songs.render import render
    from tsbs_daw.separation import Separator

    quick = request["quick"]
    seconds, seeds = (4.0, OVERLAP_SEEDS[:1]) if quick else (OVERLAP_SONG_S, OVERLAP_SEEDS)
    songs = [render(compose(seed, seconds, complete=True)) for seed in seeds]
    separator = Separator.load(request["model"], request["device"])
    settings = [(3.0, 0.25)] if quick else [(chunk_s, part) for chunk_s in CHUNKS_S for part in OVERLAPS]
    return {"table": [_overlap_point(separator, songs, chunk_s, part) for chunk_s, part in settings]}


def _overlap_point(
    separator: Separator, songs: list[dict[str, np.ndarray]], chunk_s: float, part: float
) -> dict[str, float]:
    """Measure one setting: mean uSDR over songs and stems, and seconds per second of audio."""
    import numpy as np

    from tsbs_daw.lab.evaluation.evaluate import usdr

    separator.chunk_samples = round(chunk_s * SAMPLE_RATE)
    separator.fade_samples = round(part * separator.chunk_samples)
    scores, began = [], time.perf_counter()
    for targets in songs:
        estimates = separator.separate(np.asarray(sum(targets.values())), SAMPLE_RATE)
        scores += [usdr(target, estimates[stem]) for stem, target in targets.items()]
    seconds = time.perf_counter() - began
    audio_s = sum(next(iter(targets.values())).shape[-1] for targets in songs) / SAMPLE_RATE
    return {"chunk_s": chunk_s, "overlap": part, "sdr_db": float(np.mean(scores)), "seconds": seconds / audio_s}


def _rounds(request: dict[str, Any], rounds: int) -> int:
    return 1 if request["quick"] else rounds


if __name__ == "__main__":
    child.answer(main)
