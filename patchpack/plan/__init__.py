"""The planning of batches, which works on integers (sizes, token counts and rows) and reads no pixel."""
