"""Undocumented interfaces of other packages, in one module per package. No other module of patchpack uses such interfaces.

Each use has a fallback that needs documented interfaces only. ``docs/design.md`` lists each interface with its purpose and its
fallback. The modules here import no other module of patchpack.
"""
