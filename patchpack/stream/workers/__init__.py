"""Worker processes: their shared memory, status, random numbers and exit."""
