"""How much compute does packing save on the way to equal quality?

    OMP_NUM_THREADS=1 python -m bench.model.navit [--data FOLDER] [--results navit.jsonl] [--plot navit.png] [--minutes 9]

All arms share one model, one optimizer and one data set (`bench.model.fashion`: clothes cropped to the object, so that they
have many shapes). Patches have 4 pixels per side. The model is compiled for fixed shapes, so padding costs as much as tokens.
The arms differ only in their recipe:

- square: every crop is resized to 28 x 28 pixels, 49 tokens, with one image per row;
- padded: native size and aspect, with one image per row, padded to 49 tokens;
- packed: the same tokens in packed rows;
- area: packed, with every crop resized to the area of 22 x 22 pixels and its aspect kept;
- resolution: packed, with an area drawn per image and epoch;
- drop: as resolution, and a share of the tokens is dropped, drawn per image and epoch.

Cost is CPU time of this process on one thread for data, model and optimizer, without compiling and evaluation
(`time.process_time`, without workers, so that all work is counted). If other work runs on the machine, a core does less per
second. Therefore the arms also take steps in turns at the end. The number of images to a target times the cost of an image in
turns is a second answer.

Accuracy is measured with the averaged weights on 5000 validation pictures, with every arm at its recipe's `for_eval()`. A run
ends when 88 % of them are right, or when its time is over. Only then the 10,000 test pictures are used, once. All arms have one
setting (learning rate, tokens per batch). In runs of 25 seconds it was the better of two for all arms but "resolution". If a
protocol has several settings, each is tried for a quarter of the length. The best setting on the validation pictures then runs
with several seeds.

The learning rate warms up and then stays constant. Weights are averaged over about the last ninth of the run so far (polynomial
decay averaging, 1212.1824). So every point of a curve is a usable model, and no length of a schedule has to be guessed.

Every run is a line of the results file. A call continues where the last one ended. If nothing is left to do, it prints the
table and draws the plot.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import patchpack as pp
from bench.model import fashion
from bench.model.navit_arms import Protocol, Run, Setting, arms
from bench.model.navit_table import Point, Record, plot, show, table
from patchpack.model import cross_entropy


class Training:
    """A compiled model, its optimizer and its batches, ready for the first step.

    Attributes:
        recipe: recipe of the arm, with the run's seed and tokens per batch.
        average: the averaged weights, in a model that computes real tokens only and gives the same numbers.
    """

    def __init__(self, run: Run, data: fashion.Splits, protocol: Protocol) -> None:
        recipe = arms()[run.arm]
        self.recipe = recipe.replace(seed=run.seed, rows_per_batch=run.setting.tokens // recipe.row_len(4))
        torch.manual_seed(run.seed)
        self._model = protocol.model(static=True)
        self.average = AveragedModel(protocol.model(static=False), multi_avg_fn=_towards)
        self._forward: Callable[[pp.PackedBatch], Tensor] = self._model
        if protocol.compiled:
            self._forward = torch.compile(self._model, fullgraph=True, dynamic=False)
        self._lr, self._warm_up, self._steps = run.setting.lr, protocol.warm_up, 0
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=self._lr, betas=(0.9, 0.98), weight_decay=protocol.weight_decay, fused=True
        )
        loader = pp.load(data.train, self.recipe, sizes=data.train.sizes, shuffle=1, tail="drop")
        batch = next(iter(loader))
        cross_entropy(self._forward(batch), batch.targets).backward()  # compiled
        self._batches = _endless(loader)

    def step(self, clock: Callable[[], float]) -> tuple[pp.PackedBatch, float]:
        """Do one step. Return its batch, and how long the batch took to arrive."""
        start = clock()
        batch = next(self._batches)
        waited = clock() - start
        self._steps += 1
        self._optimizer.param_groups[0]["lr"] = self._lr * min(1.0, self._steps / self._warm_up)
        loss = cross_entropy(self._forward(batch), batch.targets)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.average.update_parameters(self._model)
        return batch, waited


def train(run: Run, data: fashion.Splits, protocol: Protocol, clock: Callable[[], float] = time.process_time) -> Record:
    """Do one run. Return its line for the results file."""
    begun = clock()
    torch.compiler.reset()
    training = Training(run, data, protocol)
    recipe, average = training.recipe, training.average
    validation = painted(data.validation, recipe)
    seconds = protocol.seconds / (4 if run.phase == "tune" else 1)
    when = [share * seconds for share in (protocol.points[-1:] if run.phase == "tune" else protocol.points)]
    curve: list[Point] = []
    used = waited = 0.0
    images = tokens = steps = 0
    while when:
        start = clock()
        batch, wait = training.step(clock)
        steps, images, tokens = steps + 1, images + batch.info.packed, tokens + int((batch.segment_ids > 0).sum())
        used, waited = used + clock() - start, waited + wait
        if used >= when[0]:
            curve.append((round(used, 3), images, accuracy(average, validation)))
            when = [moment for moment in when if moment > used and curve[-1][2] < protocol.enough]
    return {
        **_identity(run),
        "curve": curve,
        "steps": steps,
        "tokens per image": round(tokens / images, 2),
        "fill": round(tokens / (steps * recipe.rows_per_batch * recipe.row_len(4)), 4),
        "images/s": round(images / used, 1),
        "data share": round(waited / used, 3),
        "test": accuracy(average, painted(data.test, recipe)) if run.phase == "final" else None,
        "CPU seconds with evaluation": round(clock() - begun, 1),
    }


def pace(
    runs: Sequence[Run],
    data: fashion.Splits,
    protocol: Protocol,
    *,
    rounds: int = 40,
    steps: int = 5,
    clock: Callable[[], float] = time.process_time,
) -> list[Record]:
    """Return the CPU milliseconds per image of arms that take turns, so that other work on the machine slows all arms alike."""
    begun = clock()
    torch.compiler.reset()
    trainings = [Training(run, data, protocol) for run in runs]
    found: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for training, times in zip(trainings, found, strict=True):
            start = clock()
            images = sum(training.step(clock)[0].info.packed for _ in range(steps))
            times.append(1000 * (clock() - start) / images)
    quartiles = [np.percentile(times, (25, 50, 75)).round(4).tolist() for times in found]
    lines: list[Record] = [{"phase": "pace", "arm": run.arm, "ms": ms} for run, ms in zip(runs, quartiles, strict=True)]
    return [{**line, "CPU seconds with evaluation": round((clock() - begun) / len(lines), 1)} for line in lines]


def painted(crops: fashion.Crops, recipe: pp.Recipe) -> list[pp.PackedBatch]:
    """Return batches of all pictures, at the recipe's resolution for evaluation."""
    many = recipe.for_eval().replace(rows_per_batch=max(1, 3136 // recipe.row_len(4)))
    return list(pp.load(crops, many, sizes=crops.sizes))


@torch.no_grad()
def accuracy(model: nn.Module, batches: Sequence[pp.PackedBatch]) -> float:
    """Return the share of pictures whose highest logit is their class."""
    right = total = 0
    for batch in batches:
        right += int((model(batch).argmax(-1) == batch.targets)[batch.slot_mask].sum())
        total += int(batch.slot_mask.sum())
    return right / total


def _towards(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor) -> None:
    """Average weights in place by polynomial decay averaging with eta = 8: step t has the weight 9 / (t + 8)."""
    weight = 9 / (float(count) + 9)  # count is t - 1
    for mean, value in zip(averaged, current, strict=True):
        mean.lerp_(value, weight)


def _endless(loader: pp.Loader) -> Iterator[pp.PackedBatch]:
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1


def _identity(run: Run) -> Record:
    return {**run._asdict(), "setting": list(run.setting)}


def todo(lines: Sequence[Record], protocol: Protocol, names: Sequence[str]) -> Iterator[Run]:
    """Yield the runs that have no line yet: all tuning runs, or else the final runs with the best settings, seed after seed."""
    done = [{key: line[key] for key in Run._fields} for line in lines if line["phase"] in ("tune", "final")]
    tuning = [Run("tune", name, setting, 0) for name in names for setting in protocol.settings]
    missing = [run for run in tuning if _identity(run) not in done] if len(protocol.settings) > 1 else []
    if not missing:
        best = {name: tuned(lines, name, protocol) for name in names}
        finals = [Run("final", name, best[name], seed) for seed in protocol.seeds for name in names]
        missing = [run for run in finals if _identity(run) not in done]
    yield from missing


def tuned(lines: Sequence[Record], arm: str, protocol: Protocol) -> Setting:
    """Return the setting with the best last validation accuracy among the tuning runs. Among equals, return the first.

    If the protocol has only one setting, return that.
    """
    if len(protocol.settings) == 1:
        return protocol.settings[0]
    tried = [line for line in lines if line["phase"] == "tune" and line["arm"] == arm]
    return Setting(*max(tried, key=lambda line: line["curve"][-1][2])["setting"])


def about(protocol: Protocol) -> Record:
    """Return the first line of a results file, which describes what its runs have in common."""
    what: Record = json.loads(json.dumps(asdict(protocol)))  # as JSON returns it
    return {"phase": "about", "protocol": what, "arms": {name: repr(arm) for name, arm in arms().items()}}


def environment() -> Record:
    """Return versions, processor and threads."""
    cpu = [line.split(":")[1].strip() for line in _lines_of("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": cpu[0] if cpu else platform.processor(),
        "threads": torch.get_num_threads(),
    }


def _lines_of(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def read(path: Path, protocol: Protocol) -> list[Record]:
    """Return the lines of a results file, or none if there is no such file. A half-written line of a killed run is left out.

    Raises:
        ValueError: the file was made with another protocol or other arms.
    """
    lines: list[Record] = []
    for text in _lines_of(str(path)):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    expected = about(protocol)
    if lines:
        found = lines[0].get("arms", {})
        if lines[0].get("protocol") != expected["protocol"] or found.items() - expected["arms"].items():
            raise ValueError(f"{path} was made with another protocol or other arms: name another file, or remove it")
        lines[0] |= expected  # arms that are new have no lines yet
    return lines


def restore(
    path: Path,
    data: fashion.Splits,
    protocol: Protocol,
    *,
    names: Sequence[str],
    minutes: float = float("inf"),
    clock: Callable[[], float] = time.process_time,
) -> tuple[list[Record], bool]:
    """Do the runs that have no line yet, until `minutes` of wall time are nearly over.

    A run begins only if a run as long as the last one of its phase would still fit. Return all lines, and whether all runs are
    done.
    """
    begun = time.monotonic()
    lines = read(path, protocol)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines or [{**about(protocol), "environment": environment()}]))
    took: dict[str, float] = {}
    while run := next(todo(read(path, protocol)[1:], protocol, names), None):
        start = time.monotonic()
        if start + took.get(run.phase, 0.0) > begun + 60 * minutes:
            return read(path, protocol), False
        line = train(run, data, protocol, clock)
        took[run.phase] = time.monotonic() - start
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{run}: {line['curve'][-1]}", flush=True)
    return read(path, protocol), True


def main(arguments: Sequence[str] | None = None) -> None:
    """Continue the runs, then print and draw the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=fashion.DATA, help="folder of the IDX files")
    parser.add_argument("--results", type=Path, default=Path("navit.jsonl"))
    parser.add_argument("--plot", type=Path, default=Path("navit.png"))
    parser.add_argument("--seconds", type=float, default=Protocol.seconds, help="CPU seconds of a run at most")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop between two runs, before these are over")
    parser.add_argument("--arms", nargs="+", default=list(arms()), choices=list(arms()))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    protocol = Protocol(seconds=options.seconds)
    try:
        data = fashion.splits(options.data)
        lines, done = restore(options.results, data, protocol, names=options.arms, minutes=options.minutes)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from None
    paced = {line["arm"] for line in lines if line["phase"] == "pace"}
    added: list[Record] = []
    if done and all(line["phase"] != "linear" for line in lines):
        added += [{"phase": "linear", "test": fashion.linear_accuracy(data.train, data.test)}]
    if done and not paced.issuperset(options.arms):  # all arms again, because they must take turns
        added += pace([Run("final", name, tuned(lines, name, protocol), 0) for name in options.arms], data, protocol)
    with options.results.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in added)
    lines += added
    linear = next((line["test"] for line in lines if line["phase"] == "linear"), None)
    print(json.dumps(lines[0]["environment"]))
    show(lines, table(lines))
    if linear is not None:
        print(f"a linear classifier on 28 x 28 pixels: {100 * linear:.2f} % of the test pictures")
    plot(lines, options.plot, linear=linear)
    print("all runs are done" if done else "not done: call again")


if __name__ == "__main__":
    main()
