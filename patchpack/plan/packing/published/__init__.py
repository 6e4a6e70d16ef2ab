"""Published packers, and the linear program over all rows. Some need the extra ``patchpack[solver]``."""
