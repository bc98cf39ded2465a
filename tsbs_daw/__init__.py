"""Take a song apart inside your DAW: `Separator.load().separate(audio, sample_rate)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsbs_daw.separation import Separator

__version__ = "0.1.0"
__all__ = ["Separator", "__version__"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: torch takes seconds, and `tsbs-daw --help` must not wait for it.
    if name == "Separator":
        from tsbs_daw.separation import Separator

        return Separator
    raise AttributeError(f"module 'tsbs_daw' has no attribute {name!r}")
