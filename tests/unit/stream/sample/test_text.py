"""Texts beside images: named cases of reading, of tokens, of rows, of views, and what is refused."""

from __future__ import annotations

import json
import pickle
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import patchpack as pp
from helpers.captioned import COUNT, RECIPE, TEXT_LEN, caption, ids, png, tokenize, write_tar
from patchpack.plan.online.budget import Budget
from patchpack.plan.packing import FirstFit, Lookahead
from patchpack.stream.planning.planner import Planner
from patchpack.stream.sample.text import parse_text, require_picklable
from patchpack.stream.workers.shared_batch import unwrap, wrap
from patchpack.stream.workers.slot_pool import slot_bytes_of

# ------------------------------------------------------------------------------------------------------------- reading

CAPTION = json.dumps({"caption": "a cat", "list": ["a", "b"]})
READ: dict[str, tuple[str, Any, str]] = {
    "bytes": ("txt", "né".encode(), "né"),
    "text that is decoded already": ("txt", "a cat", "a cat"),
    "nothing is stripped": ("txt", b" a cat\n", " a cat\n"),
    "an empty text is a text": ("txt", b"", ""),
    "a field of JSON bytes": ("json:caption", CAPTION.encode(), "a cat"),
    "of JSON text": ("json:caption", CAPTION, "a cat"),
    "of an object": ("json:caption", {"caption": "a cat"}, "a cat"),
    "of a field with a colon": ("json:a:b", {"a:b": "x"}, "x"),
}
UNREADABLE: dict[str, tuple[str, Any, str]] = {
    "not UTF-8": ("txt", b"a\xff", "text 'txt' is not UTF-8: invalid start byte at byte 1"),
    "a number": ("txt", 3, "text 'txt' must be a str, got int 3"),
    "nothing": ("txt", None, "must be a str, got NoneType"),
    "no JSON": ("json:caption", b"{", "text 'json' is not JSON: "),
    "nested too deeply": ("json:caption", b"[" * 100_000, "text 'json' is not JSON: "),
    "another field": ("json:title", CAPTION, "has no field 'title', it has: 'caption', 'list'"),
    "no object": ("json:caption", b"[1]", r"has no field 'caption', it has: list \[1\]"),
    "several captions": ("json:list", CAPTION, r"text 'json:list' must be a str, got list \['a', 'b'\]"),
}


@pytest.mark.parametrize(("text", "value", "expected"), READ.values(), ids=READ)
def test_a_text_is_read(text: str, value: Any, expected: str) -> None:
    asked = parse_text(text, tokenize)
    assert asked is not None
    assert asked.of(value) == expected


