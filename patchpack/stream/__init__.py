"""CARRIES. Samples in, batches out, nothing lost."""
