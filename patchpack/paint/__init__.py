"""The painting of planned batches. A plan decides everything except which patches of an image are kept, drawn here."""
