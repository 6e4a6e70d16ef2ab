"""The planning of a whole epoch, for a source whose sizes are all known."""
