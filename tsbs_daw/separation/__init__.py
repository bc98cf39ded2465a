"""Separation: from a mixture to its stems."""

from tsbs_daw.separation.separator import Separator

__all__ = ["Separator"]
