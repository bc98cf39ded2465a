"""Effect chains: an output of a preset, rendered with pedalboard."""
