"""Planning of an epoch whose sizes are all known."""
