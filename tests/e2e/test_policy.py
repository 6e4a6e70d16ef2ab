"""What becomes of samples that cannot be used: raised, judged by a function, written down, and when it is too many."""

from __future__ import annotations

import io
import json
import multiprocessing
import tarfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

import patchpack as pp
from patchpack.losses import Rejection, ShardFault

RECIPE = pp.recipes.siglip2_naflex(seq_len=256, rows_per_batch=2)


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


GOOD, NO_HEADER, CUT = jpeg(), b"not a picture", jpeg()[:1500]


def shard(path: Path, images: list[bytes]) -> str:
    with tarfile.open(path, "w") as tar:
        for i, image in enumerate(images):
            for name, data in ((f"{i:04}.jpg", image), (f"{i:04}.cls", b"1")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return str(path)


def mixed(path: Path) -> str:
    """Every fifth has no header, every seventh ends too soon."""
    return shard(path, [NO_HEADER if i % 5 == 4 else CUT if i % 7 == 6 else GOOD for i in range(40)])


def run(loader: Any) -> list[pp.PackedBatch]:
    return list(loader)


def streams(stream: str) -> Callable[..., Any]:
    """The same source as it goes, indexed, and through the stage in a pipeline."""

    def made(path: str, **options: Any) -> Any:
        if stream == "pack":
            samples = [(s.image, s.target) for s in members(path)]
            return DataLoader(pp.Pack(RECIPE, **options).over(samples), batch_size=None)
        source = pp.Index.build(path) if stream == "indexed" else path
        return pp.load(source, RECIPE, num_workers=2 if stream == "workers" else 0, **options)

    return made


def members(path: str) -> Iterator[pp.Sample]:
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.endswith(".jpg"):
                yield pp.Sample(member.name, tar.extractfile(member).read(), 1)  # type: ignore[union-attr]


KINDS = ("as it goes", "workers", "indexed", "pack")


@pytest.mark.parametrize("kind", KINDS)
def test_every_loss_is_a_line_of_json(kind: str, tmp_path: Path) -> None:
    loader = streams(kind)(mixed(tmp_path / "a.tar"), on_error=pp.ErrorPolicy("skip", log=tmp_path / "bad.jsonl"))
    batches = run(loader)
    lines = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    told = [r for batch in batches for r in batch.info.rejections]
    assert [Rejection(**{name: line[name] for name in Rejection._fields}) for line in lines] == told
    assert {line["stage"] for line in lines} == {"header", "decode"}
    assert len(lines) == len({line["key"] for line in lines}) == 8 + 4
    assert all(line["epoch"] == 0 and line["step"] >= 0 for line in lines)


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_decides(kind: str, tmp_path: Path) -> None:
    met: list[Rejection | ShardFault] = []

    def only_headers(loss: Rejection | ShardFault) -> bool:
        met.append(loss)
        return isinstance(loss, Rejection) and loss.stage == "header"

    loader = streams(kind)(mixed(tmp_path / "a.tar"), on_error=only_headers)
    with pytest.raises(pp.errors.DecodeError, match=r"6.*\[decode\]"):
        run(loader)
    assert [loss.stage for loss in met][-1] == "decode"
    always = streams(kind)(mixed(tmp_path / "a.tar"), on_error=lambda loss: met.append(loss) or True)
    met.clear()
    assert sum(batch.info.packed for batch in run(always)) == 40 - 12
    assert len(met) == 12


def test_a_fault_of_a_shard_is_judged_and_written_too(tmp_path: Path) -> None:
    path = Path(shard(tmp_path / "a.tar", [GOOD] * 6))
    path.write_bytes(path.read_bytes()[: 5 * 1024 * 2 - 300])
    met: list[Any] = []
    loader = pp.load(
        str(path), RECIPE, on_error=pp.ErrorPolicy(lambda loss: met.append(loss) or True, log=tmp_path / "bad.jsonl")
    )
    run(loader)
    assert any(isinstance(loss, ShardFault) for loss in met)
    lines = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines] == [loss.reason for loss in met]


@pytest.mark.parametrize("bad", [NO_HEADER, CUT], ids=["header", "decode"])
@pytest.mark.parametrize("kind", KINDS)
def test_too_many_in_a_row_are_an_error(kind: str, bad: bytes, tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", [GOOD] * 20 + [bad] * 60 + [GOOD] * 20)

    def packed(limit: int | None) -> int:
        loader = streams(kind)(path, on_error=pp.ErrorPolicy("skip", max_in_a_row=limit))
        return sum(batch.info.packed for batch in run(loader))

    if kind == "indexed" and bad == NO_HEADER:  # all of them are named before the first batch: nothing is silent
        assert packed(30) == 40
        return
    with pytest.raises(pp.errors.SourceError, match=r"\d+ samples in a row cannot be used.*(max_in_a_row|the first)"):
        packed(20)
    assert packed(None) == packed(61) == 40


@pytest.mark.parametrize("kind", ["as it goes", "indexed"])
def test_a_share_that_is_lost_is_an_error(kind: str, tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", [CUT if i % 3 == 0 else GOOD for i in range(240)])
    with pytest.raises(pp.errors.SourceError, match=r"of \d+ samples cannot be used, more than max_share=0.2"):
        run(streams(kind)(path, on_error=pp.ErrorPolicy("skip", max_share=0.2)))
    assert len(run(streams(kind)(path, on_error=pp.ErrorPolicy("skip", max_share=0.4)))) > 5


@pytest.mark.parametrize("stage", ["load", "pack"])
def test_bad_input_without_an_end_ends(stage: str) -> None:
    """The default fuse; nothing usable ever comes."""
    endless = (pp.Sample(str(i), NO_HEADER, 1) for i in count())
    with pytest.raises(pp.errors.SourceError, match="100 samples in a row cannot be used"):
        run(pp.load(endless, RECIPE, on_error="skip") if stage == "load" else pp.Pack(RECIPE, on_error="skip")(endless))


def test_a_row_begins_anew_after_a_good_one(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", ([NO_HEADER] * 9 + [GOOD]) * 6)
    assert sum(batch.info.packed for batch in run(pp.load(path, RECIPE, on_error=pp.ErrorPolicy("skip", max_in_a_row=10)))) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "ignore"}, "on_error is 'raise', 'skip', a function .* got 'ignore'"),
        ({"max_in_a_row": 0}, "max_in_a_row"),
        ({"max_in_a_row": 0.5}, "max_in_a_row"),
        ({"max_share": 1.5}, "max_share is a share of the samples"),
        ({"max_share": 1}, "max_share is a share of the samples"),
        ({"log": "nowhere/bad.jsonl"}, "there is no folder .nowhere."),
    ],
)
def test_a_policy_that_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=message):
        pp.ErrorPolicy(**options)
    if "on_error" in options:
        for make in (lambda: pp.load([], RECIPE, **options), lambda: pp.Pack(RECIPE, **options)):
            with pytest.raises(pp.errors.ConfigError, match=message):
                make()


def test_an_error_that_is_kept_keeps_no_process(tmp_path: Path) -> None:
    """Its traceback would hold the loop, that the workers; and what ends by chance closes what others have opened since."""
    path = shard(tmp_path / "a.tar", [GOOD] * 20 + [CUT] + [GOOD] * 80)
    with pytest.raises(pp.errors.DecodeError) as kept:
        run(pp.load(path, RECIPE, num_workers=2))
    assert multiprocessing.active_children() == []
    assert kept.tb is not None
