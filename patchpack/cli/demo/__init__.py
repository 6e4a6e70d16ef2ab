"""The parts of ``patchpack demo``: the comparison of three ways to batch, and the program that trains."""
