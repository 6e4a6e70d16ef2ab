"""The commands, one module for each. `add_arguments` declares the arguments. `run` does the work and returns the exit status.

A module is imported only when its command is called. It imports torch inside of functions, so that ``--help`` is quick.
"""

from __future__ import annotations

# name of the module and the command → its line in `patchpack --help`
COMMANDS = {
    "demo": "show how images become packed rows and train a small NaViT on them (about a minute)",
    "inspect": "survey the images of a source and suggest a recipe for them",
    "preview": "draw packed rows of your images",
    "replay": "paint one image again as training saw it",
    "plan": "compare fill and waits at several row lengths and recommend one",
    "index": "read the headers of shards once, so that epochs are planned as a whole",
    "pack": "paint whole epochs once, into shards of packed batches",
    "embed": "write a vector for every image of a source, in parts",
}
