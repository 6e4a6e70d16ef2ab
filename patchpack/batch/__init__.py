"""Derived views of a packed batch: masks, ragged form, single images, checks, digests."""
