"""Planning an epoch whose sizes are all known."""
