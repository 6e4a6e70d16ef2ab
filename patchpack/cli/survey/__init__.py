"""The sizes and kinds of the images of a source, and the recipes that suit these images. Nothing is printed or drawn here."""
