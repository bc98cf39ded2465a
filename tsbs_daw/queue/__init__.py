"""The durable queue: jobs in SQLite, and the spool folders that hold their requests and results."""
