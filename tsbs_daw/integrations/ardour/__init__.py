"""Installs the scripts into Ardour."""
