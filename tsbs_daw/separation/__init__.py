"""Separation of a mixture into its stems."""

from tsbs_daw.separation.separator import Separator

__all__ = ["Separator"]
