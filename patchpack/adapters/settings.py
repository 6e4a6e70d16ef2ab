"""Settings read off another processor: an object, the folder or file it was saved to, or the dict in that file."""

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
_BY_CALL = ("crop_size", "pad_size", "image_seq_length", "header_text")  # without effect in a file, not in a call
_WITHOUT_EFFECT = ("default_to_square", "disable_grouping")
CALL = (*_DONE, *_NOT_DONE, *_BY_CALL, *_WITHOUT_EFFECT, "do_convert_rgb", "rescale_factor", "data_format", "size", "resample",
        "image_mean", "image_std")  # fmt: skip
"""What transformers lets a call of every image processor say; each is obeyed, or refused by name."""


class Family(NamedTuple):
    """Which settings are those of one processor.

    Attributes:
        theirs: what the processor is called where it comes from.
        types: pattern of the names that its class may have.
        own: settings of which at least one is there.
        inside: field or attribute under which a larger object holds the processor's settings.
        files: names of the file in a folder, by precedence.
    """

    theirs: str
    types: str
    own: tuple[str, ...]
    inside: str = "image_processor"
    files: tuple[str, ...] = ("processor_config.json", "preprocessor_config.json")


class Settings:
    """Fields of somebody's processor, of the file it was saved to, or of one call.

    What it does beside resizing to patches and normalising is refused, not passed over.
    """

    def __init__(self, given: object) -> None:
        self.given = given
        for names, wanted in ((_DONE, True), (_NOT_DONE, False)):
            for name in names:
                value = self.get(name)
                if value is not None and bool(value) is not wanted:
                    raise not_done(name, value, f"only {wanted} is")
        scale = self.get("rescale_factor")
        if scale is not None and not (is_number(scale) and abs(scale - 1 / 255) <= 1e-9):
            raise not_done("rescale_factor", scale, "it is 1 / 255")

    def get(self, name: str) -> Any:
        """One setting; None without."""
        return _get(self.given, name)

    def take(self, **fields: str) -> dict[str, Any]:
        """Our name → their value, for every setting that they have."""
        found = {ours: self.get(theirs) for ours, theirs in fields.items()}
        return {name: value for name, value in found.items() if value is not None}

    def whole(self, **fields: str) -> dict[str, int]:
        """The same, of whole numbers; a file may have them as 14.0. Raises `ConfigError` for anything else."""
        taken = self.take(**fields)
        for ours, value in taken.items():
            try:
                taken[ours] = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
            except TypeError:
                raise not_done(fields[ours], value, "it is a whole number") from None
        return taken

    def entries(self, field: str, names: tuple[str, ...]) -> dict[str, Any]:
        """Entries of a field that is a dict or an object with these names; nothing without the field.

        Raises `ConfigError` where it is another kind of thing, or has others.
        """
        value = self.get(field)
        if value is None:
            return {}
        found = dict(value) if isinstance(value, Mapping) else dict(getattr(value, "__dict__", {}))
        found = {name: entry for name, entry in found.items() if entry is not None}
        if not found or set(found) - set(names):
            raise not_done(field, value, f"it has {', '.join(names)}")
        return found

    def colours(self, mean: str = "image_mean", std: str = "image_std", kernel: str = "resample") -> dict[str, Any]:
        """Mean, deviation and kernel, under the names that they have there."""
        taken: dict[str, Any] = {}
        for name, value in self.take(**{mean: mean, std: std}).items():
            values = (value,) * 3 if is_number(value) else value
            try:
                taken[name] = tuple(map(float, values))
            except (TypeError, ValueError):
                raise not_done(name, value, "it is three numbers, by channel, or one for all") from None
            if len(taken[name]) != 3:
                raise not_done(name, value, "it is three numbers, by channel, or one for all")
        if (given := self.get(kernel)) is not None:
            taken[kernel] = kernel_of(kernel, given)
        return taken


