"""Sources, planners, painters and loaders: from samples to packed batches. Every sample that is not packed is counted."""
