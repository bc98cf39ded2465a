"""Checks of this machine: what is installed, and what it really computes."""
