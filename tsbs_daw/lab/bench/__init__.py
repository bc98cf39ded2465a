"""Speed and memory on this machine, each figure measured in a process of its own and held against its target."""
