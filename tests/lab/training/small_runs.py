"""Songs on disk and a recipe whose network trains in a blink."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from song_files import write_song

from tsbs_daw.lab.training.recipe import Recipe, recipe_from_document

SMALL_MODEL = {
    "feature_dim": 16,
    "mask_blocks": 1,
    "map_blocks": 1,
    "n_fft": 512,
    "hop_length": 256,
    "band_widths": [16] * 16 + [1],
    "d_state": 4,
    "expand": 2,
    "headdim": 16,
}


def write_songs(data: Path) -> Path:
    """Three songs to train on, one to validate on, 2 s each. Returns: the folder"""
    for number in range(3):
        write_song(data / "train" / f"song {number}", number)
    write_song(data / "valid" / "held out", 9)
    return data


def make_recipe(**changes: Any) -> Recipe:
    """The recipe with changes: `part={field: value}`, or `field=value`."""
    document: dict[str, Any] = {
        "name": "small",
        "seed": 3,
        "model": {"size": "tiny", "overrides": SMALL_MODEL},
        "data": {"segment_s": 0.5},
        "loss": {"n_ffts": [512]},
        "optimiser": {"batch": 1, "warmup_steps": 2, "total_steps": 6},
        "validation": {"every_steps": 3, "excerpts": 2, "segment_s": 0.5},
        "log": {"curve_every_steps": 1, "checkpoint_every_steps": 2},
    }
    for part, values in changes.items():
        document[part] = {**document.get(part, {}), **values} if isinstance(values, dict) else values
    return recipe_from_document(document, "the test")
