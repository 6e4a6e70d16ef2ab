"""Planning while samples come: decisions, rows and batches of a stream."""
