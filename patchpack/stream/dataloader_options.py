"""The options of torch's `DataLoader` that a user may pass to `load`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch.utils.data import DataLoader

from patchpack.errors import ConfigError
from patchpack.plan._integers import require_int
from patchpack.stream.sample.names import nearest

DECIDED = ("batch_size", "sampler", "batch_sampler", "collate_fn", "drop_last", "dataset", "in_order")
_OWN = {"num_workers": "num_workers=", "timeout": "on_error=patchpack.ErrorPolicy('raise', timeout=...)"}
DATALOADER_OPTIONS = frozenset(inspect.signature(DataLoader.__init__).parameters) - {"self", *_OWN}


def require_options(options: Any) -> dict[str, Any]:
    """Return the options of a torch DataLoader as a new dict, after a check. Return an empty dict for None.

    Raises:
        ConfigError: an option does not exist in DataLoader, or the recipe or `load` decides its value.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"dataloader is a dict of options of torch's DataLoader, got {options!r}")
    for name in options:
        if name in DECIDED:
            raise ConfigError(f"{name} is decided by the recipe (rows_per_batch, seq_len, max_images) or tail: leave it out")
        if name in _OWN:
            raise ConfigError(f"{name} is an argument of its own: pass {_OWN[name]} instead of dataloader={{{name!r}: ...}}")
        if name not in DATALOADER_OPTIONS:
            raise ConfigError(f"dataloader= has {name!r}, which is no option of DataLoader{nearest(name, DATALOADER_OPTIONS)}")
    prefetch = options.get("prefetch_factor")
    if prefetch is not None:
        require_int("prefetch_factor", prefetch, 1, 1 << 20)
    return dict(options)
