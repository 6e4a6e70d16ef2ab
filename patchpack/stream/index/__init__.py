"""The index of shards: sizes and places of all samples, read once and kept in one file, so that epochs can be planned first."""

from patchpack.stream.index.index import Index

__all__ = ["Index"]
