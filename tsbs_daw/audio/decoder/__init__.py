"""Decoders in separate processes, with limits."""
