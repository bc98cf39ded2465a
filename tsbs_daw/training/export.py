"""From a run's best weights to a file that ships: half precision, with its provenance."""

from __future__ import annotations

import json
from pathlib import Path

from tsbs_daw.errors import CheckpointError


def export_best(run: Path, path: Path) -> int:
    """Write the best averaged weights of a run in half precision.

    Returns: the file's size in bytes
    Raises:  CheckpointError: the run has no validated weights yet
    """
    import torch

    from tsbs_daw.model import checkpoint

    best = run / "best.safetensors"
    if not best.is_file():
        raise CheckpointError(f"the run {run} has no best.safetensors yet; train until its first validation")
    facts = {key: value for key, value in checkpoint.read_metadata(best).items() if key not in ("format", "config")}
    recipe = run / "recipe.json"
    if recipe.is_file():
        facts["recipe_settings"] = json.dumps(json.loads(recipe.read_text(encoding="utf-8")))
    checkpoint.save(checkpoint.load(best), path, facts, dtype=torch.float16)
    return path.stat().st_size
