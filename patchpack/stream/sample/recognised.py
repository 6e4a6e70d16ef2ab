"""The recognition of images among the members of an item, and the description of an item for errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from patchpack.image.arrays import is_array, is_image_shape
from patchpack.image.formats import starts_as_image
from patchpack.image.paths import is_surely_text_of_image, is_text
from patchpack.image.picture import is_picture, is_several
from patchpack.types import Clip


def is_surely_picture(value: object, formats: tuple[str, ...], *, labelled: bool) -> bool:
    """Return True for a value that is an image, and that cannot well be a label or a text.

    Args:
        value: a member of an item.
        formats: names of further formats, as in `Recipe.formats`.
        labelled: True if a label is read. An array of floats may then be the label.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return starts_as_image(bytes(value[:12]), formats)
    if is_text(value):
        return is_surely_text_of_image(value, formats)
    if is_array(value):
        if labelled or len(value.shape) == 4:
            last = isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim >= 3 and value.shape[-1] == 3
            return last or ("uint8" in str(value.dtype) and len(value.shape) >= 3 and value.shape[-3] == 3)
        return is_image_shape(value)
    return isinstance(value, (Image.Image, Clip))


def is_pair(item: Sequence[object], formats: tuple[str, ...]) -> bool:
    """Return True for two members of which the first is an image, or a list of at least one image and nothing else.

    A text before an image may be a key. It is taken for a path only if it ends with the extension of an image.

    Args:
        item: a list or a tuple.
        formats: names of further formats, as in `Recipe.formats`.
    """
    if len(item) != 2:
        return False
    first, second = item
    if is_text(first) and not is_surely_text_of_image(first, formats):
        return not is_surely_picture(second, formats, labelled=True)
    return is_picture(first) or (is_several(first) and bool(first) and all(map(is_picture, first)))


def described(item: object) -> str:
    """Return a description of an item for an error."""
    if isinstance(item, Mapping):
        return f"a {type(item).__name__} with {', '.join(map(repr, list(item)[:8]))}"
    if isinstance(item, (tuple, list)):
        return f"a {type(item).__name__} of {', '.join(described(entry) for entry in item[:4])}"
    if hasattr(item, "dtype") and hasattr(item, "shape") and not isinstance(item, np.ndarray):
        return f"a {type(item).__name__} {item.dtype} {list(item.shape)}"
    return f"a {type(item).__name__}"
