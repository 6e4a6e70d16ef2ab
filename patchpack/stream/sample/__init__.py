"""Samples: their fields, labels and texts, and the protocol of a source."""
