"""Samples that are sent inside the plans, because they cannot be read again."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

from patchpack._shown import said
from patchpack.errors import DecodeError, PatchpackError, SourceError
from patchpack.image.decode import to_rgb
from patchpack.stream.sample.fields import NO_LIMITS, Limits
from patchpack.types import Clip, Inline

if TYPE_CHECKING:
    from patchpack.types import Picture


class InlineSample:
    """A location that holds a user's objects themselves. It can always be pickled. See `Inline`.

    If a plan could not be pickled, the worker would wait for the plan for ever. So an object that cannot be pickled is replaced
    by the error that pickling raised. A PIL image is decoded before pickling, because PIL's own pickle keeps only the pixels of
    the file.

    Args:
        image: the image of the sample.
        target: the label of the sample.
        limits: options for reading a PIL image.
    """

    def __init__(self, image: object, target: object, limits: Limits = NO_LIMITS) -> None:
        self.image, self.target, self._limits = image, target, limits

    def __reduce__(self) -> tuple[object, ...]:
        image = self.image
        try:
            if isinstance(image, Clip) and isinstance(image.frames, (list, tuple)):
                image = Clip([cast("Picture", self._sent(frame)) for frame in image.frames])
            return pickle.loads, (pickle.dumps(Inline(self._sent(image), self.target)),)
        except DecodeError as error:
            return DecodeError, (str(error),)
        except Exception as error:
            return SourceError, (f"cannot be sent to a worker: {said(error)}",)

    def _sent(self, image: object) -> object:
        if isinstance(image, Image.Image):
            return np.asarray(to_rgb(image, background=self._limits.background, reading=self._limits.reading))
        return bytes(image) if isinstance(image, memoryview) else image


class InlineReader:
    """A `Reader` for a location that is the sample itself, or the error that pickling raised."""

    def __call__(self, location: Inline | InlineSample | PatchpackError) -> tuple[object, object]:
        """Return the image and label of the location, see `Reader`."""
        if isinstance(location, PatchpackError):
            raise location
        return location.image, location.target

    def target(self, location: Inline | InlineSample) -> object:
        """Return the label of the location, see `Reader`."""
        return location.target
