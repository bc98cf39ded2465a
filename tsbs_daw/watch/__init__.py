"""Watch folders: from a file that appears to a job in the queue."""
