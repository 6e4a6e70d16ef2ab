"""Benchmarks. Each script answers one question. Run a script as a module from the top of the repository."""
