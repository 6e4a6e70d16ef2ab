"""Interfaces that other packages keep to themselves: one module per package, and no other module touches them.

Each use has a fallback that needs documented interfaces only. ``docs/design.md`` lists what is touched, what it gives, and the
fallback. This package imports nothing of the others.
"""
