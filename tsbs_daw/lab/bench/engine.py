"""The network by itself, held against the machine's own speed at matrix products.

network.*    the model that is asked for
sizes.*      the paper's two sizes and the bundled one, in each precision that this device computes in
gpu.*        on CUDA: ceilings, each size by form, number format and batch, memory, a song from file to session
"""

from __future__ import annotations

from collections.abc import Iterator

from tsbs_daw.lab.bench.probing import probe, work_folder
from tsbs_daw.lab.bench.row import Group, Options, Row

SIZES = ("full", "lite", "tiny")
OVER_FLOOR = {("full", "float32"): 1.5, ("full", "bfloat16"): 2.2}  # at most so many times the floor
FULL_MB = 3000.0


def _network(options: Options) -> Iterator[Row]:
    with work_folder() as folder:
        found = probe("network", folder, options)
    rate = found["macs_per_s_of_audio"] * found["speed"]
    yield Row("network.speed", f"the network alone on {found['device']}", found["speed"], "x real time")
    yield Row("network.arithmetic", "counted per second of stereo", found["macs_per_s_of_audio"] / 1e9, "GMAC")
    yield Row("network.machine", "large matrix products here", found["machine_macs_per_s"] / 1e9, "GMAC/s")
    yield Row("network.reached", "of that, the network reaches", 100 * rate / found["machine_macs_per_s"], "%")


def _sizes(options: Options) -> Iterator[Row]:
    for size in SIZES:
        for precision in ("float32", "bfloat16"):
            with work_folder() as folder:
                found = probe("size", folder, options, size=size, precision=precision)
            yield from _rows_of_size(size, precision, found)


def _rows_of_size(size: str, precision: str, found: dict) -> Iterator[Row]:
    name, what = f"sizes.{size}.{precision}", f"{size}, {precision} on {found['device']}"
    yield Row(f"{name}.speed", f"{what}: a chunk", found["speed"], "x real time")
    target = OVER_FLOOR.get((size, precision))
    yield Row(f"{name}.over_floor", "its time over the floor", found["over_floor"], "x", target)
    yield Row(f"{name}.floor", "the floor", found["macs_per_s_of_audio"] / found["machine_macs_per_s"], "s per s")
    own, executed = found["macs_per_s_of_audio"] / 1e9, found["executed_macs_per_s_of_audio"] / 1e9
    yield Row(f"{name}.arithmetic", "the network's own, per second of stereo", own, "GMAC")
    yield Row(f"{name}.executed", "of them are computed here", executed, "GMAC")
    yield Row(f"{name}.machine", f"large {precision} products here", found["machine_macs_per_s"] / 1e9, "GMAC/s")
    yield Row(f"{name}.products", "of its time, in matrix products", 100 * found["share_in_products"], "%")
    if found["peak_bytes"] is not None:
        memory_target = FULL_MB if size == "full" else None
        yield Row(f"{name}.memory", "peak memory", found["peak_bytes"] / 1e6, "MB", memory_target)


# Figures of a GPU: what each is called in its row, and its unit.
GPU_FIGURES = {
    "real_time": ("new sound per second", "x real time"),
    "error": ("its error, as a ratio of norms to float32", ""),
    "peak_gb": ("peak memory", "GB"),
    "planned_gb": ("planned for it", "GB"),
    "launches": ("kernels of one run", ""),
    "wall_s": ("from file to session", "s"),
    "examples_per_s": ("forward and backward", "examples/s"),
    "copy_tb_per_s": ("a large copy, read and written", "TB/s"),
    "bfloat16_tflop_per_s": ("large products in bfloat16", "TFLOP/s"),
    "tf32_tflop_per_s": ("large products in TF32", "TFLOP/s"),
    "float32_tflop_per_s": ("large products in float32", "TFLOP/s"),
    "small_launch_us": ("a small launch", "us"),
}


def _gpu(options: Options) -> Iterator[Row]:
    with work_folder() as folder:
        rows = probe("gpu", folder, options)["rows"]
    for row in rows:
        name = f"gpu.{row['name'].replace(' ', '-')}"
        for key, (what, unit) in GPU_FIGURES.items():
            if key in row:
                yield Row(f"{name}.{key}", what, row[key], unit)


GROUPS = (
    Group("network", _network, ("network.speed", "network.arithmetic", "network.machine", "network.reached")),
    Group(
        "sizes",
        _sizes,
        tuple(f"sizes.{size}.{precision}.speed" for size in SIZES for precision in ("float32", "bfloat16")),
        long=True,
        needs_model=False,
        open=True,
    ),
    Group("gpu", _gpu, long=True, needs_model=False, open=True),
)
