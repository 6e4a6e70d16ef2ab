"""Planners as torch samplers, with the order of samples, the shares of ranks, and saved states."""
