"""The network on a GPU, in every form and number format, against the plain one in float64 on the same device.

In Triton's interpreter a narrow network is computed, in float32 alone: of bfloat16 the interpreter makes garbage.
"""

from __future__ import annotations

import copy
import os
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tsbs_daw.network import FULL, TINY, ModelConfig, TwoStageSeparator
from tsbs_daw.network.blocks import DualNet
from tsbs_daw.separation.forms import Form, choose_form, number_format

pytestmark = pytest.mark.gpu

SIZES = {"tiny": TINY, "bundled": replace(TINY, feature_dim=64, channel_activation="prelu"), "full": FULL}
FORMATS = {
    "float32": (torch.float32, False, 2e-5),
    "tf32": (torch.float32, True, 5e-3),
    "bfloat16": (torch.bfloat16, False, 4e-2),
}
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") == "1":
    NARROW = {"feature_dim": 16, "headdim": 16, "mask_blocks": 1, "map_blocks": 1, "chunk_s": 0.05}
    NARROW |= {"n_fft": 1024, "hop_length": 512, "band_widths": (171, 171, 171)}
    SIZES = {kind: replace(TINY, channel_activation=kind, **NARROW) for kind in ("tanh", "prelu")}
    FORMATS.pop("bfloat16")


def ratio(found: Tensor, wanted: Tensor) -> float:
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).norm() / wanted.norm()) if found.isfinite().all() else float("inf")


def samples_of(config: ModelConfig, seconds: float) -> int:
    return round(min(seconds, config.chunk_s) * config.sample_rate)


def network_and_mixture(config: ModelConfig, samples: int, device) -> tuple[TwoStageSeparator, Tensor]:
    torch.manual_seed(0)
    network = TwoStageSeparator(config).eval()
    return network.to(device), 0.1 * torch.randn(1, 2, samples).to(device)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FORMATS)
def test_all_gradients(size, name, any_device, measured):
    """Of the plain network, which is the one that is trained."""
    device, config = any_device, SIZES[size]
    dtype, tf32, limit = FORMATS[name]
    network, mixture = network_and_mixture(config, samples_of(config, 0.2 if size == "full" else 0.5), device)
    exact = copy.deepcopy(network).double()
    exact(mixture.double()).estimates.square().sum().backward()
    with number_format(device, dtype, tf32):
        estimates = network(mixture).estimates
    estimates.float().square().sum().backward()
    worst = (0.0, "")
    for (parameter, here), there in zip(network.named_parameters(), exact.parameters(), strict=True):
        if there.grad is not None and there.grad.norm() > 0:
            worst = max(worst, (ratio(here.grad, there.grad), parameter))
    measured(f"{size} {name} worst gradient {worst[1]}", worst[0], 0.3 if name == "bfloat16" else 30 * limit)


@pytest.mark.parametrize("size", SIZES)
def test_the_estimates_of_every_form(size, any_device, measured):
    """Of random weights; on a GPU a length whose frames need two blocks of a scan."""
    device, config = any_device, SIZES[size]
    network, mixture = network_and_mixture(config, samples_of(config, 1.0 if size == "full" else 2.0), device)
    with torch.inference_mode():
        wanted = copy.deepcopy(network).double()(mixture.double(), final_only=True).estimates
        wrong = []
        for name, (dtype, tf32, limit) in FORMATS.items():
            forms = {"plain": network}
            if name != "float32":
                from tsbs_daw.network.gpu_inference import for_gpu

                forms["kernels"] = for_gpu(network, dtype)
            for form, ready in forms.items():
                try:
                    measured(f"{size} {form} {name}", ratio(Form(form, ready, dtype, tf32)(mixture), wanted), limit)
                except Exception as error:
                    wrong.append(f"{form} {name}: {type(error).__name__}: {str(error)[:300]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("size", SIZES)
def test_the_kernels_on_whole_chunks(size, any_device, measured):
    """A block over all frames and bands of a chunk, as the ratio of what it adds."""
    device, config = any_device, SIZES[size]
    torch.manual_seed(1)
    block = DualNet(config).eval().to(device)
    x = torch.randn(config.bands, 2, 1 + config.chunk_samples // config.hop_length, config.feature_dim, device=device)
    from tsbs_daw.network.gpu_inference import KernelDualNet

    with torch.inference_mode():
        wanted = copy.deepcopy(block).double()(x.double(), 2)
        for name, limit in (("tf32", 3e-3), ("bfloat16", 2e-2)):
            if name not in FORMATS:
                continue
            dtype = FORMATS[name][0]
            with number_format(device, dtype, name == "tf32"):
                found = KernelDualNet(block, dtype)(x.clone(), 2)
            measured(f"{size} block {name}", ratio(found - x, wanted - x), limit)


def test_the_form_that_is_chosen(device, caplog, measured):
    """The kernels are the fastest for the full network, at least where the card has matrix units for bfloat16."""
    for size, config in SIZES.items():
        form = choose_form(TwoStageSeparator(config), device, "auto")
        print(f"{size}: {form.label}, {form.speed} x plain; for one chunk {form.for_batch(1).label}")
        assert form.error is not None, caplog.text
        assert form.speed is not None, caplog.text
        measured(f"{size} chosen {form.name} {form.format_name}", form.error, 0.02)
        assert form.speed >= 1.0, caplog.text
        if size == "full" and torch.cuda.get_device_capability(device) >= (8, 0):
            assert form.name == "kernels", caplog.text
    assert choose_form(TwoStageSeparator(TINY), device, "float32").name == "plain"
