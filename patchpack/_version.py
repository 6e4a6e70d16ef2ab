"""The version of the package, which is also written into the files that the package makes."""

__version__ = "0.1.0.dev0"
