"""Planners as torch samplers: order, ranks and states."""
