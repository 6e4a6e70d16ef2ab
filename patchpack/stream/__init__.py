"""The stream from samples to packed batches. No sample is lost uncounted."""
