"""Networks of other packages with random weights, of the sizes that are published, and tiny ones of the same kinds."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from tsbs_daw.models.kinds import KINDS
from tsbs_daw.models.registry import bundled_descriptions
from tsbs_daw.network import checkpoint
from tsbs_daw.network.seam import SeparationNetwork

SIX = ["drums", "bass", "other", "vocals", "guitar", "piano"]
TINY_ROFORMER = {"dim": 16, "depth": 1, "dim_head": 8, "heads": 2, "chunk_size": 44_100, "mlp_expansion_factor": 1}
TINY = {
    "htdemucs": {"stems": SIX, "channels": 8, "bottom_channels": 0, "t_layers": 1, "segment": 1.0},
    "bs-roformer": {"stems": ["drums", "bass"], **TINY_ROFORMER},
    "mel-band-roformer": {"stems": ["vocals", "other"], "complement": "other", **TINY_ROFORMER},
}


def build(kind: str, values: dict[str, Any], seed: int = 0) -> SeparationNetwork:
    torch.manual_seed(seed)
    return KINDS[kind].build(KINDS[kind].config(values)).eval()


def real_size(model: str) -> SeparationNetwork:
    """The network of a bundled description, untrained."""
    known = bundled_descriptions()[model]
    return build(known.network, known.values())


def saved(network: SeparationNetwork, path: Path) -> Path:
    checkpoint.save(network, path, dtype=torch.float16)
    return path


def package_output(network: SeparationNetwork, mixture: torch.Tensor) -> torch.Tensor:
    """What the network's own package makes of a chunk, (1, 2, samples) -> (1, stems, 2, samples)."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        return _package_network(network)(mixture).reshape(1, -1, *mixture.shape[1:])


def _package_network(network: SeparationNetwork) -> torch.nn.Module:
    """Built by the package alone, with these weights by the package's names."""
    from bs_roformer import BSRoformer, MelBandRoformer
    from demucs.htdemucs import HTDemucs

    config = network.config
    weights = {name.removeprefix("inner."): part for name, part in network.state_dict().items()}
    if config.kind == "htdemucs":
        found = HTDemucs(list(config.stems), bottom_channels=config.bottom_channels, dconv_mode=3, segment=7.8)
        found.load_state_dict(weights)
        return found.eval()
    options = {
        **{"dim": config.dim, "depth": config.depth, "stereo": True, "num_stems": len(config.outputs)},
        **{"time_transformer_depth": 1, "freq_transformer_depth": 1, "num_residual_streams": 1, "zero_dc": True},
        **{"stft_hop_length": 441, "mask_estimator_depth": 2},
    }
    if config.kind == "mel-band-roformer":
        found = MelBandRoformer(**options, linear_transformer_depth=0, add_value_residual=False)
        found.load_state_dict(weights)
        return found.eval()
    found = BSRoformer(**options)
    estimators = found.mask_estimators
    found.mask_estimators = torch.nn.ModuleList(
        type(estimators[0])(config.dim, found.band_split.dim_inputs, 2, config.mlp_expansion_factor) for _ in estimators
    )
    lacking, unknown = found.load_state_dict(weights, strict=False)
    assert not unknown and all("to_value_residual_mix" in name for name in lacking)
    for part in found.modules():  # a mix of nothing: the published networks have none
        if getattr(part, "to_value_residual_mix", None) is not None:
            torch.nn.init.zeros_(part.to_value_residual_mix.weight)
            torch.nn.init.constant_(part.to_value_residual_mix.bias, -1e4)
    return found.eval()
