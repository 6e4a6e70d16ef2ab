"""The planning of batches. It works on integers (sizes, token counts and rows) and reads no pixel."""
