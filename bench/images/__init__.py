"""Benchmarks of images: the cost of decoding, resampling and painting, beside other packages, and the figures of the docs."""
