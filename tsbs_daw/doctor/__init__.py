"""Checks of this machine: what is installed, and whether it computes correctly."""
