"""The keyword arguments of a model, as a dict whose tensors can be moved to a device."""

from __future__ import annotations

from typing import Any, cast

import torch

from patchpack.batch._types import Device


class ModelInputs(dict[str, Any]):
    """A dict of arguments for ``model(**inputs)``. ``inputs.pixel_values`` is ``inputs["pixel_values"]``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"these inputs have no {name!r}, only {', '.join(self)}") from None

    def to(
        self,
        device: Device | torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> ModelInputs:
        """Return a copy with the tensors moved to a device, converted to a dtype, or both.

        Args:
            device: device of the returned tensors. None (default) keeps the device of each tensor. A dtype given here is
                used as `dtype`.
            dtype: dtype of the returned floating-point tensors. None (default) keeps the dtype of each tensor. Masks and ids
                always keep their dtype.
            non_blocking: True copies from pinned memory without waiting for the copy (default False).
        """
        if isinstance(device, torch.dtype):
            device, dtype = dtype, device
        place = cast("Device | None", device)  # no dtype any more
        moved = {}
        for name, value in self.items():
            if isinstance(value, torch.Tensor):
                value = value.to(place, dtype if value.is_floating_point() else None, non_blocking=non_blocking)
            moved[name] = value
        return ModelInputs(moved)
