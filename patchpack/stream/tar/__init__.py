"""Tar shards, local and remote: reading of bytes, members and samples."""
