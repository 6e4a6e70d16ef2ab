"""The policies of a recipe: resize, crop, drop, positions, normalisation and video."""
