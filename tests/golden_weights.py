"""Weights of the golden cases by the published names, made from their names alone, and the cases themselves.

The rules stand beside the numbers in tests/model/data: each tensor's values come from a generator seeded with the
checksum of its name, so that the same weights can be made anywhere without a download.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tsbs_daw.model import ModelConfig, TwoStageSeparator, reference_state_dict

GOLDEN_FILE = Path(__file__).parent / "model" / "data" / "model_golden.npz"


@dataclass(frozen=True)
class GoldenCase:
    name: str
    config: ModelConfig
    seed: int
    shape: tuple[int, int, int]  # of the mixture: (batch, channels, samples)

    def mixture(self) -> np.ndarray:
        return np.random.RandomState(self.seed).standard_normal(self.shape) * 0.1

    def expected(self) -> np.ndarray:
        """The final estimates: (batch, stems, channels, samples)."""
        with np.load(GOLDEN_FILE) as file:
            return file[f"{self.name}_final"]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The case's weights by their published names, in float32."""
        with torch.device("meta"):
            shapes = reference_state_dict(TwoStageSeparator(self.config))
        salt = f"golden-{self.name}/"
        return {name: torch.from_numpy(_weight(salt, name, tuple(part.shape))).float() for name, part in shapes.items()}


CASE_A = GoldenCase("a", ModelConfig(feature_dim=32, mask_blocks=2, map_blocks=1), 11, (1, 2, 10007))
CASE_B = GoldenCase(
    "b", ModelConfig(feature_dim=16, mask_blocks=1, map_blocks=1, stems=("one", "two")), 12, (2, 2, 6615)
)


def _weight(salt: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.RandomState(zlib.crc32((salt + name).encode()))
    if name.endswith("A_log"):
        return np.log(random.uniform(1, 16, shape))
    if name.endswith("dt_bias"):
        dt = np.exp(random.uniform(math.log(1e-3), math.log(1e-1), shape))
        return dt + np.log(-np.expm1(-dt))
    if name.endswith(".D") or (len(shape) == 1 and name.endswith("weight")):
        return 1 + 0.1 * random.standard_normal(shape)
    if name.endswith("bias"):
        return 0.05 * random.standard_normal(shape)
    return random.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
