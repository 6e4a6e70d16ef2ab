"""The painting of planned batches: images are decoded and resampled, and their pixels are written into the batch.

The plan decides everything except which patches of an image are kept. This package draws the kept patches at random.
"""
