"""The JSON documents that the program reads and writes, and nothing else."""
