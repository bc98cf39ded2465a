"""The optimisers of a training run and their learning rate: AdamW, or Muon for the matrices and AdamW for the rest.

torch.optim.Muon supports only parameters with two axes. Here nearly every weight is a stack of matrices, one for each
band or direction, so this module implements Muon for stacks. The learning rate is a pure function of a run's progress,
in steps or in time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from tsbs_daw.lab.training.recipe import OptimiserPart
from tsbs_daw.network import TwoStageSeparator

# Coefficients of the quintic iteration that drives all singular values towards one (K. Jordan et al., "Muon", 2024).
NEWTON_SCHULZ, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


def make_optimiser(
    model: nn.Module, settings: OptimiserPart, map_levels: Tensor | None = None
) -> torch.optim.Optimizer:
    """Create the optimiser of the trainable parameters. Only linear and convolution weights decay; see `is_decayed`.

    Args:
        model: The network.
        settings: The recipe's settings.
        map_levels: Result of `band_levels`, (K,), to train the map stage in units of these levels (Muon only).
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
    """Return half the level of the mixture's spectrum in each band: about the error that a mask leaves.

    Shape:
        targets: (excerpts, S, C, samples)
        result: (K,)
    """
    power = torch.zeros(network.config.bins)
    for stems in targets:
        mixture = torch.from_numpy(stems.sum(axis=0))[None]
        power += network.spectrum(mixture / network.level(mixture)).abs().square().mean((0, 1))
    widths = network.config.band_widths
    return torch.stack([band.mean() for band in (power / len(targets)).split(widths)]).sqrt() / 2


