"""Watch folders: finding new songs in folders and turning them into jobs of the queue."""
