"""Sizes and places of all samples, read once and kept in one file: what lets an epoch be planned before its first pixel."""

from patchpack.stream.index.index import Index

__all__ = ["Index"]
