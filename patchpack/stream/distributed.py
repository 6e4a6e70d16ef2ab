"""The number of images in a step, over all ranks together.

Packed batches hold different numbers of images, so a mean of per-rank means is not the mean over images.
"""

from __future__ import annotations

import torch
import torch.distributed as distributed
from torch import Tensor

from patchpack.batch.packed import PackedBatch


def global_images(batch: PackedBatch, group: distributed.ProcessGroup | None = None) -> Tensor:
    """Return the number of readable images of a batch, ``slot_mask.sum()``, summed over all ranks.

    The function makes one all-reduce. So every rank of the group must call this function for each of its batches, empty batches
    included.

    Weighting:
        DDP averages gradients over ranks. To get the gradient of the mean over all images of a step, do this for each
        micro-batch: take the *sum* of the losses of its images, multiply by ``world_size``, and divide by the number of images
        of all ranks and micro-batches. Then differentiate::

            total = sum(pp.global_images(batch) for batch in micro_batches)
            loss = cross_entropy(model(batch), batch.targets, reduction="sum") * world_size / total

        A step without any image on any rank has a total of 0. Use ``total.clamp(min=1)`` if that can happen.

    Images without a label are counted too. If readable images may lack a label (−100), count labels instead:
    ``pp.global_images(batch._replace(slot_mask=batch.targets != -100))``.

    Args:
        batch: a batch of numpy arrays or torch tensors. For NCCL, move the batch to the GPU first.
        group: the process group whose ranks are summed. Default None: all ranks.

    Returns:
        An int64 scalar on the batch's device (CPU for numpy), the same on every rank. Without an initialised process group, the
        number of readable images of this batch alone.
    """
    count = torch.as_tensor(batch.slot_mask).sum()
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(count, group=group)
    return count