def settings_of(given: object, family: Family, taker: str) -> Settings:
    """Settings of anything that carries those of a family.

    Args:
        given: a processor, a processor of text and images that holds one, a folder or file that either was saved to, or the
            content of that file.
        family: of the processor that is wanted.
        taker: the function that asks, for errors.

    Raises:
        ConfigError: anything else, saying what was expected and what came; a step that is not done here.
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
            f"{_wanted(family, taker)}; got {came}. Another class makes other arguments or other sizes. Where you know that it "
            f"does not, give a dict of its settings without image_processor_type"
        )
    settings = Settings(given)
    if isinstance(given, Recipe) or not any(_is_sign(name, settings.get(name)) for name in family.own):
        raise ConfigError(f"{_wanted(family, taker)}; got {came}")
    return settings


def describe(given: object) -> str:
    """What something is, in a few words."""
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
    """Our name of a resampling kernel, from a name, Pillow's number or a member of an enumeration of either."""
    value = getattr(given, "value", given)
    if isinstance(value, str) and value in FILTERS:
        return value
    numbers = {int(number): kernel for kernel, number in FILTERS.items()}
    if isinstance(value, int) and not isinstance(value, bool) and value in numbers:
        return numbers[value]
    raise ConfigError(f"{name}={given!r} is not one of {', '.join(FILTERS)}")


def check_call(changes: Mapping[str, object], undone: Mapping[str, tuple[object, ...]]) -> None:
    """Raise `ConfigError` for what a call asks and is not done.

    Args:
        changes: the call's options by name.
        undone: settings that the processor has no way to change, and the values that are what it does anyway.
    """
    for name in _BY_CALL:
        if changes.get(name) is not None:
            raise not_done(name, changes[name], "leave it out")
    if changes.get("do_convert_rgb") not in (None, True):
        raise not_done("do_convert_rgb", changes["do_convert_rgb"], "pictures become RGB")
    if getattr(changes.get("data_format"), "value", changes.get("data_format")) not in (None, "channels_first"):
        raise not_done("data_format", changes["data_format"], "patches have an order of their own")
    for name, same in undone.items():
        if changes.get(name) is not None and changes[name] not in same:
            raise not_done(name, changes[name], f"it is {same[0]!r}" if same else "it has no effect on this model's arguments")


def not_done(name: str, value: object, instead: str) -> ConfigError:
    """The error for a setting that asks for what no processor here does."""
    return ConfigError(f"{name}={value!r} is not done here ({instead}): keep the processor that does it")


def _wanted(family: Family, taker: str) -> str:
    return (
        f"{taker} takes the settings of {family.theirs}: the object, one that holds it as {family.inside}, the folder or file "
        f"it was saved to, or a dict of {', '.join(family.own)}"
    )


def _is_sign(name: str, value: object) -> bool:
    """Whether a setting is one of a processor: a model has a patch_size too, which is a number."""
    return value is not None and not (name == "patch_size" and isinstance(value, int))


def _get(given: object, name: str) -> Any:
    return given.get(name) if isinstance(given, Mapping) else getattr(given, name, None)


def _types(given: object) -> list[str]:
    """Names of classes of image processors that something is of; none for a dict or object that does not say."""
    if isinstance(family := getattr(type(given), "_FAMILY", None), Family):
        return [family.theirs]
    if isinstance(given, Mapping):
        kind = given.get("image_processor_type") or given.get("feature_extractor_type")
        return [str(kind)] if kind else []
    names = [kind.__name__ for kind in type(given).__mro__]
    return [name for name in names if "ImageProcessor" in name or "FeatureExtractor" in name]


def _read(path: Path, family: Family, taker: str) -> Any:
    """Content of a file, or of the file in a folder that states an image processor."""
    if path.is_file():
        return _json(path)
    if not path.is_dir():
        raise ConfigError(
            f"{taker}: there is no file or folder {path}, seen from {Path.cwd()}. Nothing is fetched from the Hub: give the "
            f"processor itself, as transformers' AutoImageProcessor.from_pretrained({str(path)!r}) makes it"
        )
    for name in family.files:
        if (path / name).is_file():
            content = _json(path / name)
            if name != "processor_config.json" or (isinstance(content, Mapping) and content.get(family.inside) is not None):
                return content
    held = sorted(entry.name for entry in path.iterdir())
    raise ConfigError(
        f"{taker}: the folder {path} states no image processor. One is stated by {' or '.join(family.files)}, the first with "
        f"an entry {family.inside}; the folder holds {_listed(held) or 'nothing'}"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error


def is_number(value: object) -> bool:
    """Whether something is a number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
