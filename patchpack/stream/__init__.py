"""The stream from samples to packed batches. Every sample that is not packed is counted."""
