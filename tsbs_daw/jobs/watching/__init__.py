"""Watch folders: what is completely written in them comes into the queue."""
