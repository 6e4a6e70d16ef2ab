"""The version, which the package and what it writes carry."""

__version__ = "0.1.0.dev0"
