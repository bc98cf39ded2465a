"""The figures of `tsbs-daw bench --only gpu`, with mamba-ssm's module beside them: python figures.py --out FOLDER."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=55.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    import torch

    from tsbs_daw.lab.bench import gpu

    device, began = torch.device(options.device), time.time()
    with (options.out / "figures.jsonl").open("w", encoding="utf-8") as file:
        for row in gpu.measure(device, options.quick, options.out / "profile.txt", before_mamba=_install_mamba):
            row["at_s"] = round(time.time() - began, 1)
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(row, flush=True)
            if time.time() - began > options.seconds:
                break


def _install_mamba() -> None:
    """Unless it is there already."""
    import mamba_shim

    from tsbs_daw.network import mamba2

    sources = Path(os.environ.get("MAMBA_SRC", ".gpu/mamba"))
    if not mamba2.fused_available() and (sources / "mamba_ssm").is_dir():
        mamba_shim.install(sources)
        mamba_shim.pin_autotuning()
        mamba2._fused_kernel.cache_clear()


if __name__ == "__main__":
    main()
