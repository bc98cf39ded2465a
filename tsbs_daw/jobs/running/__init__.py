"""Worker processes, and the leases under which jobs are theirs."""
