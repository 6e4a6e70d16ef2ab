"""DECIDES. Integers only: no pixels, no torch, no I/O."""
