"""The optimisers of a training run: AdamW, or Muon for the matrices and AdamW for the rest.

torch.optim.Muon takes parameters of two axes only. Here nearly every weight is a stack of matrices, one for each band
or direction, so Muon is written out for stacks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tsbs_daw.lab.training.recipe import OptimiserPart
from tsbs_daw.network import TwoStageSeparator

# Of the quintic iteration that drives all singular values towards one (K. Jordan et al., "Muon", 2024).
NEWTON_SCHULZ, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


def make_optimiser(
    model: nn.Module, settings: OptimiserPart, map_levels: Tensor | None = None
) -> torch.optim.Optimizer:
    """Of what is to be trained. Weight decay on linear and convolution weights only: see `is_decayed`.

    Args: map_levels: (K,), what `band_levels` measured, where the map stage shall learn in its units (Muon only)
    """
    decay = {True: settings.weight_decay, False: 0.0}
    kinds: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            turned, scale = settings.kind == "muon" and is_matrix(name), _scale(model, name, map_levels)
            key = (is_decayed(name), turned, None if scale is None else name)
            group = {"params": [], "weight_decay": decay[is_decayed(name)]}
            extras = {"orthogonal": turned, "scale": scale} if settings.kind == "muon" else {}
            kinds.setdefault(key, group | extras)["params"].append(parameter)
    if settings.kind == "adamw":
        return torch.optim.AdamW(list(kinds.values()), lr=settings.learning_rate, betas=settings.betas, fused=True)
    return Muon(list(kinds.values()), lr=settings.learning_rate, betas=settings.betas)


@torch.no_grad()
def band_levels(network: TwoStageSeparator, targets: np.ndarray) -> Tensor:
    """Half the level of the mixture's spectrum in each band, as the network sees it: about what a mask leaves wrong.

    Args:    targets: (excerpts, S, C, samples)
    Returns: (K,)
    """
    power = torch.zeros(network.config.bins)
    for stems in targets:
        mixture = torch.from_numpy(stems.sum(axis=0))[None]
        power += network.spectrum(mixture / network.level(mixture)).abs().square().mean((0, 1))
    widths = network.config.band_widths
    return torch.stack([band.mean() for band in (power / len(targets)).split(widths)]).sqrt() / 2


def _scale(model: nn.Module, name: str, map_levels: Tensor | None) -> Tensor | None:
    """How much further than others the weights of the map stage's last layer go, in the shape of the parameter.

    Its answers are spectra, whose numbers lie a thousandfold apart between the bands, and at one rate for all the loud
    bands are never reached. Only the half that is the value has a level, not the half that is the gate.
    """
    if map_levels is None or not name.startswith(("map_estimator.weight3.", "map_estimator.bias3.")):
        return None
    parameter, group = model.get_parameter(name), model.config.band_groups[int(name.rsplit(".", 1)[1])]
    scale = torch.ones_like(parameter)
    outputs = scale.flatten(1, 2)  # of all stems together, the first half are values
    levels = map_levels[group.first_band : group.first_band + group.count].to(scale)
    outputs[:, : outputs.shape[1] // 2] = levels.reshape(-1, *[1] * (outputs.ndim - 1))
    return scale


def is_decayed(name: str) -> bool:
    """By name: parameters are stacked over bands and directions, so their number of axes tells nothing."""
    return not any("bias" in part or "norm" in part or part in ("A_log", "D") for part in name.split("."))


def is_matrix(name: str) -> bool:
    """Is the parameter a linear layer's weight, or a stack of such: (..., outputs, inputs)?"""
    return is_decayed(name) and "conv" not in name


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal` move by their momentum with all singular values made one; the others as in AdamW.

    `scale`, in a parameter's shape, makes some of its weights go further: as if they were written in larger units.

    A step has the root mean square that AdamW's has (arXiv 2502.16982), so one learning rate serves both.
    """

    def __init__(self, groups: list[dict], lr: float, betas: tuple[float, float], momentum: float = 0.9):
        super().__init__(
            groups, {"lr": lr, "betas": betas, "momentum": momentum, "eps": 1e-8, "orthogonal": False, "scale": None}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            move = self._by_direction if group["orthogonal"] else self._by_adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    change = group["lr"] * move(parameter.grad, self.state[parameter], group)
                    parameter.sub_(change if group["scale"] is None else change * group["scale"].to(change))

    def _by_direction(self, gradient: Tensor, state: dict, group: dict) -> Tensor:
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(state["momentum"], group["momentum"])  # Nesterov's
        return 0.2 * max(gradient.shape[-2:]) ** 0.5 * orthogonalise(ahead)

    def _by_adam(self, gradient: Tensor, state: dict, group: dict) -> Tensor:
        if not state:
            state.update(step=torch.zeros(()), mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        root = (state["square"] / (1 - second ** state["step"])).sqrt()
        return state["mean"] / (1 - first ** state["step"]) / (root + group["eps"])


def orthogonalise(matrices: Tensor) -> Tensor:
    """About U V^T for each matrix U S V^T of a stack: (..., outputs, inputs). Singular values come out near one."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if matrices.shape[-2] > matrices.shape[-1] else x
