"""The optimisers of a training run: AdamW, or Muon for the matrices and AdamW for the rest.

torch.optim.Muon takes parameters of two axes only. Here nearly every weight is a stack of matrices, one for each band
or direction, so Muon is written out for stacks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tsbs_daw.training.recipe import OptimiserPart

# Of the quintic iteration that drives all singular values towards one (K. Jordan et al., "Muon", 2024).
NEWTON_SCHULZ, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


def make_optimiser(model: nn.Module, settings: OptimiserPart) -> torch.optim.Optimizer:
    """Of what is to be trained. Weight decay on linear and convolution weights only: see `is_decayed`."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = [parameter for name, parameter in named if settings.kind == "muon" and is_matrix(name)]
    decayed = [parameter for name, parameter in named if is_decayed(name) and not (matrices and is_matrix(name))]
    rest = [parameter for name, parameter in named if not is_decayed(name)]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    if settings.kind == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)
    groups.append({"params": matrices, "weight_decay": settings.weight_decay, "orthogonal": True})
    return Muon(groups, lr=settings.learning_rate, betas=settings.betas)


def is_decayed(name: str) -> bool:
    """By name: parameters are stacked over bands and directions, so their number of axes tells nothing."""
    return not any("bias" in part or "norm" in part or part in ("A_log", "D") for part in name.split("."))


def is_matrix(name: str) -> bool:
    """Is the parameter a linear layer's weight, or a stack of such: (..., outputs, inputs)?"""
    return is_decayed(name) and "conv" not in name


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal` move by their momentum with all singular values made one; the others as in AdamW.

    A step has the root mean square that AdamW's has (arXiv 2502.16982), so one learning rate serves both.
    """

    def __init__(self, groups: list[dict], lr: float, betas: tuple[float, float], momentum: float = 0.9):
        super().__init__(groups, {"lr": lr, "betas": betas, "momentum": momentum, "eps": 1e-8, "orthogonal": False})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            move = self._by_direction if group["orthogonal"] else self._by_adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(group["lr"] * move(parameter.grad, self.state[parameter], group))

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
