"""What the tests of other frameworks need before these are imported."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(autouse=True)
def importable_torchvision(request: pytest.FixtureRequest) -> None:
    """Make a torchvision importable that was built for another device than torch; Lightning and transformers import it."""
    marked = request.node.get_closest_marker("peers") or request.node.get_closest_marker("docs")
    if marked and importlib.util.find_spec("torchvision"):
        from bench.images.peers import make_torchvision_importable

        make_torchvision_importable()
