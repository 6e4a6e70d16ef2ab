"""A program that ends while an iterator is open, or by Ctrl-C, prints no traceback of ours and leaves no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import patchpack as pp
from patchpack.stream.workers import exits

START = """
import sys, numpy as np, torch, patchpack as pp
RECIPE = pp.recipes.navit(seq_len=256)
SHARDS = pp.samples.shards("val")
def begun(loader):
    iterator = iter(loader)
    next(iterator)
    return iterator
if __name__ == "__main__":
"""
WAYS = {
    "in the process, in threads, of images": """
    a, b = begun(pp.load(SHARDS, RECIPE)), begun(pp.load(SHARDS, RECIPE, num_threads=2))
    c = begun(pp.pack_images((np.zeros((64, 64, 3), np.uint8) for _ in range(300)), RECIPE))
    d, e = begun(pp.Planner(SHARDS, RECIPE)), begun(pp.Pack(RECIPE).over([pp.Sample("a", np.zeros((64, 64, 3), np.uint8))]))
""",
    "workers": """
    a = begun(pp.load(SHARDS, RECIPE, num_workers=1))
    b = enumerate(pp.load(SHARDS, RECIPE, num_workers=1, steps_per_epoch=50, shuffle=True)); next(b)
""",
    "workers that outlive an epoch": """
    loader = pp.load(SHARDS, RECIPE, num_workers=1, dataloader={"persistent_workers": True})
    a = begun(loader)
""",
    "an index": """
    a = begun(pp.load(pp.Index.build(SHARDS), RECIPE, num_workers=1))
""",
    "a loop in a thread": """
    import threading
    a = begun(pp.load(SHARDS, RECIPE, num_workers=1, steps_per_epoch=100000))
    threading.Thread(target=lambda: [None for _ in a], daemon=True).start()
""",
    "an error code": """
    a = begun(pp.load(SHARDS, RECIPE, num_workers=1))
    sys.exit(3)
""",
}


def test_what_is_open_when_the_interpreter_ends_is_closed() -> None:
    """Called here as it is when the interpreter ends; programs that end are in the slow tier."""
    iterator = iter(pp.load(pp.samples.shards("val"), pp.recipes.navit(seq_len=256), num_threads=2))
    next(iterator)
    exits._close_all()
    assert next(iterator, None) is None


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_program_that_ends_with_an_open_iterator_says_nothing(way: str) -> None:
    done = subprocess.run([sys.executable, "-c", START + WAYS[way]], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == (3 if way == "an error code" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "num_threads=2", "num_workers=2"])
def test_control_c_is_told_once(options: str) -> None:
    """It reaches every process of a terminal; only the program itself says so."""
    loop = f"""
    for _ in pp.load(SHARDS, RECIPE, steps_per_epoch=1000000, {options}):
        print("batch", flush=True)
"""
    program = subprocess.Popen(
        [sys.executable, "-c", START + loop],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell has processes in the background ignore it
    )
    assert program.stdout is not None
    for _ in range(3):
        assert program.stdout.readline() == "batch\n"
    os.killpg(program.pid, signal.SIGINT)
    _, said = program.communicate()
    assert program.returncode == -signal.SIGINT
    assert said.count("Traceback") == 1
    assert said.rstrip().endswith("KeyboardInterrupt")
    with pytest.raises(ProcessLookupError):
        os.killpg(program.pid, 0)
