"""The reasons why no row takes a sample."""

from __future__ import annotations

from patchpack.losses import Rejection, ShardFault
from patchpack.plan.online.decisions import SampleDecision
from patchpack.plan.online.losses import Losses
from patchpack.plan.policies.crop import WholeImage
from patchpack.plan.recipe import Recipe
from patchpack.types import Size


def refusal(recipe: Recipe, size: Size, num_tokens: int, seq_len: int, frames: int = 1) -> str:
    """Return the reason why no row takes an image of `num_tokens` tokens, as a text.

    Args:
        recipe: recipe of the batches.
        size: height and width of the image in pixels.
        num_tokens: number of tokens of the image, 0 if a policy refuses its size.
        seq_len: tokens per row.
        frames: number of frames of a clip. Default 1, an image.
    """
    if num_tokens == 0:
        part = "" if isinstance(recipe.crop, WholeImage) else f", or of what {recipe.crop!r} leaves of it"
        return f"{recipe.resize!r} refuses a size of {size.height} x {size.width} (height x width){part}"
    clip = f"a clip of {frames} frames of " if frames > 1 else ""
    return (
        f"{clip}{size.height} x {size.width} (height x width) becomes {num_tokens} tokens, a row holds "
        f"seq_len={seq_len}; raise seq_len or use a policy with a bound"
        f"{', and num_frames' if clip else ''}"
    )


def refused(decision: SampleDecision, recipe: Recipe, seq_len: int, text_len: int | None = None) -> Rejection | None:
    """Return a rejection that says why no row takes a sample, or None if a row takes the sample.

    Args:
        decision: the decisions about the sample.
        recipe: recipe of the batches.
        seq_len: tokens per row.
        text_len: text tokens per row. Default None, without texts.
    """
    first, num_images = decision.header, decision.num_images
    for header, num_tokens in zip(first.images, decision.table.num_tokens.tolist(), strict=True):
        if not 1 <= num_tokens <= seq_len:
            reason = refusal(recipe, header.size, num_tokens, seq_len, header.frames)
            return Rejection(header.shard, header.key, header.member, "plan", reason)
    if num_images > recipe.max_images or decision.num_tokens > seq_len:
        reason = (
            f"its {num_images} images become {decision.num_tokens} tokens, which must fit one row together: a row holds "
            f"seq_len={seq_len} tokens and max_images={recipe.max_images}"
        )
        return Rejection(first.shard, first.key, "", "plan", reason)
    if text_len is not None and not first.text:
        return Rejection(first.shard, first.key, "", "target", "it has no text, but with tokenize= every sample needs one")
    if text_len is not None and decision.num_text > text_len:
        reason = (
            f"its text has {decision.num_text} tokens, more than the text_len={text_len} of a row: raise text_len, or let "
            f"tokenize truncate"
        )
        return Rejection(first.shard, first.key, "", "plan", reason)
    return None


def too_many_errors(name: str, losses: Losses) -> str:
    """Return the reason why planning stops after too many unusable samples in a row, as a text."""
    return (
        f"{name}: {losses.in_a_row} samples in a row cannot be used; {losses}. Check the source, or "
        f"pass on_error=ErrorPolicy('skip', max_in_a_row=None) to load, or max_in_a_row=None to Planner, to accept any number"
    )


def too_few_steps(recipe: Recipe, patch_size: int, fault: ShardFault | None, *, nothing_usable: bool) -> str:
    """Return the reason why a source ended before the requested number of steps, as a text.

    Args:
        recipe: recipe of the batches.
        patch_size: pixels per side of a patch.
        fault: the first part of the source that could not be read to its end. None if there is none.
        nothing_usable: True if the recipe took no image in a whole pass over the source.
    """
    if nothing_usable:
        return f"{recipe.resize!r} accepted no image of a whole pass at patch_size={patch_size}"
    cure = "it can be read only once. Use a source that can be read again (a list, files), or fewer steps"
    return cure if fault is None else f"{cure}. Its first fault: {fault.shard}: {fault.reason}"
