"""The settings of another processor, read from the processor, from the folder or file it was saved to, or from a dict."""

from __future__ import annotations

import json
import operator
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from patchpack.errors import ConfigError
from patchpack.paint.resample import FILTERS
from patchpack.plan.recipe import Recipe

_DONE = ("do_resize", "do_rescale", "do_normalize")
_NOT_DONE = ("do_center_crop", "do_pad", "is_vqa")
_BY_CALL = ("crop_size", "pad_size", "image_seq_length", "header_text")  # these have an effect in a call only, not in a file
_WITHOUT_EFFECT = ("default_to_square", "disable_grouping")
CALL = (*_DONE, *_NOT_DONE, *_BY_CALL, *_WITHOUT_EFFECT, "do_convert_rgb", "rescale_factor", "data_format", "size", "resample",
        "image_mean", "image_std")  # fmt: skip
"""Options that transformers accepts in a call of every image processor. Each is applied, or refused with its name."""


class Family(NamedTuple):
    """The names by which the settings of one kind of processor are recognised.

    Attributes:
        theirs: name of the original processor.
        types: regular expression that the class name of an original processor matches.
        own: settings of which a processor of this kind has at least one.
        inside: name of the field or attribute that holds the processor's settings in a larger object, such as a processor of
            text and images.
        files: possible names of the settings file in a folder, the preferred name first.
    """

    theirs: str
    types: str
    own: tuple[str, ...]
    inside: str = "image_processor"
    files: tuple[str, ...] = ("processor_config.json", "preprocessor_config.json")


class Settings:
    """Settings of another processor, of a saved processor's file, or of one call.

    A setting for a step other than resizing to patches and normalising raises `ConfigError`. No such setting is ignored.
    """

    def __init__(self, given: object) -> None:
        self.given = given
        for names, wanted in ((_DONE, True), (_NOT_DONE, False)):
            for name in names:
                value = self.get(name)
                if value is not None and bool(value) is not wanted:
                    raise not_done(name, value, f"expected {wanted}")
        scale = self.get("rescale_factor")
        if scale is not None and not (is_number(scale) and abs(scale - 1 / 255) <= 1e-9):
            raise not_done("rescale_factor", scale, "expected 1 / 255")

    def get(self, name: str) -> Any:
        """Return the value of one setting. Return None if it is not set."""
        return _get(self.given, name)

    def take(self, **fields: str) -> dict[str, Any]:
        """Return the values of some settings, under other names. Settings that are not set are left out.

        Args:
            **fields: for each setting ``name_in_the_result="name of the setting"``.
        """
        found = {ours: self.get(theirs) for ours, theirs in fields.items()}
        return {name: value for name, value in found.items() if value is not None}

    def whole(self, **fields: str) -> dict[str, int]:
        """Return the result of `take` as integers. A file may hold 14.0 for 14.

        Args:
            **fields: for each setting ``name_in_the_result="name of the setting"``.

        Raises:
            ConfigError: a value is not a whole number.
        """
        taken = self.take(**fields)
        for ours, value in taken.items():
            try:
                taken[ours] = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
            except TypeError:
                raise not_done(fields[ours], value, "expected a whole number") from None
        return taken

    def entries(self, field: str, names: tuple[str, ...]) -> dict[str, Any]:
        """Return the entries of a setting that is a dict or an object. The result is empty if the setting is not set.

        Args:
            field: name of the setting.
            names: names that the entries may have.

        Raises:
            ConfigError: the setting is neither a dict nor an object, or has an entry of another name.
        """
        value = self.get(field)
        if value is None:
            return {}
        found = dict(value) if isinstance(value, Mapping) else dict(getattr(value, "__dict__", {}))
        found = {name: entry for name, entry in found.items() if entry is not None}
        if not found or set(found) - set(names):
            raise not_done(field, value, f"expected entries among {', '.join(names)}")
        return found

    def colours(self, mean: str = "image_mean", std: str = "image_std", kernel: str = "resample") -> dict[str, Any]:
        """Return the mean, standard deviation and resampling kernel, each under the name of its setting.

        A value that is not set is left out.

        Args:
            mean: name of the setting that holds the mean (default ``"image_mean"``).
            std: name of the setting that holds the standard deviation (default ``"image_std"``).
            kernel: name of the setting that holds the resampling kernel (default ``"resample"``).

        Raises:
            ConfigError: a value is not one number or three numbers, or the kernel is unknown.
        """
        taken: dict[str, Any] = {}
        for name, value in self.take(**{mean: mean, std: std}).items():
            values = (value,) * 3 if is_number(value) else value
            try:
                taken[name] = tuple(map(float, values))
            except (TypeError, ValueError):
                raise not_done(name, value, "expected three numbers, one per channel, or one for all") from None
            if len(taken[name]) != 3:
                raise not_done(name, value, "expected three numbers, one per channel, or one for all")
        if (given := self.get(kernel)) is not None:
            taken[kernel] = kernel_of(kernel, given)
        return taken


