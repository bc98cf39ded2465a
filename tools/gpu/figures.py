"""The figures of `tsbs-daw bench --only gpu`, with mamba-ssm's module beside them: python figures.py --out FOLDER."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=104.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    import mamba_shim
    import torch

    from tsbs_daw.lab.bench import gpu

    shimmed = []
    device, began = torch.device(options.device), time.time()

    def install() -> None:
        shimmed.append(mamba_shim.install_if_missing())

    with (options.out / "figures.jsonl").open("w", encoding="utf-8") as file:
        for row in gpu.measure(device, options.quick, options.out / "profile.txt", before_mamba=install):
            if any(shimmed) and ".mamba-ssm." in row["name"]:
                row["untuned"] = "with each kernel's smallest configuration, and its convolution in torch"
            row["at_s"] = round(time.time() - began, 1)
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(row, flush=True)
            if time.time() - began > options.seconds:
                break


if __name__ == "__main__":
    main()