@pytest.mark.parametrize(("text", "value", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_text_that_cannot_be_read_says_why(text: str, value: Any, why: str) -> None:
    asked = parse_text(text, tokenize)
    assert asked is not None
    with pytest.raises(pp.errors.TargetError, match=why):
        asked.of(value)


def fails(text: str) -> Any:
    raise KeyError(text)


TOKENS: dict[str, Any] = {
    "a list": [1, 2**31 - 1, -(2**31)],
    "a tuple": (3,),
    "an array": np.array([1, 2], dtype=np.uint8),
    "a tensor": torch.tensor([5, 6]),
}
NO_TOKENS: dict[str, tuple[Any, str]] = {
    "none": ([], "got none for str 'a cat'"),
    "floats": ([1.0], "must return a list of integers"),
    "bools": ([True], "must return a list of integers"),
    "words": (["a"], "must return a list of integers"),
    "a number": (3, "must return a list of integers"),
    "a table": ([[1, 2]], "must return a list of integers"),
    "ragged": ([[1], [1, 2]], "tokenize failed for str 'a cat': ValueError"),
    "None": (None, "must return a list of integers"),
    "too large": ([1, 2**31], "got 1 … 2147483648 for str 'a cat'"),
    "too small": ([-(2**31) - 1], "integers of 32 bits"),
    "beyond 64 bits": ([2**70], "must return a list of integers"),
}


@pytest.mark.parametrize("made", TOKENS.values(), ids=TOKENS)
def test_tokens_of_any_kind_of_list(made: Any) -> None:
    asked = parse_text("txt", lambda text: made)
    assert asked is not None
    assert np.frombuffer(asked.tokens("a cat"), np.int32).tolist() == [int(one) for one in made]


@pytest.mark.parametrize(("made", "why"), NO_TOKENS.values(), ids=NO_TOKENS)
def test_what_is_no_list_of_tokens_says_so(made: Any, why: str) -> None:
    asked = parse_text("txt", lambda text: made)
    assert asked is not None
    with pytest.raises(pp.errors.TargetError, match=why):
        asked.tokens("a cat")


def test_what_tokenize_raises_is_told() -> None:
    asked = parse_text("txt", fails)
    assert asked is not None
    with pytest.raises(pp.errors.TargetError, match="tokenize failed for str 'a cat': KeyError: 'a cat'"):
        asked.tokens("a cat")
    with pytest.raises(pp.errors.TargetError, match="with tokenize= the text of a sample must be a str, got NoneType"):
        asked.tokens(None)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no text_len": ({"tokenize": tokenize}, "must be passed together"),
    "no tokenize": ({"text_len": 8}, "must be passed together"),
    "a text that nobody reads": ({"text": "json:caption"}, "pass tokenize="),
    "no name": ({"text": "", "tokenize": tokenize, "text_len": 8}, "text must name a member"),
    "no field": ({"text": "json:", "tokenize": tokenize, "text_len": 8}, "text must name a member"),
    "no function": ({"tokenize": "words", "text_len": 8}, "tokenize must be a function"),
    "a class": ({"tokenize": dict, "text_len": 8}, "tokenize must be a function"),
    "text_len 0": ({"tokenize": tokenize, "text_len": 0}, "text_len"),
    "text_len True": ({"tokenize": tokenize, "text_len": True}, "text_len"),
}


@pytest.mark.parametrize(("options", "why"), REFUSED.values(), ids=REFUSED)
def test_refused_at_construction(options: dict[str, Any], why: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=why):
        pp.load([pp.Sample("a", png(0), 0, "a")], RECIPE, **options)
    with pytest.raises(pp.errors.ConfigError, match=why):
        pp.Pack(RECIPE, **options)


def test_an_index_has_no_texts() -> None:
    index = pp.Index.build(pp.samples.shards("val"))
    for options in ({"tokenize": tokenize, "text_len": 8}, {"text": "json:caption"}):
        with pytest.raises(pp.errors.ConfigError, match="an index holds no texts"):
            pp.load(index, RECIPE, **options)
    with pytest.raises(pp.errors.ConfigError, match="an index holds no texts"):
        Planner(index, RECIPE, tokenize=tokenize, text_len=8)


def test_a_function_that_no_other_process_can_have() -> None:
    require_picklable(tokenize, "spawn")
    require_picklable(lambda text: [1], "fork")
    with pytest.raises(pp.errors.ConfigError, match="cannot be sent to a process started by 'spawn'"):
        pp.load(
            [], RECIPE, tokenize=lambda text: [1], text_len=8, num_workers=1, dataloader={"multiprocessing_context": "spawn"}
        )


def test_only_what_reads_headers_has_the_function(tmp_path: Path) -> None:
    """A lambda does for threads, and for what paints in other processes."""
    path = write_tar(tmp_path / "s.tar", {"a": {"png": png(0), "txt": b"a"}})
    for source in (path, [pp.Sample("a", png(0), 0, "a")]):
        planner = Planner(source, RECIPE, target=None, tokenize=lambda text: [1], text_len=8)
        pickle.dumps(planner.source.reader)


# ---------------------------------------------------------------------------------------------------------------- rows


def test_units_by_hand() -> None:
    budget = Budget(4, 6)
    assert budget.capacity == 12
    assert [budget.charge(1, n) for n in (1, 2, 6)] == [3, 4, 12]
    assert budget.charge(4, 1) == 12
    assert Budget(64).capacity == 64
    assert Budget(64).charge(3, 0) == 3
    with pytest.raises(pp.errors.ConfigError, match="least common multiple"):
        Budget(1 << 19, (1 << 19) - 1)


def test_as_many_wait_as_without_text() -> None:
    for options in (Lookahead(), Lookahead(7), Lookahead(None, 5)):
        for max_images in (5, 80):
            pools = [Budget(max_images, n).packer(options, 64)._pool.shape for n in (None, 1000)]  # type: ignore[attr-defined]
            assert pools[0] == pools[1]


def samples(texts: list[str | None], image: Any = None) -> list[pp.Sample]:
    return [pp.Sample(str(i), png(0) if image is None else image, 0, text) for i, text in enumerate(texts)]


def batches_of(source: Any, **options: Any) -> list[pp.PackedBatch]:
    recipe = options.pop("recipe", RECIPE.replace(packer=FirstFit()))
    return list(pp.load(source, recipe, **{"tokenize": tokenize, "text_len": 6, **options}))


def test_a_row_is_full_when_its_text_is() -> None:
    """Images of one token each: only the texts decide."""
    (batch,) = batches_of(samples(["a b c", "a b c d", "a b c", "b b"]))
    assert batch.keys == [["0", "2"], ["1", "3"]]
    a, b, c, d = (tokenize(word)[0] for word in "abcd")
    assert batch.text_ids.tolist() == [[a, b, c, a, b, c], [a, b, c, d, b, b]]
    assert batch.text_segment_ids.tolist() == [[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 2, 2]]
    assert batch.text_ids.dtype == batch.text_segment_ids.dtype == torch.int32
    pp.validate(batch)


def test_a_text_belongs_to_the_first_of_several_images() -> None:
    two = [png(0), png(1)]
    (batch,) = batches_of([pp.Sample("x", two, 0, "a b"), pp.Sample("y", png(2), 0, "c")])
    assert batch.sample_ids[0].tolist() == [1, 1, 2, 0, 0]
    assert batch.text_segment_ids[0].tolist() == [1, 1, 3, 0, 0, 0]
    assert [image.text_ids.tolist() for image in pp.unpack(batch)] == [list(tokenize("a b"))] * 2 + [list(tokenize("c"))]
    assert pp.text.pool_mask(batch).any(-1)[0].tolist() == [True, False, True, False, False]
    pp.validate(batch)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_views_by_hand(kind: str) -> None:
    (batch,) = batches_of(samples(["a b", "c", "d e f"]), recipe=RECIPE.replace(max_images=6))
    if kind == "numpy":
        batch = batch._replace(**{
            name: getattr(batch, name).numpy() for name in ("text_ids", "text_segment_ids", "slot_mask")
        })  # fmt: skip
    assert batch.text_segment_ids.tolist() == [[1, 1, 2, 3, 3, 3]]
    assert pp.text.mask(batch).all()
    assert pp.text.position_ids(batch).tolist() == [[0, 1, 0, 0, 1, 2]]
    assert pp.text.attention_mask(batch)[0].tolist() == [
        [1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], *[[0, 0, 0, 1, 1, 1]] * 3,
    ]  # fmt: skip
    ragged = pp.text.ragged(batch)
    assert ragged.cu_seqlens.tolist() == [0, 2, 3, 6]
    assert ragged.places.tolist() == [[0, 0], [0, 1], [0, 2]]
    assert ragged.max_seqlen == 3
    assert ragged.text_ids.tolist() == batch.text_ids.reshape(-1).tolist()


def test_views_say_where_there_is_no_text() -> None:
    (batch,) = list(pp.load(samples(["a"]), RECIPE))
    assert batch.text_ids is None
    assert batch.text_segment_ids is None
    assert [image.text_ids for image in pp.unpack(batch)] == [None]
    for view in (pp.text.mask, pp.text.pool_mask, pp.text.attention_mask, pp.text.position_ids, pp.text.ragged):
        with pytest.raises(pp.errors.ConfigError, match="no texts"):
            view(batch)


def test_padding_looks_at_nothing_and_has_position_0() -> None:
    (batch,) = batches_of(samples(["a b"]), tail="pad")
    assert pp.text.mask(batch).tolist() == [[True] * 2 + [False] * 4, [False] * 6]
    assert pp.text.attention_mask(batch)[0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert pp.text.position_ids(batch).tolist() == [[0, 1, 0, 0, 0, 0], [0] * 6]
    assert pp.text.ragged(batch).cu_seqlens.tolist() == [0, 2]


BREAKS: dict[str, tuple[Any, str]] = {
    "one field alone": (lambda b: {"text_ids": None}, "must both be given"),
    "a dtype": (lambda b: {"text_ids": b.text_ids.long()}, "text_ids must be int32"),
    "other rows": (lambda b: {"text_ids": b.text_ids[:0], "text_segment_ids": b.text_segment_ids[:0]}, "must be"),
    "two lengths": (lambda b: {"text_ids": b.text_ids[:, 1:]}, "must be"),
    "ids in padding": (lambda b: {"text_ids": b.text_ids + 1}, "zero at padding"),
    "a text that nobody has": (lambda b: {"text_segment_ids": b.text_segment_ids * 3}, "first slot of every readable sample"),
    "a text that is missing": (lambda b: {"text_segment_ids": b.text_segment_ids.clamp(max=1)}, "first slot of every"),
    "another order": (lambda b: {"text_segment_ids": b.text_segment_ids.flip(1)}, "must not decrease"),
    "less than nothing": (lambda b: {"text_segment_ids": -b.text_segment_ids}, "not be negative"),
}


@pytest.mark.parametrize(("change", "why"), BREAKS.values(), ids=BREAKS)
def test_validate_refuses(change: Any, why: str) -> None:
    (batch,) = batches_of(samples(["a b", "c d"]))
    pp.validate(batch)
    with pytest.raises(pp.errors.ShapeError, match=why):
        pp.validate(batch._replace(**change(batch)))


# ----------------------------------------------------------------------------------------------------- what walks batches


def test_a_shared_batch_to_a_device_and_its_digest() -> None:
    batch = batches_of(samples(["a b", "c d"]))[0]
    assert pp.standardize(batch.to("cpu")).text_ids.tolist() == batch.text_ids.tolist()
    arrays = batch._replace(**{n: v.numpy() for n, v in batch._asdict().items() if isinstance(v, torch.Tensor)})
    shared, inside = wrap(arrays)
    inside.patches[...] = arrays.patches  # painted there; all else is copied
    back = unwrap(shared)
    assert pp.digest(back) == pp.digest(batch) == pp.digest(arrays)
    assert pp.digest(back._replace(text_ids=back.text_ids + 1)) != pp.digest(batch)
    room = slot_bytes_of(RECIPE.replace(rows_per_batch=500), 100) - slot_bytes_of(RECIPE.replace(rows_per_batch=500))
    assert abs(room - 500 * 100 * 8) <= 4096


def test_without_texts_nothing_is_new() -> None:
    """Not the digest either: a batch has the name it had."""
    source = samples([None, None])
    batch = next(iter(pp.load(source, RECIPE)))
    fields = {name: value for name, value in batch._asdict().items() if not name.startswith("text_")}
    before: Any = namedtuple("PackedBatch", list(fields))
    assert pp.digest(before(**fields)) == pp.digest(batch)


def test_one_picture_again_with_its_text() -> None:
    source = [pp.Sample(str(i), png(i), i, caption(i)) for i in range(COUNT)]
    options: dict[str, Any] = {"tokenize": tokenize, "text_len": TEXT_LEN}
    images = {image.key: image for batch in pp.load(source, RECIPE, **options) for image in pp.unpack(batch)}
    again = pp.replay(source, RECIPE, "7", **options)
    assert again.text_ids.tolist() == ids(7)
    assert pp.digest(again) == pp.digest(images["7"])
    with pytest.raises(pp.errors.ConfigError, match="must be passed together"):
        pp.replay(source, RECIPE, "7", tokenize=tokenize)
