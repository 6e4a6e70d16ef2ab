"""Planners as torch samplers: order, ranks, states."""
