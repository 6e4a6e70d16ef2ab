"""Published packers, and the linear program over all rows. Some of these modules need the extra ``patchpack[solver]``."""
