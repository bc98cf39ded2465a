"""Compiles the kernels of a size in a number format ahead of who needs them: python warm.py full bfloat16."""

import sys
from dataclasses import replace

import torch

from tsbs_daw.lab.bench.networks import SIZES
from tsbs_daw.network.blocks import DualNet
from tsbs_daw.network.gpu_inference import KernelDualNet

SIZES = SIZES | {"bundled": replace(SIZES["tiny"], feature_dim=64, channel_activation="prelu")}  # as its recipe says
config, dtype = SIZES[sys.argv[1]], getattr(torch, sys.argv[2])
with torch.inference_mode():
    block = KernelDualNet(DualNet(config).to("cuda"), dtype)
    block(torch.randn(2, 2, 70, config.feature_dim, device="cuda"), 2)
torch.cuda.synchronize()
