"""Under plain torch, Accelerate and Lightning: every image once, equal steps; and what must not be handed to them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

import patchpack as pp
from patchpack.stream.planning.epoch_plan import EpochPlan

TORCH = """
import datetime, json
import torch
import torch.distributed as dist
import patchpack as pp

dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(768, 1))
index = pp.Index.build(pp.samples.shards("val"))
loader = pp.load(index, pp.recipes.navit(seq_len=256, rows_per_batch=1), tail="short", shuffle=50)
keys = []
for batch in loader:
    model(pp.standardize(batch.to("cpu")).patches).square().mean().backward()
    keys.append([key for row in batch.keys for key in row])
dist.barrier()
print(json.dumps([dist.get_rank(), len(loader), keys]), flush=True)
dist.destroy_process_group()
"""

ACCELERATE = """
import json, sys
import torch
from accelerate import Accelerator
import patchpack as pp

accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(768, 1)
optimizer = torch.optim.SGD(model.parameters(), 1e-3)
model, optimizer = accelerator.prepare(model, optimizer)            # not the loader: it knows its rank
index = pp.Index.build(pp.samples.shards("val"))
loader = pp.load(index, pp.recipes.navit(seq_len=256, rows_per_batch=1), tail="pad", shuffle=50)
keys = []
for batch in loader:
    batch = pp.standardize(batch.to(accelerator.device))
    accelerator.backward(model(batch.patches).square().mean())
    optimizer.step()
    optimizer.zero_grad()
    keys.append([key for row in batch.keys for key in row])
accelerator.wait_for_everyone()
print(json.dumps([accelerator.process_index, len(loader), keys]), flush=True)
try:
    for batch in accelerator.prepare(loader):
        pass
except TypeError:
    print(json.dumps("refused"), flush=True)
accelerator.end_training()
"""

LIGHTNING = """
import json, os, sys
import torch
import lightning
import patchpack as pp

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model, self.keys = torch.nn.Linear(768, 1), []
    def train_dataloader(self):                                     # here: by now the ranks know of each other
        index = pp.Index.build(pp.samples.shards("val"))
        return pp.load(index, pp.recipes.navit(seq_len=256, rows_per_batch=1), tail="pad", shuffle=50)
    def training_step(self, batch, number):
        self.keys.append([key for row in batch.keys for key in row])
        return self.model(pp.standardize(batch.to(self.device)).patches).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)

module = Module()
trainer = lightning.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", use_distributed_sampler=False, max_epochs=1, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=os.getcwd(),
)
trainer.fit(module)
print(json.dumps([trainer.global_rank, trainer.global_step, module.keys]), flush=True)
"""


ROOT = Path(__file__).resolve().parents[2]
IMPORTABLE = "from bench.images.peers import make_torchvision_importable; make_torchvision_importable()\n"  # see `conftest`


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def on_ranks(count: int, program: str, folder: Path) -> list[list[str]]:
    """The lines that each rank printed. Started as torchrun does it."""
    shared = {
        **os.environ, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "TORCHELASTIC_RUN_ID": "test",
        "GROUP_RANK": "0", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=folder, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    try:
        answers = [rank.communicate(timeout=240) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * count, "\n".join(err for _, err in answers)
    return [[line for line in out.splitlines() if line.startswith(("[", '"'))] for out, _ in answers]


PROGRAMS = {"torch": (3, "short", TORCH), "accelerate": (2, "pad", ACCELERATE), "lightning": (2, "pad", LIGHTNING)}


@pytest.mark.parametrize(
    "framework",
    [pytest.param(name, marks=pytest.mark.slow if name == "torch" else pytest.mark.peers) for name in PROGRAMS],
)
def test_every_image_comes_to_one_rank_in_equal_steps(framework: str, tmp_path: Path) -> None:
    pytest.importorskip(framework, reason=f"needs {framework}, which the dev extra brings")
    count, tail, program = PROGRAMS[framework]
    lines = on_ranks(count, program if framework == "torch" else IMPORTABLE + program, tmp_path)
    index = pp.Index.build(pp.samples.shards("val"))
    seen = []
    for number, printed in enumerate(lines):
        rank, steps, keys = json.loads(printed[0])
        recipe = pp.recipes.navit(seq_len=256, rows_per_batch=1)
        plans = EpochPlan(index, recipe, shuffle=50, tail=tail, rank=rank, world_size=count)  # type: ignore[arg-type]
        assert (rank, steps) == (number, len(plans))
        assert keys == [[header.key for header in plan.headers] for plan in plans]
        seen += [key for batch in keys for key in batch]
    assert sorted(seen) == sorted(header.key for header in index.headers(range(len(index))))
    if framework == "accelerate":
        assert [printed[1:] for printed in lines] == [['"refused"']] * 2  # an error, never a share of a share


def test_a_loader_made_anew_says_what_is_wrong() -> None:
    loader = pp.load(pp.samples.shards("val"), pp.recipes.navit())
    with pytest.raises(pp.errors.ConfigError, match="made anew around this loader's dataset, as Accelerate's prepare does"):
        next(iter(DataLoader(loader.dataset, batch_size=None)))