def settings_of(given: object, family: Family, taker: str) -> Settings:
    """Return the settings of a processor of a given kind.

    Args:
        given: an image processor, or a processor of text and images that contains an image processor. Also the folder or file
            of a saved processor, or the content of such a file.
        family: kind of processor that is expected.
        taker: name of the function that was called, for errors.

    Raises:
        ConfigError: `given` has no such settings, or asks for a step that patchpack's processors do not do.
    """
    came = describe(given)
    if isinstance(given, (str, os.PathLike)):
        given = _read(Path(given), family, taker)
        came = f"{came} with {describe(given)}"
    inner = _get(given, family.inside)
    if inner is not None:
        given, came = inner, f"{came}, whose {family.inside} is {describe(inner)}"
    names = _types(given)
    another = bool(names) and not any(re.fullmatch(family.types, name) for name in names)
    if another:
        raise ConfigError(
            f"{_wanted(family, taker)}; got {came}. Another class may make other arguments or other sizes. If you know that "
            f"this one does not, pass a dict of its settings without image_processor_type"
        )
    settings = Settings(given)
    if isinstance(given, Recipe) or not any(_is_sign(name, settings.get(name)) for name in family.own):
        raise ConfigError(f"{_wanted(family, taker)}; got {came}")
    return settings


def describe(given: object) -> str:
    """Return a short description of an argument, for errors."""
    if isinstance(given, Mapping):
        kind = given.get("image_processor_type")
        keys = [str(key) for key in given]
        return f"a dict of {_listed(keys)}" + (f" ({kind})" if kind else "") if keys else "an empty dict"
    if given is None or isinstance(given, (bool, int, float)):
        return repr(given)
    if isinstance(given, (str, os.PathLike)):
        return os.fspath(given)
    return f"a {type(given).__name__}"


def kernel_of(name: str, given: object) -> str:
    """Return the name that a resampling kernel has in `Recipe`.

    `given` is the name of a kernel, Pillow's number for a kernel, or an enum member whose value is such a name or number.
    """
    value = getattr(given, "value", given)
    if isinstance(value, str) and value in FILTERS:
        return value
    numbers = {int(number): kernel for kernel, number in FILTERS.items()}
    if isinstance(value, int) and not isinstance(value, bool) and value in numbers:
        return numbers[value]
    raise ConfigError(f"{name}={given!r} is not a kernel: expected one of {', '.join(FILTERS)}, or Pillow's number of one")


def check_call(changes: Mapping[str, object], undone: Mapping[str, tuple[object, ...]]) -> None:
    """Raise `ConfigError` if a call asks for a step that patchpack's processors do not do.

    Args:
        changes: options of the call by name.
        undone: dict with the accepted values of each setting that the processor cannot change, by name of the setting. The
            accepted values ask for what the processor does anyway.
    """
    for name in _BY_CALL:
        if changes.get(name) is not None:
            raise not_done(name, changes[name], "leave it out")
    if changes.get("do_convert_rgb") not in (None, True):
        raise not_done("do_convert_rgb", changes["do_convert_rgb"], "images are always converted to RGB")
    if getattr(changes.get("data_format"), "value", changes.get("data_format")) not in (None, "channels_first"):
        raise not_done("data_format", changes["data_format"], "the model fixes the order inside a patch")
    for name, same in undone.items():
        if changes.get(name) is not None and changes[name] not in same:
            raise not_done(
                name, changes[name], f"expected {same[0]!r}" if same else "it has no effect on this model's arguments"
            )


def not_done(name: str, value: object, instead: str) -> ConfigError:
    """Return the error for a setting that no processor of patchpack applies.

    Args:
        name: name of the setting.
        value: value of the setting.
        instead: the values that are accepted, or the reason why the setting is not applied.
    """
    return ConfigError(
        f"{name}={value!r} is not supported by patchpack's processors ({instead}): use the processor that supports it"
    )


def _wanted(family: Family, taker: str) -> str:
    return (
        f"{taker} takes the settings of {family.theirs}: the object, an object that holds it as {family.inside}, the folder or "
        f"file it was saved to, or a dict with some of {', '.join(family.own)}"
    )


def _is_sign(name: str, value: object) -> bool:
    """Return True if a setting shows that an object is a processor.

    An integer `patch_size` is no such sign, because models have one, too.
    """
    return value is not None and not (name == "patch_size" and isinstance(value, int))


def _get(given: object, name: str) -> Any:
    return given.get(name) if isinstance(given, Mapping) else getattr(given, name, None)


def _types(given: object) -> list[str]:
    """Return the names of an object's image processor classes.

    The result is empty for an object or dict without such a name.
    """
    if isinstance(family := getattr(type(given), "_FAMILY", None), Family):
        return [family.theirs]
    if isinstance(given, Mapping):
        kind = given.get("image_processor_type") or given.get("feature_extractor_type")
        return [str(kind)] if kind else []
    names = [kind.__name__ for kind in type(given).__mro__]
    return [name for name in names if "ImageProcessor" in name or "FeatureExtractor" in name]


def _read(path: Path, family: Family, taker: str) -> Any:
    """Return the content of a settings file, or of the settings file in a folder."""
    if path.is_file():
        return _json(path)
    if not path.is_dir():
        raise ConfigError(
            f"{taker}: there is no file or folder {path} (working directory {Path.cwd()}). Nothing is downloaded from the Hub: "
            f"pass the processor itself, made by transformers' AutoImageProcessor.from_pretrained({str(path)!r})"
        )
    for name in family.files:
        if (path / name).is_file():
            content = _json(path / name)
            if name != "processor_config.json" or (isinstance(content, Mapping) and content.get(family.inside) is not None):
                return content
    held = sorted(entry.name for entry in path.iterdir())
    raise ConfigError(
        f"{taker}: the folder {path} has no settings of an image processor. Expected {' or '.join(family.files)}, the first "
        f"with an entry {family.inside}; the folder holds {_listed(held) or 'no files'}"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error


def is_number(value: object) -> bool:
    """Return True if a value is an int or a float, and not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
