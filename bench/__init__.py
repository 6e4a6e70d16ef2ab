"""Benchmarks: one question a script, each run as a module from the top of the repository."""
