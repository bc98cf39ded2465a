"""The network under its old name, for `from tsbs_daw.model import TwoStageSeparator`. New code: `tsbs_daw.network`."""

from tsbs_daw import network as _network
from tsbs_daw.network import __all__ as __all__


def __getattr__(name: str) -> object:
    return getattr(_network, name)
