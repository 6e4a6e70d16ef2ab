"""Small faults that the tests must find, kept as patches, and what runs the tests against them."""
