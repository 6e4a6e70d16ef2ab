"""Painters as torch datasets, and the way of their batches to the training process."""
