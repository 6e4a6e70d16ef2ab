"""Benchmarks of images: what decoding, resampling and painting cost beside the peers, and the figures of docs/explain."""
