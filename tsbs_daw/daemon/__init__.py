"""The process that owns the queue, the watch folders and the workers."""
