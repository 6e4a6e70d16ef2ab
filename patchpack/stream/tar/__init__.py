"""Tar shards: bytes, members, samples, local and remote."""
