"""Presets: YAML files that say how stems are mixed, treated and delivered, and the chains of pedalboard they become."""
