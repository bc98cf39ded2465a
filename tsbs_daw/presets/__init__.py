"""Presets: YAML files, read and validated."""
