"""TS-BSMamba2: the two-stage separator (arXiv 2409.06245, figure 1), from the mixture to the waveforms of the stems.

The data flow: spectrum, bands, DualNet blocks (see `blocks`), bins of every stem, waveforms.

B batch, C channels, S stems, K bands, T frames, F bins, N features, w bins of a band. The classes below the separator
do not distinguish channels; there, B is batch x channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from tsbs_daw.network.blocks import DualNet, group_norm
from tsbs_daw.network.config import BandGroup, ModelConfig
from tsbs_daw.network.mamba2 import MAX_CHUNK_ON_DEVICE
from tsbs_daw.network.seam import SeparationNetwork


class Separation(NamedTuple):
    """The result of the two-stage separator, (B, S, C, samples) each.

    Attributes:
        estimates: After both stages.
        mask_estimates: After the mask stage alone.
    """

    estimates: Tensor
    mask_estimates: Tensor


class Transform(Protocol):
    """Interface of a short-time Fourier transform, such as `STFT`."""

    def __call__(self, waveform: Tensor) -> Tensor: ...

    def inverse(self, spectrum: Tensor, samples: int) -> Tensor: ...


class TwoStageSeparator(SeparationNetwork):
    """Mask stage -> fusion -> map stage.

    Attributes:
        checkpointing: Recompute activations in training to save memory.
    """

    config: ModelConfig
    recordable = True
    variants_in = "tsbs_daw.network.inference"

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.checkpointing = False
        self.stft: Transform = STFT(config.n_fft, config.hop_length)
        self.mask_split, self.map_split = BandSplit(config), BandSplit(config)
        self.mask_blocks = nn.ModuleList(DualNet(config) for _ in range(config.mask_blocks))
        self.map_blocks = nn.ModuleList(DualNet(config) for _ in range(config.map_blocks))
        self.fusion = nn.Linear(2 * config.feature_dim, config.feature_dim)
        self.mask_estimator, self.map_estimator = Estimator(config), Estimator(config)

    def forward(self, mixture: Tensor, *, mask_only: bool = False, final_only: bool = False) -> Separation:
        """Separate a batch of mixtures.

        Args:
            mixture: In [-1, 1].
            mask_only: Skip the map stage.
            final_only: Skip the waveforms of the mask stage.

        Returns:
            The estimates of both stages. With `mask_only` or `final_only`, both are the same tensor.

        Shape:
            (B, C, samples) -> (B, S, C, samples)
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
        """Estimate the memory from the widest activations and decays, several of which exist at once.

        Measured on an H100: the full model took 37.4 GB for 16 chunks. The first term alone, with a factor of 6
        instead of 8, had predicted 29.2 GB.
        """
        config = self.config
        frames = 1 + config.chunk_samples // config.hop_length
        directions = 2 if config.bidirectional else 1
        values = directions * (2 * config.d_inner + 2 * config.d_state + config.heads)
        chunk = math.ceil(frames / math.ceil(frames / MAX_CHUNK_ON_DEVICE))  # steps of a chunk, see `mamba2.ssd`
        decays = directions * config.heads * chunk
        return 4 * 2 * config.bands * frames * (8 * values + 3 * decays)

    def freeze_mask_stage(self) -> None:
        """Freeze the mask stage, so that training changes only the fusion and the map stage, on top of fixed masks."""
        for part in (self.mask_split, self.mask_blocks, self.mask_estimator):
            part.requires_grad_(False)

    def level(self, mixture: Tensor) -> Tensor:
        """Return the level by which the mixture is divided: its RMS with `unit_level`, otherwise 1.

        The map stage is not scale-invariant; with `unit_level`, a gain on the input becomes the same gain on the
        output. The floor of -100 dBFS keeps silence silent.

        Shape:
            (B, C, samples) -> (B, 1, 1)
        """
        if not self.config.unit_level:
            return mixture.new_ones(1, 1, 1)
        return mixture.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-5)

    def spectrum(self, mixture: Tensor) -> Tensor:
        """Transform a mixture: (B, C, samples) -> (B x C, T, F), complex."""
        return self.stft(rearrange(mixture, "b c l -> (b c) l"))

    def waveform(self, spectra: Tensor, batch: int, samples: int) -> Tensor:
        """Transform spectra back: (B x C, S, T, F) -> (B, S, C, samples)."""
        waveforms = self.stft.inverse(spectra.flatten(0, 1), samples)
        return rearrange(waveforms, "(b c s) l -> b s c l", b=batch, s=spectra.shape[1])

    def _run(self, blocks: nn.ModuleList, x: Tensor, channels: int) -> Tensor:
        for block in cast("Iterable[DualNet]", blocks):
            block.checkpointing = self.checkpointing and self.training
            if self.training:  # same layout and dtype for every block, so that they share one compilation
                x = (x.float() if x.dtype == torch.bfloat16 else x).contiguous()
            x = block(x, channels)
        return x


