"""The exceptions of the package: one base class and its subclasses.

Each is constructed from one string, because torch's workers send exceptions in this form.
"""

from __future__ import annotations


class PatchpackError(Exception):
    """The base class of all exceptions that patchpack raises on purpose."""


class ConfigError(PatchpackError, ValueError):
    """A recipe, policy or argument that cannot work, found before the first image."""


class ShapeError(PatchpackError, ValueError):
    """An array with a wrong shape, dtype or content."""


class PackingError(PatchpackError):
    """A packer that broke its contract: it lost, doubled or invented an item, or filled a row with too many tokens."""


class SourceError(PatchpackError):
    """A source that is missing, empty, or of a kind that patchpack cannot read."""


class ShardError(SourceError):
    """A container (tar file) that ends early or is not a tar file."""


class IndexFileError(SourceError):
    """An index file that cannot be read or written: missing, not an index, incomplete, damaged, or of a newer version."""


class StaleIndexError(SourceError):
    """An index whose shards have changed or moved since the index was made."""


class WorkerError(PatchpackError, RuntimeError):
    """A painting process that died or no longer responds."""


class SampleError(PatchpackError):
    """One sample that cannot be used. The subclasses say at which stage it failed."""


class DecodeError(SampleError):
    """Bytes that are not a readable image, or an image over the pixel limit."""


class TargetError(SampleError):
    """A label that is missing, or of another kind than the label of the first sample."""


class SizeError(SampleError):
    """An image whose size the recipe refuses: it is too thin or too large, or has too many patches for a row."""
