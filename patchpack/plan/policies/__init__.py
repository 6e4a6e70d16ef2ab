"""The rules of a recipe: resize, crop, drop, positions, normalisation, video."""
