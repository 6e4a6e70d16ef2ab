"""The machine on which images are prepared: package versions, processor, load and threads."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bench.threads import THREADS

PACKAGES = ("torch", "numpy", "pillow", "numba", "transformers", "timm", "vit-pytorch", "torchvision")


def environment() -> dict[str, Any]:
    """Return versions, processor, load and threads."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    try:
        models = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    except OSError:
        models = []
    return {
        "python": platform.python_version(),
        **versions,
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load when begun": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "threads": {**{name: os.environ.get(name) for name in THREADS}, "torch": torch.get_num_threads()},
    }
