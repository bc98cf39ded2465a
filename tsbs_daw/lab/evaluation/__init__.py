"""Measures: a model against known stems, the analysis against known songs; and the fit of the analysis."""
