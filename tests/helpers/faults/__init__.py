"""Container faults by name: each writes one shard and states the exact account of it.

A shard holds three samples unless it says otherwise, ``s1``, ``s2`` and ``s3``, image before label; the second is at fault.
"""

from helpers.faults import contents, names, tars  # noqa: F401  each enters its own into the table
from helpers.faults.table import FAULTS, Fault

__all__ = ["FAULTS", "Fault"]
