"""Painters as torch datasets, and how their batches reach the training process."""
