"""Painters as torch datasets, and the transports that bring their batches to the training process."""
