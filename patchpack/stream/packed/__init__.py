"""Packed shards: batches that are painted once and kept as tar files, then read in many epochs without painting."""

from patchpack.stream.packed.shards import PackedShards

__all__ = ["PackedShards"]
