"""The painting of planned batches. A plan decides everything, except which patches survive: that is drawn here."""
