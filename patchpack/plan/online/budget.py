"""The capacity of rows that hold text and images. Packers see both as slots, because they count only tokens and slots."""

from __future__ import annotations

from dataclasses import replace
from math import lcm

from patchpack.errors import ConfigError
from patchpack.plan._integers import require_int
from patchpack.plan.packing import Lookahead, Packer, PackerFactory

MOST_TEXT = 1 << 20
_MOST_UNITS = 1 << 30  # packers take this number of slots as no limit


class Budget:
    """The capacity of a row for images and text, counted in units. A row has `capacity` units.

    A text token takes ``capacity / text_len`` units and an image takes ``capacity / max_images`` units. A sample takes the
    units of its text or the units of its images, whichever is more. So a row within its capacity holds at most `text_len` text
    tokens and `max_images` images. The capacity is the least common multiple of these two numbers, so nothing is rounded.
    Without text a unit is a slot.

    Args:
        max_images: slots per row.
        text_len: text tokens per row, ``1 … 2**20``. Default None, without texts.

    Raises:
        ConfigError: the least common multiple of the two numbers is above 2**30.
    """

    def __init__(self, max_images: int, text_len: int | None = None) -> None:
        if text_len is not None:
            require_int("text_len", text_len, 1, MOST_TEXT)
        self.max_images, self.text_len = max_images, text_len
        self.capacity = max_images if text_len is None else lcm(max_images, text_len)
        if self.capacity > _MOST_UNITS:
            raise ConfigError(
                f"the least common multiple of text_len={text_len} and max_images={max_images} must be at most 2**30, got "
                f"{self.capacity}: make one a multiple of the other"
            )

    def charge(self, num_images: int, num_text: int) -> int:
        """Return the number of units that a sample takes: ``1 … capacity`` if the sample fits an empty row."""
        units = num_images * (self.capacity // self.max_images)
        return units if self.text_len is None else max(units, num_text * (self.capacity // self.text_len))

    def packer(self, factory: PackerFactory, seq_len: int) -> Packer:
        """Return a packer whose slots are the units of this budget.

        If a `Lookahead` has no value for `waiting`, its default still depends on `max_images`, not on the number of units.
        """
        if self.text_len is not None and isinstance(factory, Lookahead) and factory.waiting is None:
            factory = replace(factory, waiting=factory.limits(self.max_images)[0])
        return factory(seq_len, self.capacity)