def _scale(model: nn.Module, name: str, map_levels: Tensor | None) -> Tensor | None:
    """Return factors for the steps of the map stage's last layer, in the shape of the parameter.

    Its outputs are spectra, whose levels differ a thousandfold between bands; with one rate for all, the loud bands
    would never be reached. Only the value half of the outputs is scaled, not the gate half.
    """
    if map_levels is None or not name.startswith(("map_estimator.weight3.", "map_estimator.bias3.")):
        return None
    groups = cast("TwoStageSeparator", model).config.band_groups  # nothing else has a map stage
    parameter, group = model.get_parameter(name), groups[int(name.rsplit(".", 1)[1])]
    scale = torch.ones_like(parameter)
    outputs = scale.flatten(1, 2)  # for all stems together, the first half are values
    levels = map_levels[group.first_band : group.first_band + group.count].to(scale)
    outputs[:, : outputs.shape[1] // 2] = levels.reshape(-1, *[1] * (outputs.ndim - 1))
    return scale


def is_decayed(name: str) -> bool:
    """Return whether a parameter decays, by name: parameters are stacked, so the number of axes does not tell."""
    return not any("bias" in part or "norm" in part or part in ("A_log", "D", "slopes") for part in name.split("."))


def is_matrix(name: str) -> bool:
    """Return whether a parameter is a linear layer's weight, or a stack of them: (..., outputs, inputs)."""
    return is_decayed(name) and "conv" not in name


class Muon(torch.optim.Optimizer):
    """Muon for groups with `orthogonal`, which step along their orthogonalised momentum; AdamW for the others.

    `scale`, in the shape of a parameter, enlarges the steps of some weights, as if they were in larger units. All
    matrices of the same shape are orthogonalised as one stack, so that a step takes some hundred operations instead of
    thousands, and none waits for the device.

    A step has the same root mean square as one of AdamW (arXiv 2502.16982), so both use the same learning rate.
    """

    def __init__(self, groups: list[dict], lr: float, betas: tuple[float, float], momentum: float = 0.9):
        super().__init__(
            groups, {"lr": lr, "betas": betas, "momentum": momentum, "eps": 1e-8, "orthogonal": False, "scale": None}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # takes no closure
        stacks: dict[tuple, list[tuple[nn.Parameter, dict]]] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shape = tuple(parameter.shape[-2:]) if group["orthogonal"] else None
                    settings = (group["lr"], group["weight_decay"], group["momentum"], group["betas"], group["eps"])
                    stacks.setdefault((shape, *settings), []).append((parameter, group))
        for (shape, *_), members in stacks.items():
            parameters: list[Tensor] = [parameter for parameter, _ in members]
            group = members[0][1]
            changes = self._by_adam(parameters, group) if shape is None else self._by_direction(parameters, group)
            changes = [change if own["scale"] is None else change * self._scale_of(own, parameter)
                       for change, (parameter, own) in zip(changes, members, strict=True)]  # fmt: skip
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, changes, alpha=-group["lr"])

    def _by_direction(self, parameters: list[Tensor], group: dict) -> list[Tensor]:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov's
        stack = torch.cat([part.reshape(-1, *part.shape[-2:]) for part in ahead])
        turned = 0.2 * max(stack.shape[-2:]) ** 0.5 * orthogonalise(stack)
        parts = turned.split([part[..., 0, 0].numel() for part in ahead])
        return [part.reshape(parameter.shape) for part, parameter in zip(parts, parameters, strict=True)]

    def _by_adam(self, parameters: list[Tensor], group: dict) -> list[Tensor]:
        for parameter in parameters:
            if not (state := self.state[parameter]):
                state.update(step=torch.zeros(()), mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        states = [self.state[parameter] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means, squares = [state["mean"] for state in states], [state["square"] for state in states]
        for state in states:
            state["step"] += 1  # on the CPU, wherever the parameters are
        first, second = group["betas"]
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - second)
        steps = [float(state["step"]) for state in states]
        roots = torch._foreach_sqrt(torch._foreach_div(squares, [1 - second**step for step in steps]))
        torch._foreach_add_(roots, group["eps"])
        return list(torch._foreach_div(torch._foreach_div(means, [1 - first**step for step in steps]), roots))

    @staticmethod
    def _scale_of(group: dict, parameter: nn.Parameter) -> Tensor:
        if group["scale"].device != parameter.device:  # created before the model was moved to its device
            group["scale"] = group["scale"].to(parameter)
        return group["scale"]


def orthogonalise(matrices: Tensor) -> Tensor:
    """Approximate U V^T for each matrix U S V^T of a stack, (..., outputs, inputs); singular values become near one."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    x = x.reshape(-1, *x.shape[-2:])
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if matrices.shape[-2] > matrices.shape[-1] else x).reshape(matrices.shape)


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients to a norm of at most `max_norm`, without waiting for the device.

    If the norm is not finite, all gradients become zero, so that the step changes almost nothing.

    Returns:
        The norm before scaling.
    """
    members = [parameter for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([parameter.grad.flatten() for parameter in members if parameter.grad is not None])
    norm = torch.linalg.vector_norm(flat)
    scale = torch.where(norm.isfinite(), (max_norm / (norm + 1e-6)).clamp(max=1.0), 0.0)
    flat.nan_to_num_(0.0, 0.0, 0.0).mul_(scale)
    for parameter, part in zip(members, flat.split([parameter.numel() for parameter in members]), strict=True):
        parameter.grad = part.view_as(parameter)
    return norm


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Update average <- decay * average + (1 - decay) * model; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1.0 - decay)
    for ours, theirs in zip(average.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)


def learning_rate(step: int, settings: OptimiserPart, share: float | None = None) -> float:
    """Return the learning rate of a step: a linear warm-up, then the decay, then the final rate.

    Args:
        step: Number of the step, from 0.
        settings: The recipe's settings.
        share: Share of the run's time that has passed, 0 to 1; None to use `total_steps`.
    """
    if share is None:
        length = max(1, settings.total_steps - settings.warmup_steps)
        share = min(1.0, max(0.0, (step - settings.warmup_steps) / length))
    climb = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    return settings.learning_rate * climb * _fall(share, settings)


def _fall(share: float, settings: OptimiserPart) -> float:
    if settings.decay == "constant":
        return 1.0
    if settings.decay == "exponential":
        return settings.final_share**share
    return settings.final_share + (1.0 - settings.final_share) * 0.5 * (1.0 + math.cos(math.pi * share))


def ema_decay(step: int, settings: OptimiserPart) -> float:
    """Return the decay of the average; low at first, so that the average soon forgets the random start."""
    return min(settings.ema_decay, (1.0 + step) / (10.0 + step))


class Clock:
    """Measures the share of a run's time that has passed, so that a run of any duration ends with the final rate.

    The run's time is the time of earlier calls plus the duration of this call.

    Args:
        deadline: When steps end, in the time of `now`.
        trained_s: Time that earlier calls spent in steps.
        now: The clock.
    """

    def __init__(self, deadline: float, trained_s: float, now: Callable[[], float] = time.monotonic):
        self._now, self._deadline, self._before, self._begin = now, deadline, trained_s, now()

    def reserve(self, seconds: float) -> None:
        """End this much earlier, to leave time after the last step."""
        self._deadline -= seconds

    @property
    def share(self) -> float:
        passed = self._before + self._now() - self._begin
        whole = self._before + max(self._deadline - self._begin, 1e-3)
        return min(1.0, passed / whole)

    @property
    def over(self) -> bool:
        return self._now() >= self._deadline
