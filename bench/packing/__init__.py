"""Benchmarks of packing: how full, how fast, how near to the bound, how evenly dealt to ranks."""
