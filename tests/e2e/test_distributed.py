"""Ranks together do what one process does: the same gradients, the same number of images, and a how-to that runs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import patchpack as pp
from patchpack.model import NaViT, cross_entropy

VAL = pp.samples.shards("val")
# 100 images fill eight rows: two batches of two rows for ranks 0 and 1, and nothing in the second batch of rank 2
RECIPE = pp.recipes.navit(resize=pp.resize.NaViT((48, 96)), seq_len=112, max_images=24, rows_per_batch=2)
WORLD_SIZE, STEPS = 3, 2
HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto" / "distributed.md"


class Answer(NamedTuple):
    """What a rank of three has to say."""

    rank: int
    images: list[int]  # its own, per micro-batch
    counted: list[int]  # global_images of the same
    pair: list[int]  # the same over ranks 0 and 2
    weighted: list[np.ndarray]  # gradients as global_images says to weigh
    compiled: list[np.ndarray]  # the same of a compiled model in static shapes
    naive: list[np.ndarray]  # gradients of the mean per micro-batch


def make_model(*, static: bool = False) -> NaViT:
    """In float64: pixels are normalised in float32 either way, what follows is exact enough to compare to 1e-10."""
    torch.manual_seed(0)
    return NaViT(patch_size=16, width=16, depth=1, heads=2, num_classes=10, static=static).double()


def gradients(model: NaViT) -> list[np.ndarray]:
    return [parameter.grad.numpy().copy() for parameter in model.parameters() if parameter.grad is not None]


def step_on_a_rank(rank: int, store: str, answers: Any) -> None:
    wait = timedelta(seconds=60)  # a rank that waits for ever is a failure
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD_SIZE, timeout=wait)
    torch.set_num_threads(1)
    batches = list(pp.load(VAL, RECIPE, tail="pad"))
    counted = [pp.global_images(batch) for batch in batches]
    first_and_last = dist.new_group([0, 2])
    pair = [int(pp.global_images(batch, first_and_last)) for batch in batches if rank != 1]

    def step(*, weighted: bool = True, compiled: bool = False) -> list[np.ndarray]:
        model = make_model(static=compiled)
        net = DistributedDataParallel(torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model)
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with contextlib.nullcontext() if last else net.no_sync():
                if weighted:
                    loss = cross_entropy(net(batch), batch.targets, reduction="sum") * WORLD_SIZE / sum(counted)
                else:
                    loss = cross_entropy(net(batch), batch.targets) / len(batches)
                loss.backward()
        return gradients(model)

    images = [int(batch.slot_mask.sum()) for batch in batches]
    own = [int(count) for count in counted]
    answers.put(Answer(rank, images, own, pair, step(), step(compiled=True), step(weighted=False)))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    store = tmp_path_factory.mktemp("group") / "store"  # ranks meet at a file: no port to be taken by somebody else
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [
        context.Process(target=step_on_a_rank, args=(rank, str(store), answers), daemon=True) for rank in range(WORLD_SIZE)
    ]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * WORLD_SIZE
    return sorted(found, key=lambda answer: answer.rank)


@pytest.fixture(scope="module")
def alone() -> list[np.ndarray]:
    """Gradients of the mean over all images, in one process, packed into other rows."""
    model = make_model()
    batches = list(pp.load(VAL, RECIPE.replace(seq_len=256, rows_per_batch=3)))
    losses = [cross_entropy(model(batch), batch.targets, reduction="sum") for batch in batches]
    (sum(losses) / 100).backward()
    return gradients(model)


@pytest.mark.slow
def test_ranks_hold_unequal_numbers_of_images_and_one_batch_none(ranks: list[Answer]) -> None:
    images = [answer.images for answer in ranks]
    assert [len(own) for own in images] == [STEPS] * WORLD_SIZE
    assert sum(map(sum, images)) == 100
    assert len({sum(own) for own in images}) == WORLD_SIZE
    assert images[-1][-1] == 0


@pytest.mark.slow
def test_weighted_by_images_ranks_and_accumulation_give_the_gradients_of_one_process(
    ranks: list[Answer], alone: list[np.ndarray]
) -> None:
    for answer in ranks:
        for found in (answer.weighted, answer.compiled):
            assert len(found) == len(alone)
            for ours, expected in zip(found, alone, strict=True):
                np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_a_mean_per_batch_gives_other_gradients(ranks: list[Answer], alone: list[np.ndarray]) -> None:
    for answer in ranks:
        off = [np.linalg.norm(ours - expected) for ours, expected in zip(answer.naive, alone, strict=True)]
        assert min(o / np.linalg.norm(expected) for o, expected in zip(off, alone, strict=True)) > 0.01


@pytest.mark.slow
def test_every_rank_counts_the_images_of_all(ranks: list[Answer]) -> None:
    images = np.array([answer.images for answer in ranks])
    for answer in ranks:
        assert answer.counted == images.sum(0).tolist()
    for answer in ranks[::2]:
        assert answer.pair == images[::2].sum(0).tolist()


# ------------------------------------------------------------------------------------------------------ in one process


def test_ranks_one_after_the_other_give_the_gradients_of_one_process(
    alone: list[np.ndarray],
) -> None:
    """Do by hand what DDP and an all-reduce do together: sum images over ranks, and take the mean of their gradients."""
    ranks = [list(pp.load(VAL, RECIPE, tail="pad", rank=rank, world_size=WORLD_SIZE)) for rank in range(WORLD_SIZE)]
    images = np.array([[int(batch.slot_mask.sum()) for batch in batches] for batches in ranks])
    assert images.shape == (WORLD_SIZE, STEPS)
    assert images.sum() == 100
    assert len({*images.sum(1).tolist()}) == WORLD_SIZE
    assert images[-1, -1] == 0
    weighted, naive = [], []
    for batches in ranks:
        model, mean = make_model(), make_model()
        for batch in batches:
            loss = cross_entropy(model(batch), batch.targets, reduction="sum") * WORLD_SIZE / int(images.sum())
            loss.backward()
            (cross_entropy(mean(batch), batch.targets) / len(batches)).backward()
        weighted.append(gradients(model))
        naive.append(gradients(mean))
    for i, expected in enumerate(alone):
        np.testing.assert_allclose(np.mean([own[i] for own in weighted], axis=0), expected, rtol=1e-10, atol=1e-12)
        off = np.linalg.norm(np.mean([own[i] for own in naive], axis=0) - expected)
        assert off / np.linalg.norm(expected) > 0.01


def test_a_group_is_asked_for_the_images_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count in a group of this process alone, whose sum is then doubled."""
    batch = next(iter(pp.load(VAL, RECIPE)))
    all_reduce, groups = dist.all_reduce, []

    def doubled(count: torch.Tensor, group: Any = None) -> None:
        groups.append(group)
        all_reduce(count, group=group)
        count *= 2

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        assert int(pp.global_images(batch)) == batch.info.packed
        monkeypatch.setattr(dist, "all_reduce", doubled)
        own = dist.new_group([0])
        assert int(pp.global_images(batch, own)) == 2 * batch.info.packed
        assert groups == [own]
    finally:
        dist.destroy_process_group()


