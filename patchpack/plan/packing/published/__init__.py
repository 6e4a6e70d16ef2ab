"""Published packers, and the linear program over all rows. Some of them need the extra ``patchpack[solver]``."""
