"""The network TS-BSMamba2, in pure torch. Reads no file but a checkpoint."""

from tsbs_daw.model.config import FULL, LITE, TINY, ModelConfig
from tsbs_daw.model.network import Separation, TwoStageSeparator
from tsbs_daw.model.reference import load_reference_state_dict, reference_state_dict

__all__ = [
    "FULL",
    "LITE",
    "TINY",
    "ModelConfig",
    "Separation",
    "TwoStageSeparator",
    "load_reference_state_dict",
    "reference_state_dict",
]
