"""Session files that DAWs open, and what is installed into DAWs."""
