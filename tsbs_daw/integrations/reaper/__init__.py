"""Installs the actions into REAPER."""
