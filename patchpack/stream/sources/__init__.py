"""Sources of samples: shards, folders, iterables, datasets, indexes."""
