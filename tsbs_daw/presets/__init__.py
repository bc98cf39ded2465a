"""Presets: YAML in, validated values out."""
