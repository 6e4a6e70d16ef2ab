"""The exceptions of the package: one base class, and subclasses that are made of one string, as torch workers need."""

from __future__ import annotations


class PatchpackError(Exception):
    """Root of everything patchpack raises on purpose."""


class ConfigError(PatchpackError, ValueError):
    """A recipe, policy or argument that cannot work, found before the first image."""


class ShapeError(PatchpackError, ValueError):
    """An array that is not what its place needs: wrong shape, dtype or contents."""


class PackingError(PatchpackError):
    """A packer broke its contract: lost, doubled or invented an item, or over-filled a row."""


class SourceError(PatchpackError):
    """A source that is missing, empty, or not something patchpack can read."""


class ShardError(SourceError):
    """A container (tar file) that ends early or is not a tar file."""


class IndexFileError(SourceError):
    """An index that cannot be used: missing, foreign, cut, damaged, of a newer version, or not to be written."""


class StaleIndexError(SourceError):
    """An index whose shards have changed since, or are not where it says."""


class WorkerError(PatchpackError, RuntimeError):
    """A painting process that died, or answers no more."""


class SampleError(PatchpackError):
    """One sample that cannot be used. Its leaves say at which stage it fell out."""


class DecodeError(SampleError):
    """Bytes that are not a readable image, or an image over the pixel limit."""


class TargetError(SampleError):
    """A label that is missing, or not of the kind the first sample had."""


class SizeError(SampleError):
    """An image whose size the recipe refuses: too thin, too large, or too many patches for a row."""
