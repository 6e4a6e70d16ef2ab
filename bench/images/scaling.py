"""How much faster is the loader with two workers on two cores? Two processes that only decode are measured in the same round.

Times are wall times in a steady state: the workers already run, and the clock starts after the first batches of an epoch.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

import patchpack as pp
from bench.images.rounds import spread
from bench.pictures import Pictures

_WARM_UP = 8  # batches: two from each worker; after them the process that reads headers is as far ahead as it can be
_AT_A_TIME = 4  # files that a decoding process takes, so that both end together
LOADERS: dict[str, dict[str, Any]] = {
    "2 worker processes": {"num_workers": 2, "dataloader": {"persistent_workers": True}},
    "2 threads": {"num_threads": 2},
}


def measure(
    shards: Sequence[str], pictures: Pictures, recipes: dict[str, pp.Recipe], *, rounds: int, steps: int
) -> dict[str, Any]:
    """Return images per second with two workers over images per second with one, for decoding alone and for each recipe."""
    decoders = [_Decoders(pictures, n, passes=max(1, 1000 // len(pictures))) for n in (1, 2)]
    one = {name: _Epochs(shards, recipe, steps, {"num_workers": 0}) for name, recipe in recipes.items()}
    two = {
        f"{name}, {loader}": (name, _Epochs(shards, recipes[name], steps, options))
        for name in recipes
        for loader, options in LOADERS.items()
    }
    digests = {name: epochs.digests() for name, epochs in one.items()}  # this starts the workers, too
    same = {label: epochs.digests() == digests[name] for label, (name, epochs) in two.items()}
    bare: list[float] = []
    scaled: dict[str, list[float]] = {label: [] for label in two}
    rates: dict[str, list[float]] = {label: [] for label in (*one, *two)}
    for decoder in decoders:
        decoder.rate()
    for _ in range(rounds):
        single, double = (decoder.rate() for decoder in decoders)
        bare.append(double / single)
        alone = {name: epochs.rate() for name, epochs in one.items()}
        for name in one:
            rates[name].append(alone[name])
        for label, (name, epochs) in two.items():
            rates[label].append(epochs.rate())
            scaled[label].append(rates[label][-1] / alone[name])
    for decoder in decoders:
        decoder.close()
    return {
        "bare decoding, 2 processes over 1": spread(bare),
        **{
            label: {
                "over 1 thread": spread(scaled[label]),
                "share of bare decoding's scaling": spread([s / b for s, b in zip(scaled[label], bare, strict=True)]),
                "images per second": [spread(rates[name], 0), spread(rates[label], 0)],
                "batches identical to one thread's": same[label],
            }
            for label, (name, _) in two.items()
        },
    }


class _Epochs:
    """A loader that is iterated again and again."""

    def __init__(self, shards: Sequence[str], recipe: pp.Recipe, steps: int, options: dict[str, Any]) -> None:
        self._loader = pp.load(list(shards), recipe, steps_per_epoch=_WARM_UP + steps, on_error="skip", **options)

    def rate(self) -> float:
        """Return images per second, from the arrival of the last warm-up batch to the end."""
        begin, images = 0.0, 0
        for number, batch in enumerate(self._loader):
            if number < _WARM_UP:
                begin = time.perf_counter()
            else:
                images += int(batch.num_images.sum())
        return images / (time.perf_counter() - begin)

    def digests(self) -> list[str]:
        """Return the digest of every batch."""
        return [_digest(batch) for batch in self._loader]


def _digest(batch: pp.PackedBatch) -> str:
    digest = hashlib.blake2b(repr(batch.keys).encode())
    for field in batch:
        if hasattr(field, "numpy"):
            array = np.ascontiguousarray(field.numpy())
            digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


class _Decoders:
    """Processes that decode the same files with Pillow and throw the pixels away."""

    def __init__(self, pictures: Pictures, count: int, passes: int) -> None:
        context = multiprocessing.get_context()
        self._images, self._count = passes * len(pictures), count
        self._next, self._go, self._done = context.Value("q", 0), context.Semaphore(0), context.Semaphore(0)
        arguments = (pictures, self._images, self._next, self._go, self._done)
        self._processes = [context.Process(target=_decode, args=arguments, daemon=True) for _ in range(count)]
        for process in self._processes:
            process.start()

    def rate(self) -> float:
        """Return images per second."""
        self._next.value = 0
        begin = time.perf_counter()
        for _ in range(self._count):
            self._go.release()
        for process in self._processes:
            while not self._done.acquire(timeout=1):
                if not process.is_alive():
                    raise RuntimeError(f"a decoding process died (exit code {process.exitcode})")
        return self._images / (time.perf_counter() - begin)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.terminate()
            process.join()


def _decode(pictures: Pictures, images: int, following: Any, go: Any, done: Any) -> None:
    files = [sample.image for sample in pictures.files]
    while True:
        go.acquire()
        while True:
            with following:
                first = following.value
                following.value += _AT_A_TIME
            if first >= images:
                break
            for number in range(first, min(first + _AT_A_TIME, images)):
                Image.open(io.BytesIO(files[number % len(files)]), formats=pictures.formats).load()
        done.release()
