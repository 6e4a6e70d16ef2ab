"""Sources of samples: folders, iterables, datasets, indexes."""
