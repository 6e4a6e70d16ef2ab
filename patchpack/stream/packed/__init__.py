"""Packed shards: tar files of batches. A batch is painted once, and read in many epochs without painting."""

from patchpack.stream.packed.shards import PackedShards

__all__ = ["PackedShards"]
