"""Batches painted once and kept as tar files: for many epochs over the same packs, read and not painted."""

from patchpack.stream.packed.shards import PackedShards

__all__ = ["PackedShards"]
