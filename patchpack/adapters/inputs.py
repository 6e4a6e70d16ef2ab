"""Keyword arguments of a model: a dict that can be moved."""

from __future__ import annotations

from typing import Any, cast

import torch

from patchpack.batch._types import Device


class ModelInputs(dict[str, Any]):
    """Arguments by name, as ``model(**inputs)`` takes them; ``inputs.pixel_values`` is ``inputs["pixel_values"]``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no input {name!r}; there are {', '.join(self)}") from None

    def to(
        self,
        device: Device | torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> ModelInputs:
        """The same on a device; `dtype` is of what is a real number, masks and ids keep theirs. Either may come first."""
        if isinstance(device, torch.dtype):
            device, dtype = dtype, device
        place = cast("Device | None", device)  # no dtype any more
        moved = {}
        for name, value in self.items():
            if isinstance(value, torch.Tensor):
                value = value.to(place, dtype if value.is_floating_point() else None, non_blocking=non_blocking)
            moved[name] = value
        return ModelInputs(moved)
