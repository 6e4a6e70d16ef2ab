"""Kinds of targets in the user's words: the option ``target_kind``, and the advice in errors about a target of another kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from patchpack._shown import shown
from patchpack.errors import ConfigError
from patchpack.types import TargetKind, TargetSpec

Word = Literal["int", "float", "object"]
OneKind: TypeAlias = Word | tuple[Literal["int", "float"], Sequence[int]]
KindOption: TypeAlias = OneKind | Mapping[str, OneKind] | None
"""The values of ``target_kind``, see `patchpack.open_source`."""

_DTYPES = {"int": "int64", "float": "float32", "object": "object"}
_FORMS = "'int', 'float', 'object', a pair of a number and a shape such as ('float', (4,)), or a dict of these by label"


def parse_kind(given: object) -> TargetKind:
    """Return the kind that the user passed as ``target_kind``. None gives None: the first readable target decides.

    Raises:
        ConfigError: `given` is not a kind.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        if not given or not all(isinstance(name, str) for name in given):
            raise _not_a_kind(given)
        return {name: _spec(one) for name, one in given.items()}
    return _spec(given)


def option_of(kind: TargetKind) -> KindOption:
    """Return the value of ``target_kind`` that declares a kind."""
    if isinstance(kind, dict):
        return {name: _option(spec) for name, spec in kind.items()}
    return None if kind is None else _option(kind)


def _option(spec: TargetSpec) -> OneKind:
    if spec.dtype == "object":
        return "object"
    word: Literal["int", "float"] = "int" if spec.dtype == "int64" else "float"
    return (word, tuple(spec.shape)) if spec.shape else word


def in_words(kind: TargetKind) -> str:
    """Return the value of ``target_kind`` that declares a kind, as text."""
    return repr(option_of(kind))


def declared_by(kind: TargetKind) -> str | None:
    """Return the value of ``target_kind`` that the user passed, as text for a state. Return None if the user passed none."""
    return in_words(kind) if is_declared(kind) else None


def is_declared(kind: TargetKind) -> bool:
    """Return True if the user passed the kind. Return False for a kind that the first readable target has."""
    specs = kind.values() if isinstance(kind, dict) else () if kind is None else (kind,)
    return any(spec.declared for spec in specs)


def reason_for(kind: TargetKind) -> str:
    """Return the reason why a target of this kind is expected, for errors."""
    return f"as target_kind={in_words(kind)} says" if is_declared(kind) else "as the first sample had"


def advice(whole: TargetKind, name: str | None, value: object, got: TargetSpec) -> str:
    """Return the option that the user can pass if a target of another kind is right.

    Args:
        whole: kind of the targets.
        name: name of the label at fault among several labels. None: there is one label.
        value: the label that does not have its kind.
        got: kind of `value`.
    """
    spec = whole[name] if isinstance(whole, dict) and name is not None else whole
    assert isinstance(spec, TargetSpec)
    objects = _with(whole, name, TargetSpec("object"))
    if value is None:
        filler = "-100" if spec.dtype == "int64" else "float('nan')"
        return (
            f"pass target_kind={objects}, which also takes None, or replace None by a number in map_target=, such as {filler}"
        )
    if got.shape == spec.shape and (spec.dtype, got.dtype) == ("int64", "float32"):
        return f"pass target_kind={_with(whole, name, TargetSpec('float32', spec.shape))} if labels are fractions"
    if got.dtype != "object" and got.shape != spec.shape:
        other = _with(whole, name, TargetSpec(spec.dtype, got.shape))
        alike = "have this shape" if got.shape else "are single numbers"
        same = f"pass target_kind={other} if all labels {alike}, or " if is_declared(whole) else "pass "
        return f"{same}target_kind={objects} for labels of several shapes or lengths"
    return f"pass target_kind={objects} for labels of any type"


def _with(whole: TargetKind, name: str | None, spec: TargetSpec) -> str:
    return in_words({**whole, name: spec} if isinstance(whole, dict) and name is not None else spec)


def _spec(given: object) -> TargetSpec:
    if isinstance(given, str) and given in _DTYPES:
        return TargetSpec(_DTYPES[given], (), True)
    if isinstance(given, (tuple, list)) and len(given) == 2 and given[0] in ("int", "float"):
        word, shape = given
        if isinstance(shape, (tuple, list)) and all(type(side) is int and side >= 0 for side in shape):
            return TargetSpec(_DTYPES[word], tuple(shape), True)
    raise _not_a_kind(given)


def _not_a_kind(given: object) -> ConfigError:
    return ConfigError(f"target_kind must be {_FORMS}, got {shown(given)}")
