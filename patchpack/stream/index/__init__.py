"""The index of shards: sizes and locations of all samples in one file, so that epochs are planned without opening shards."""

from patchpack.stream.index.index import Index

__all__ = ["Index"]
