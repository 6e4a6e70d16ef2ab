"""Planning while samples arrive: decisions, rows and batches of one source."""