def apply_masks(masks: Tensor, spectrum: Tensor) -> Tensor:
    """Shift the masks so that they sum to one over the stems, and multiply them with the spectrum.

    The real parts then sum to 1 and the imaginary parts to 0, so the stems sum to the mixture.

    Shape:
        masks: (B, S, T, F), complex
        spectrum: (B, T, F), complex
        result: (B, S, T, F), complex
    """
    return (masks - (masks.sum(1, keepdim=True) - 1) / masks.shape[1]) * spectrum[:, None]


class STFT(nn.Module):
    """Short-time Fourier transform and its inverse, for any length from one sample up.

    Centred with reflect padding, periodic Hann window, not normalised, as the published weights require. In shapes,
    b stands for all leading axes, flattened.
    """

    window: Tensor

    def __init__(self, n_fft: int, hop_length: int):
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the spectrum.

        Shape:
            (b, samples) -> (b, T, F), complex, with T = 1 + max(samples, n_fft / 2 + 1) // hop_length
        """
        # Reflect padding needs more samples than it mirrors, so shorter audio is padded; `inverse` cuts that off.
        missing = self.n_fft // 2 + 1 - waveform.shape[-1]
        if missing > 0:
            waveform = F.pad(waveform, (0, missing))
        return torch.stft(
            waveform, self.n_fft, self.hop_length, window=self._window(waveform.dtype), pad_mode="reflect",
            return_complex=True,
        ).mT  # fmt: skip

    def inverse(self, spectrum: Tensor, samples: int) -> Tensor:
        """Compute the waveform.

        Args:
            spectrum: The spectrum.
            samples: Length of the waveform.

        Shape:
            (b, T, F), complex -> (b, samples)
        """
        whole = max(samples, self.n_fft // 2 + 1)
        if spectrum.device.type != "cpu" and self.n_fft % self.hop_length == 0:
            return self._inverse_on_device(spectrum, whole)[..., :samples]
        window = self._window(spectrum.real.dtype)
        waveform = torch.istft(spectrum.mT, self.n_fft, self.hop_length, window=window, length=whole)
        return waveform[..., :samples]

    def _inverse_on_device(self, spectrum: Tensor, samples: int) -> Tensor:
        """Compute the waveform without `torch.istft`, whose check of the window synchronises with the host every time.

        Args:
            spectrum: The spectrum.
            samples: Length of the result. Samples that no frame covers are zero.

        Shape:
            (b, T, F), complex -> (b, samples)
        """
        window = self._window(spectrum.real.dtype)
        begin = self.n_fft // 2  # the transform is centred
        waveform = self._overlap_add(torch.fft.irfft(spectrum, self.n_fft) * window)[:, begin : begin + samples]
        weights = (window * window).expand(1, spectrum.shape[-2], self.n_fft)
        waveform = waveform / self._overlap_add(weights)[:, begin : begin + samples].clamp(min=1e-11)
        return F.pad(waveform, (0, samples - waveform.shape[1]))

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Overlap-add: (b, T, n_fft) -> (b, (T - 1) x hop + n_fft), as a sum of shifted copies, one per overlap."""
        overlap = self.n_fft // self.hop_length
        parts = frames.unflatten(-1, (overlap, self.hop_length))
        shifted = (F.pad(parts[:, :, k], (0, 0, k, overlap - 1 - k)) for k in range(overlap))
        return cast("Tensor", sum(shifted)).flatten(1)

    def _window(self, dtype: torch.dtype) -> Tensor:
        # Recompute it in float64: a converted float32 window would lose precision.
        if dtype == torch.float64:
            return torch.hann_window(self.n_fft, dtype=dtype, device=self.window.device)
        return self.window


