"""Benchmarks of reading: archives, indexes, planned epochs, packs, and the way of a batch from a worker."""
