"""The models on this machine: bundled, downloaded, converted."""
