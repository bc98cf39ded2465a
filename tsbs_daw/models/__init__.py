"""The models on this machine: bundled, downloaded or converted."""
