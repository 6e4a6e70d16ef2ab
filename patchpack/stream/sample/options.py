"""The error for an option that a function does not have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from patchpack.errors import ConfigError
from patchpack.plan.recipe import Recipe
from patchpack.stream.sample.names import nearest


def unknown_option(user: str, name: str, known: Iterable[str]) -> ConfigError:
    """Return the error for an option that a function does not have. The error says where the option belongs, if that is known.

    Args:
        user: name of the function.
        name: name of the option.
        known: names of the options that the function has.
    """
    if name in _RECIPE_FIELDS:
        return ConfigError(f"{name}= is a field of the recipe: pass recipe.replace({name}=...) to {user}")
    if name in _ELSEWHERE:
        return ConfigError(f"{name}= is no option of {user}: {_ELSEWHERE[name]}")
    return ConfigError(f"{name}= is no option of {user}{nearest(name, known)}")


_RECIPE_FIELDS = frozenset(field.name for field in fields(Recipe))
_ELSEWHERE = {  # names that other libraries use
    **dict.fromkeys(("label", "labels", "label_column"), "the label is named by target="),
    **dict.fromkeys(("transform", "transforms"), "pass recipe.replace(augment=...), or map the labels with map_target="),
    **dict.fromkeys(("num_workers", "num_threads", "on_error", "dataloader"), "it belongs to load, which runs the planner"),
}
