"""The reading of images: from the bytes of a file to its size, and to uint8 pixels."""
