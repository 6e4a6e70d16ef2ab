"""Benchmarks of reading: archives, indexes, planned epochs, packed shards, and the transfer of a batch from a worker."""
