"""The exceptions of the package: one base class and its subclasses.

Each exception is constructed from one string, because torch's workers send exceptions in this form.
"""

from __future__ import annotations


class PatchpackError(Exception):
    """The base class of all exceptions that patchpack raises on purpose."""


class ConfigError(PatchpackError, ValueError):
    """Raised if a recipe, policy or argument cannot work. It is raised before the first image is read."""


class ShapeError(PatchpackError, ValueError):
    """Raised if an array has a wrong shape, dtype or content."""


class PackingError(PatchpackError):
    """Raised if a packer loses, doubles or invents an item, or fills a row with too many tokens."""


class SourceError(PatchpackError):
    """Raised if a source is missing, empty, or of a kind that patchpack cannot read."""


class ShardError(SourceError):
    """Raised if a container (tar file) ends early or is not a tar file."""


class IndexFileError(SourceError):
    """Raised if an index file cannot be written, or is missing, incomplete, damaged, of a newer version, or not an index."""


class StaleIndexError(SourceError):
    """Raised if shards have changed or moved since their index was made."""


class WorkerError(PatchpackError, RuntimeError):
    """Raised if a painting process died or no longer responds."""


class SampleError(PatchpackError):
    """Raised if a sample cannot be used. The subclasses say at which stage it failed."""


class DecodeError(SampleError):
    """Raised if bytes are not a readable image, or if an image is over the pixel limit."""


class TargetError(SampleError):
    """Raised if a label is missing, or of another kind than the label of the first sample."""


class SizeError(SampleError):
    """Raised if the recipe refuses the size of an image: too thin, too large, or too many patches for a row."""
