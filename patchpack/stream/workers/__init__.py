"""Worker processes: shared memory, status, random numbers, exit."""
