"""The planning stage. It works on integers only: sizes, token counts and rows, without reading a pixel."""
