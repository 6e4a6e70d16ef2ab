"""Benchmarks of the reference model: what packing, positions, patch sizes and captions are worth in training."""
