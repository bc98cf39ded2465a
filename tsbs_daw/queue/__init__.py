"""The durable queue: jobs in SQLite, and the spool's folders in which they come and go."""
