"""Which number format the network's matrix products use; everything between them is float32 either way."""

from __future__ import annotations

import torch

from tsbs_daw.core.errors import UsageError
from tsbs_daw.network import ModelConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NAMES = ("auto", *DTYPES)

# Measured: from this width on, products are what takes the time, and halving it outweighs converting to and fro.
WORTHWHILE_FEATURES = 64


def choose_precision(name: str, device: torch.device, config: ModelConfig) -> torch.dtype:
    """ "auto" is bfloat16 where that was measured to be faster and to cost no quality, else float32.

    That is: a wide network on a processor that multiplies bfloat16 itself (AVX512-BF16, AMX). On CUDA `forms` measures
    the error of each format instead of asking here.

    Raises: UsageError: not one of NAMES
    """
    if name not in NAMES:
        raise UsageError(f"There is no precision {name!r}; choose from {', '.join(NAMES)}.")
    if name != "auto":
        return DTYPES[name]
    worthwhile = device.type == "cpu" and config.feature_dim >= WORTHWHILE_FEATURES and native_bfloat16()
    return torch.bfloat16 if worthwhile else torch.float32


def mark(dtype: torch.dtype, config: ModelConfig) -> str | None:
    """What results made in this precision are kept under.

    None for float32 in a narrow network: nothing else was used for it before there was a choice, and what was kept
    then is still right. For a wide one nobody can tell, so that is found no more.
    """
    if dtype == torch.float32 and config.feature_dim < WORTHWHILE_FEATURES:
        return None
    return str(dtype).removeprefix("torch.")


def native_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 without converting it first."""
    # Asked for by name: torch says so from 2.6 on, and not on every processor.
    questions = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(question() for question in questions if question)