# ------------------------------------------------------------------------------------------------------ without a group


def test_without_a_group_the_count_is_the_batchs() -> None:
    batch = next(iter(pp.load(VAL, RECIPE)))
    count = pp.global_images(batch)
    assert (count.dtype, count.shape, count.device) == (torch.int64, (), batch.slot_mask.device)
    assert int(count) == batch.info.packed > 0
    assert int(pp.global_images(batch._replace(slot_mask=batch.slot_mask.numpy()))) == int(count)


def test_images_count_without_a_label_and_labels_on_request() -> None:
    batch = next(iter(pp.load(VAL, RECIPE)))
    targets = batch.targets.clone()
    targets[0] = -100
    batch = batch._replace(targets=targets)
    assert int(pp.global_images(batch)) == int(batch.slot_mask.sum())
    labelled = pp.global_images(batch._replace(slot_mask=batch.targets != -100))
    assert 0 < int(labelled) == int(batch.slot_mask[1:].sum())


def test_a_batch_of_padding_counts_no_image() -> None:
    batch = next(iter(pp.load(VAL, RECIPE)))
    assert int(pp.global_images(batch._replace(slot_mask=torch.zeros_like(batch.slot_mask)))) == 0


# ---------------------------------------------------------------------------------------------------------- the how-to


@pytest.mark.docs
def test_the_howto_runs_under_torchrun(tmp_path: Path) -> None:
    from mktestdocs.__main__ import grab_code_blocks

    program = grab_code_blocks(HOWTO.read_text(), lang="python")[0]
    # gloo's threads may abort a process while its interpreter is torn down; what counts is to come to the last line
    (tmp_path / "train.py").write_text(f"{program}\nimport sys\nsys.stdout.flush()\nos._exit(0)\n")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}  # torchrun leaves a folder there
    command = [*launch, "--nproc-per-node", "2", "train.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"epoch 1: \d\.\d{3} of the loss from rank (\d)", done.stdout)) == ["0", "1"]
