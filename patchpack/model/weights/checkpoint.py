"""The reading of timm's weights from a module, a file, or a checkpoint whose entries hold the weights under longer names."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from patchpack.errors import ConfigError
from patchpack.model.vit import ViT

_PATCH_KERNEL = re.compile(r"((?:.*\.)?)(?:patch_embed|embeds)\.proj\.weight").fullmatch
_DEEPEST = 4  # levels of a checkpoint that are searched for weights
_REMOTE = re.compile(r"(https?|hf[-_]hub):|timm/").match
_SAVE = "torch.save(timm.create_model(name, pretrained=True).state_dict(), path)"


class Checkpoint(NamedTuple):
    """The weights of one timm model, and the module that has these weights, if the user passed a module.

    Attributes:
        state: timm's name → weight, without the prefixes of wrappers.
        module: the timm model, or None for a file or a state dict.
    """

    state: dict[str, Tensor]
    module: nn.Module | None


class _Found(NamedTuple):
    """A group of weights that has a patch kernel: the path of its mapping in the checkpoint, and the prefix of its names."""

    path: tuple[str, ...]
    prefix: str
    names: Mapping[str, Tensor]

    @property
    def entry(self) -> str:
        return ".".join((*self.path, *self.prefix.split("."))).rstrip(".")


def read_checkpoint(weights: object, entry: str | None = None) -> Checkpoint:
    """Read the weights of a timm model.

    Args:
        weights: a module, a path, or a mapping (see `patchpack.model.weights.load_timm`).
        entry: name of the part of the checkpoint that holds the weights. Default None: the only part with a patch kernel.

    Raises:
        ConfigError: the file cannot be read, there are no weights of a timm model, there are several such weights and `entry`
            names none or more than one of them, or two weights have the same name without their prefixes.
    """
    module = weights if isinstance(weights, nn.Module) else None
    if isinstance(module, ViT):
        raise ConfigError("the weights are a patchpack model, not a timm model: use model.load_state_dict(other.state_dict())")
    content = read_file(weights) if isinstance(weights, str | Path) else module.state_dict() if module else weights
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"weights must be a timm model, the path of a file, or a mapping such as model.state_dict(), "
            f"got {type(content).__name__}"
        )
    groups = [*_groups(content, ())]
    found = _chosen([group for group in groups if group.entry is not None], content, entry)
    state = _without_prefixes(found, entry)
    return Checkpoint(state, None if module is None else module.get_submodule(found.prefix.rstrip(".")))


def read_file(path: str | Path) -> Any:
    """Read a file of torch or safetensors, without running any code from the file. Tensors are placed on the CPU.

    Raises:
        ConfigError: the path is not a readable file of weights. The error says what to do.
    """
    file = Path(path)
    if not file.exists():
        remote = "; nothing is downloaded" if _REMOTE(str(path)) else ""
        raise ConfigError(f"there is no file {str(path)!r}{remote}. {_SAVE} writes a file of a timm model's weights")
    if file.is_dir():
        inside = sorted(entry.name for entry in file.iterdir() if entry.suffix in (".safetensors", ".bin", ".pt", ".pth"))
        raise ConfigError(f"{str(path)!r} is a folder: pass the path of a file. Files in it: {', '.join(inside) or 'none'}")
    if file.suffix == ".npz":
        raise ConfigError(f"{str(path)!r} is a file of numpy arrays: use load_big_vision(model, path) for big_vision's weights")
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if (other := re.search(r"GLOBAL ([\w.]+)", str(error))) is None:
            raise ConfigError(f"{str(path)!r} is not a file that torch.save wrote: {_first_line(error)}") from error
        raise ConfigError(
            f"{str(path)!r} holds {other[1]} beside its tensors. If you trust the file, read it with "
            f"torch.load(path, weights_only=False), and pass the result instead of the path"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ConfigError(_unreadable(file, error)) from error


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ConfigError(f"{str(file)!r} needs the package safetensors: pip install safetensors") from error
    try:
        state: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ConfigError(_unreadable(file, error)) from error
    return state


def _unreadable(file: Path, error: Exception) -> str:
    return f"{str(file)!r} cannot be read, {type(error).__name__}: {_first_line(error)}. The file may be incomplete"


def _groups(content: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[_Found]:
    """Yield every group of weights with a patch kernel in a checkpoint, whose entries may be mappings or modules."""
    tensors = {name: value.detach() for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    for name in tensors:
        if (kernel := _PATCH_KERNEL(name)) is not None:
            yield _Found(path, kernel[1], tensors)
    for name, value in content.items():
        inner = value.state_dict() if isinstance(value, nn.Module) else value
        if isinstance(name, str) and isinstance(inner, Mapping) and len(path) < _DEEPEST:
            yield from _groups(inner, (*path, name))


def _chosen(groups: list[_Found], content: Mapping[Any, Any], entry: str | None) -> _Found:
    known = ", ".join(repr(group.entry) for group in groups)
    if not groups:
        raise ConfigError(_not_timm(content))
    if entry is None:
        if len(groups) > 1:
            raise ConfigError(f"the checkpoint has weights of {len(groups)} models: pass entry= one of {known}")
        return groups[0]
    fitting = [group for group in groups if group.entry == entry]
    fitting = fitting or [group for group in groups if group.entry.startswith(f"{entry}.")]
    if len(fitting) != 1:
        several = "more than one" if fitting else "none"
        raise ConfigError(f"entry={entry!r} names {several} of the models in the checkpoint, whose names are {known}")
    return fitting[0]


def _without_prefixes(found: _Found, entry: str | None) -> dict[str, Tensor]:
    """Return the weights of one model under their names without prefixes.

    Weights outside the prefix, such as a head beside a backbone, lose only those leading parts that they share with it.
    """
    here = len(".".join(found.path)) + 1 if found.path else 0
    scope = "" if entry is None or len(entry) < here else f"{entry[here:]}."
    if scope == ".":
        scope = ""
    state: dict[str, Tensor] = {}
    for name, value in found.names.items():
        if not name.startswith(scope):
            continue
        short = name.removeprefix(found.prefix) if name.startswith(found.prefix) else _shorter(name, found.prefix)
        if short in state:
            raise ConfigError(f"two weights of the checkpoint are named {short!r} without their prefixes, one of them {name!r}")
        state[short] = value
    return state


def _shorter(name: str, prefix: str) -> str:
    for part in prefix.split("."):
        if not name.startswith(f"{part}."):
            break
        name = name.removeprefix(f"{part}.")
    return name


def _not_timm(content: Mapping[Any, Any]) -> str:
    names = [name for name in content if isinstance(name, str)]
    if any(name.endswith("embed.linear.weight") for name in names):
        return "the weights have patchpack's own names, not timm's: use model.load_state_dict(weights)"
    if any(name.endswith("embedding/kernel") for name in names):
        return "the weights have big_vision's names, not timm's: use load_big_vision(model, weights)"
    few = f"{', '.join(map(repr, names[:5]))}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
    return (
        f"expected weights of a timm ViT, with the name 'patch_embed.proj.weight' or 'embeds.proj.weight', got {few or 'none'}"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
