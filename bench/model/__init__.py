"""Benchmarks of the reference model: the effect of packing, positions, patch sizes and captions on training."""
