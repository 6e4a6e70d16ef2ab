"""Read pictures: file bytes to sizes, and to uint8 pixels."""
