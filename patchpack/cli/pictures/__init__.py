"""Pictures that the commands write: packed rows with Pillow, figures with matplotlib."""
