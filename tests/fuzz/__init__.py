"""Bytes that nobody wrote on purpose, into everything that reads files. `run.py` runs it for as long as one likes."""
