"""Functions for a packed batch: masks, the ragged form (without padding), single images, checks and digests."""
