"""Sizes and kinds of the images of a source, and the recipes that suit them. Nothing is printed or drawn here."""
