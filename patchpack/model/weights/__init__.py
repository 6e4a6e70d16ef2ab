"""The conversion of weights between our model and other code bases: timm's state dicts and big_vision's npz files."""

from patchpack.model.weights.big_vision import load_big_vision, save_big_vision
from patchpack.model.weights.timm import Loaded, load_timm, to_timm

__all__ = ["load_timm", "Loaded", "to_timm", "load_big_vision", "save_big_vision"]
