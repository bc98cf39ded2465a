"""TS-BSMamba2: the two-stage separator (arXiv 2409.06245, figure 1).

B batch, C channels, S stems, K bands, T frames, F bins, N features.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from tsbs_daw.network.bands import BandSplit, Estimator
from tsbs_daw.network.blocks import DualNet
from tsbs_daw.network.config import ModelConfig
from tsbs_daw.network.mamba2 import MAX_CHUNK_ON_DEVICE
from tsbs_daw.network.seam import SeparationNetwork
from tsbs_daw.network.stft import STFT


class Separation(NamedTuple):
    """(B, S, C, samples) each: after both stages, and after the mask stage alone."""

    estimates: Tensor
    mask_estimates: Tensor


class TwoStageSeparator(SeparationNetwork):
    """mask stage -> fusion -> map stage. `checkpointing` trades time for memory in training."""

    config: ModelConfig
    recordable = True
    variants_in = "tsbs_daw.network.inference"

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.checkpointing = False
        self.stft = STFT(config.n_fft, config.hop_length)
        self.mask_split, self.map_split = BandSplit(config), BandSplit(config)
        self.mask_blocks = nn.ModuleList(DualNet(config) for _ in range(config.mask_blocks))
        self.map_blocks = nn.ModuleList(DualNet(config) for _ in range(config.map_blocks))
        self.fusion = nn.Linear(2 * config.feature_dim, config.feature_dim)
        self.mask_estimator, self.map_estimator = Estimator(config), Estimator(config)

    def forward(self, mixture: Tensor, *, mask_only: bool = False, final_only: bool = False) -> Separation:
        """
        Args:    mixture: (B, C, samples), in [-1, 1]
                 mask_only: leave the map stage out; final_only: leave the mask stage's own waveforms out
        Returns: estimates and mask_estimates, (B, S, C, samples); the same tensor twice where only one is wanted
        """
        batch, channels, samples = mixture.shape
        level = self.level(mixture)
        spectrum = self.spectrum(mixture / level)
        features = self._run(self.mask_blocks, self.mask_split(spectrum), channels)
        masked = apply_masks(self.mask_estimator(features), spectrum)
        if mask_only:
            restored = masked
        else:
            fused = torch.tanh(self.fusion(torch.cat([self.map_split(spectrum), features], dim=-1)))
            restored = masked + self.map_estimator(self._run(self.map_blocks, fused, channels))
        estimates = self.waveform(restored, batch, samples) * level[:, None]
        if mask_only or final_only:
            return Separation(estimates, estimates)
        return Separation(estimates, self.waveform(masked, batch, samples) * level[:, None])

    def estimate(self, mixture: Tensor, stage: str = "full") -> Tensor:
        return self(mixture, mask_only=stage == "mask", final_only=True).estimates

    def chunk_bytes(self) -> int:
        """The widest activations and decays, a few at once.

        On an H100 the full model took 37.4 GB for 16 chunks; the first term, with 6 for 8, had said 29.2.
        """
        config = self.config
        frames = 1 + config.chunk_samples // config.hop_length
        directions = 2 if config.bidirectional else 1
        values = directions * (2 * config.d_inner + 2 * config.d_state + config.heads)
        chunk = math.ceil(frames / math.ceil(frames / MAX_CHUNK_ON_DEVICE))  # steps that decay among each other
        decays = directions * config.heads * chunk
        return 4 * 2 * config.bands * frames * (8 * values + 3 * decays)

    def freeze_mask_stage(self) -> None:
        """Leave only fusion and map stage to be trained: what a mask cannot do is then learnt on a mask that stays."""
        for part in (self.mask_split, self.mask_blocks, self.mask_estimator):
            part.requires_grad_(False)

    def level(self, mixture: Tensor) -> Tensor:
        """What to divide the mixture by: (B, 1, 1), its RMS, or one where the weights expect audio as it is.

        The map stage adds what it hears at one level only; with `unit_level` the network follows any gain. The
        floor of -100 dBFS keeps silence silent.
        """
        if not self.config.unit_level:
            return mixture.new_ones(1, 1, 1)
        return mixture.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-5)

    def spectrum(self, mixture: Tensor) -> Tensor:
        """(B, C, samples) -> (B x C, T, F), complex."""
        return self.stft(rearrange(mixture, "b c l -> (b c) l"))

    def waveform(self, spectra: Tensor, batch: int, samples: int) -> Tensor:
        """(B x C, S, T, F) -> (B, S, C, samples)."""
        waveforms = self.stft.inverse(spectra.flatten(0, 1), samples)
        return rearrange(waveforms, "(b c s) l -> b s c l", b=batch, s=spectra.shape[1])

    def _run(self, blocks: nn.ModuleList, x: Tensor, channels: int) -> Tensor:
        for block in blocks:
            block.checkpointing = self.checkpointing and self.training
            if self.training:  # one layout and type for every block, so that one compilation serves them all
                x = (x.float() if x.dtype == torch.bfloat16 else x).contiguous()
            x = block(x, channels)
        return x


def apply_masks(masks: Tensor, spectrum: Tensor) -> Tensor:
    """Shift the masks so that they sum to one over the stems, and multiply.

    The real parts are made to sum to 1 and the imaginary ones to 0, so the stems sum to the mixture.

    Args:    masks: (B, S, T, F); spectrum: (B, T, F); all complex
    Returns: (B, S, T, F)
    """
    return (masks - (masks.sum(1, keepdim=True) - 1) / masks.shape[1]) * spectrum[:, None]
