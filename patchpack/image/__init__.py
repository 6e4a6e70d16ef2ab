"""Reading of images: from file bytes to sizes, and to uint8 pixels."""
