"""Evaluation of models against known stems and of the analysis against known songs; fitting of the analysis."""
