"""Presets: YAML files to validated values."""
