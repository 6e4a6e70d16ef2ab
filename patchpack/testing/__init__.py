"""Property checks for your own policies and packers, and the hypothesis strategies that the checks use.

    from patchpack.testing import check_resize_policy
    check_resize_policy(MyPolicy())

This needs the ``testing`` extra (hypothesis). A check that fails raises `AssertionError` with the smallest example found.
"""

from patchpack.testing.checks import check_batch, check_crop_policy, check_drop_policy, check_packer, check_resize_policy
from patchpack.testing.strategies import (
    drop_policies,
    grids,
    lengths,
    packer_factories,
    recipes,
    resize_policies,
    size_tables,
    sizes,
    uniform_tables,
)

__all__ = [
    "check_batch",
    "check_crop_policy",
    "check_drop_policy",
    "check_packer",
    "check_resize_policy",
    "drop_policies",
    "grids",
    "lengths",
    "packer_factories",
    "recipes",
    "resize_policies",
    "size_tables",
    "sizes",
    "uniform_tables",
]