class BandSplit(nn.Module):
    """Spectrum -> N features per band (section 2.2 of the paper): GroupNorm and a linear layer for each band.

    Adjacent bands of equal width are computed together.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.groups = nn.ModuleList(GroupSplit(group, config.feature_dim) for group in config.band_groups)

    def forward(self, spectrum: Tensor) -> Tensor:
        """Compute the features.

        Shape:
            (B, T, F), complex -> (K, B, T, N)
        """
        parts = torch.view_as_real(spectrum)
        return torch.cat([group(parts) for group in self.groups])


class GroupSplit(nn.Module):
    """The part of `BandSplit` for one group of bands."""

    def __init__(self, group: BandGroup, feature_dim: int):
        super().__init__()
        self.group = group
        inputs = 2 * group.band_width
        self.norm_weight = nn.Parameter(torch.ones(group.count, inputs))
        self.norm_bias = nn.Parameter(torch.zeros(group.count, inputs))
        self.weight = _per_band(group.count, inputs, feature_dim, inputs)
        self.bias = _per_band(group.count, inputs, feature_dim)

    def forward(self, spectrum: Tensor) -> Tensor:
        """Compute the features of the group: (B, T, F, 2), real and imaginary part -> (count, B, T, N)."""
        _, first_bin, count, width = self.group
        part = spectrum[:, :, first_bin : first_bin + count * width]
        x = rearrange(part, "b t (k w) i -> k b t (i w)", w=width)
        x = group_norm(x, self.norm_weight[:, None, None], self.norm_bias[:, None, None])
        return torch.einsum("kbti,kni->kbtn", x, self.weight) + self.bias[:, None, None]


class Estimator(nn.Module):
    """Features -> a complex mask or map for every stem and bin (section 2.4 of the paper).

    Per band: GroupNorm, N -> S x N, tanh, S groups of N -> N, tanh, S groups of N -> 4 w, read as
    (value/gate) x (real/imaginary) x S x w; the estimate is value * sigmoid(gate).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        bands, features, stems = config.bands, config.feature_dim, len(config.stems)
        self.config = config
        self.norm_weight = nn.Parameter(torch.ones(bands, features))
        self.norm_bias = nn.Parameter(torch.zeros(bands, features))
        self.weight1 = _per_band(bands, features, stems * features, features)
        self.bias1 = _per_band(bands, features, stems * features)
        self.weight2 = _per_band(bands, features, stems, features, features)
        self.bias2 = _per_band(bands, features, stems, features)
        self.weight3 = nn.ParameterList(
            _per_band(g.count, features, stems, 4 * g.band_width, features) for g in config.band_groups
        )
        self.bias3 = nn.ParameterList(_per_band(g.count, features, stems, 4 * g.band_width) for g in config.band_groups)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the masks or maps.

        Shape:
            (K, B, T, N) -> (B, S, T, F), complex
        """
        stems = len(self.config.stems)
        x = group_norm(x, self.norm_weight[:, None, None], self.norm_bias[:, None, None])
        x = torch.tanh(self._add(torch.einsum("kbtn,kmn->kbtm", x, self.weight1), self.bias1[:, None, None]))
        x = rearrange(x, "k b t (s n) -> k s b t n", s=stems)
        x = torch.tanh(self._add(torch.einsum("ksbtn,ksmn->ksbtm", x, self.weight2), self.bias2[:, :, None, None]))
        groups = zip(self.config.band_groups, self.weight3, self.bias3, strict=True)
        parts = torch.cat([self._group(x, *group) for group in groups], dim=-2)
        return torch.view_as_complex(parts if parts.dtype == torch.float64 else parts.float())

    def _group(self, x: Tensor, group: BandGroup, weight: Tensor, bias: Tensor) -> Tensor:
        part = x[group.first_band : group.first_band + group.count]
        y = self._add(torch.einsum("ksbtn,ksmn->ksbtm", part, weight), bias[:, :, None, None])
        # The published network concatenates the outputs of all stems and reads them as gate x part x stem x bin.
        y = rearrange(y, "k s b t m -> k b t (s m)")
        stems, width = len(self.config.stems), group.band_width
        value, gate = rearrange(y, "k b t (v i s w) -> v b s t (k w) i", v=2, i=2, s=stems, w=width)
        return value * torch.sigmoid(gate)

    def _add(self, products: Tensor, bias: Tensor) -> Tensor:
        """Add a bias; in training in the dtype of the products, because bfloat16 halves the memory traffic."""
        return products + (bias.to(products.dtype) if self.training else bias)


def _per_band(count: int, fan_in: int, *shape: int) -> nn.Parameter:
    """Create the stacked weights of `count` linear layers, initialised like `torch.nn.Linear`."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(count, *shape).uniform_(-bound, bound))
