"""What the processors share: images in, each painted straight to its place; and what transformers asks of one beside."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from PIL import Image

from patchpack.adapters import native
from patchpack.adapters.inputs import ModelInputs
from patchpack.adapters.prepare import Prepared, grids_of, prepare
from patchpack.adapters.settings import CALL, Family, Settings, check_call, settings_of
from patchpack.errors import ConfigError, DecodeError
from patchpack.paint.resample import FILTERS
from patchpack.plan.recipe import Recipe
from patchpack.stream.sample.names import nearest
from patchpack.types import Size

Kernel = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Triple = tuple[float, float, float]
Returned = Literal["pt", "np"]
P = TypeVar("P", bound="Processor")


class Processor(ABC):
    """A processor that is called as those of transformers are: images in, arguments of a model out. Subclasses are dataclasses.

    Where transformers has been imported, an instance is one of its ``BaseImageProcessor``, too: see `native`.

    Attributes:
        recipe: the same for `load` and `pack_images`, whose batches the adapter takes.
        model_input_names: of the arguments.
        do_resize, do_rescale, do_normalize, do_convert_rgb, rescale_factor: what is always done, as transformers names it.
    """

    recipe: Recipe
    model_input_names: ClassVar[list[str]]
    do_resize: ClassVar[bool] = True
    do_rescale: ClassVar[bool] = True
    do_normalize: ClassVar[bool] = True
    do_convert_rgb: ClassVar[bool] = True
    rescale_factor: ClassVar[float] = 1 / 255
    _FAMILY: ClassVar[Family]
    _NATIVE: ClassVar[bool] = True  # has a counterpart in transformers
    _UNDONE: ClassVar[Mapping[str, tuple[object, ...]]] = {}  # options of a call that change nothing, see `check_call`

    def __call__(self, images: object, *, return_tensors: Returned | None = "pt", **changes: object) -> ModelInputs:
        """Arguments for one image or a list of them, in their order; the adapter of the same model says what they are.

        Args:
            images: PIL images, uint8 arrays or tensors ``[H, W, 3]`` or ``[3, H, W]``, grey ones ``[H, W]``, ``[H, W, 1]`` or
                ``[1, H, W]``, batches of either with one axis in front, file bytes, or paths.
            return_tensors: ``"pt"``, or ``"np"``, or None, which gives arrays as well.
            **changes: fields of the processor, for this call; and what those of transformers take beside, where it asks for
                what is done anyway: ``size``, ``resample``, ``do_resize``, ``device``, …

        Raises:
            SourceError, DecodeError: an image that cannot be read, by its number or path.
            SizeError: one whose shape the model does not take.
            ConfigError: what is no field, or cannot be done.
        """
        if return_tensors not in ("pt", "np", None):
            raise ConfigError(f"return_tensors is 'pt' (torch), 'np' (numpy) or None (numpy), got {return_tensors!r}")
        device, layout = changes.pop("device", None), changes.pop("input_data_format", None)
        layout = getattr(layout, "value", layout)
        if layout not in (None, "channels_first", "channels_last"):
            raise ConfigError(f"input_data_format is 'channels_first' or 'channels_last', got {layout!r}")
        if device is not None and _device(device).type != "cpu" and return_tensors != "pt":
            raise ConfigError(f"arrays are on the CPU: device={str(device)!r} needs return_tensors='pt'")
        processor = self._changed(changes)
        arrays = processor._arrays(prepare(images, processor.recipe, layout))
        if return_tensors != "pt":
            return ModelInputs(arrays)
        inputs = ModelInputs({name: torch.from_numpy(array) for name, array in arrays.items()})
        return inputs if device is None else inputs.to(_device(device))

    def preprocess(self, images: object, **options: Any) -> ModelInputs:
        """The same as calling it."""
        return self(images, **options)

    def fetch_images(self, images: object) -> object:
        """What transformers' processors of images and text ask first: images, for paths among them.

        A string that is no path of a file, such as a URL in a conversation, is left to transformers where that is imported.

        Raises:
            DecodeError: a file that is no image.
        """
        if isinstance(images, (list, tuple)):
            return [self.fetch_images(image) for image in images]
        if isinstance(images, (str, os.PathLike)):
            if len(os.fspath(images)) < 4096 and Path(images).is_file():  # longer ones are images as text
                return _opened(Path(images))
            if isinstance(images, str) and sys.modules.get("transformers") is not None:
                return importlib.import_module("transformers.image_utils").load_image(images)
        return images

    def get_number_of_image_patches(self, height: int, width: int, images_kwargs: Mapping[str, object] | None = None) -> int:
        """How many patches an image of this size becomes, for servers that count placeholders before they have the image.

        Args:
            height, width: of the image, in pixels.
            images_kwargs: options that a call would be given.

        Raises:
            SizeError: a size that the model does not take.
        """
        elsewhere = ("return_tensors", "device", "input_data_format")  # they change no size
        recipe = self._changed({k: v for k, v in (images_kwargs or {}).items() if k not in elsewhere}).recipe
        return int(grids_of([Size(height, width)], ["the image"], recipe)[0].prod())

    # ---------------------------------------------------------------------------------------------------- saved and read again

    def to_dict(self) -> dict[str, object]:
        """Settings as the model's own processor states them in its file; `like` takes them."""
        return {"image_processor_type": self._FAMILY.theirs, **self._stated()}

    def to_json_string(self) -> str:
        """The same as JSON."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **_: object) -> list[str]:
        """Write the file of settings into a folder, from which the model's own processor can be made, and this one by `like`.

        Returns:
            The path of the file.

        Raises:
            ConfigError: with ``push_to_hub=True``; the method `push_to_hub` does that where transformers is imported.
        """
        if push_to_hub:
            raise ConfigError("save_pretrained writes a folder: call push_to_hub(repo_id) to send it")
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self._FAMILY.files[-1]
        path.write_text(self.to_json_string(), encoding="utf-8")
        return [str(path)]

    @classmethod
    def from_pretrained(cls: type[P], folder: str | os.PathLike[str], **changes: object) -> P:
        """The same as `like` of a folder or file; nothing is fetched."""
        return like(cls, os.fspath(folder), changes)

    @classmethod
    def from_dict(cls: type[P], settings: Mapping[str, object], **changes: object) -> P:
        """The same as `like` of a dict."""
        return like(cls, settings, changes)

    # ------------------------------------------------------------------------------------------------------------- a subclass's

    @abstractmethod
    def _arrays(self, prepared: Prepared) -> dict[str, np.ndarray]:
        """The model's arguments by name."""

    @abstractmethod
    def _stated(self) -> dict[str, object]:
        """Settings under the names that they have there, as JSON may hold them."""

    @abstractmethod
    def _fields(self, settings: Settings) -> dict[str, object]:
        """Fields that settings change. Raises `ConfigError` for one that is not done."""

    # ------------------------------------------------------------------------------------------------------------------ inside

    def _changed(self: P, changes: Mapping[str, object]) -> P:
        """With some fields changed, as a call may ask for. Raises `ConfigError` for what is no field, or cannot be done."""
        if not changes:
            return self
        own = [field.name for field in fields(self)]  # type: ignore[arg-type]
        unknown = sorted(changes.keys() - {*own, *(CALL if self._NATIVE else ())})
        if unknown:
            raise ConfigError(
                f"{type(self).__name__} does not know {unknown[0]}={changes[unknown[0]]!r}; a call takes images, "
                f"return_tensors and {', '.join(own)}"
            )
        check_call(changes, self._UNDONE)
        return replace(self, **self._fields(Settings(changes)))  # type: ignore[type-var]

    def __reduce__(self) -> tuple[object, ...]:
        state = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return _made, (native.plain_class(type(self)), state)  # a native class cannot be imported by its name

    if not TYPE_CHECKING:

        @property
        def __class__(self):
            """What ``isinstance`` asks: with transformers imported, a class that is one of its image processors, too."""
            return native.native_class(type(self)) if self._NATIVE else type(self)

        def __getattr__(self, name):
            if not name.startswith("__") and self._NATIVE and native.become_native(self):
                return getattr(self, name)  # such as valid_kwargs
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def like(kind: type[P], processor: object, changes: Mapping[str, object]) -> P:
    """A processor with the settings of another, and some fields changed. Raises `ConfigError` for what carries none."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for name in changes:
        if name not in known:
            raise ConfigError(f"{kind.__name__} has no {name}{nearest(name, known)}")
    settings = settings_of(processor, kind._FAMILY, f"{kind.__name__}.like")
    given = settings.given
    if isinstance(given, kind):
        return replace(given, **changes)  # type: ignore[type-var]
    return kind(**{**kind()._fields(settings), **changes})


def colours_of(processor: Any) -> dict[str, object]:
    """Mean, deviation and kernel under their names in transformers, as JSON may hold them."""
    return {
        "image_mean": list(processor.image_mean),
        "image_std": list(processor.image_std),
        "resample": int(FILTERS[processor.resample]),
    }


STEPS = {
    name: getattr(Processor, name) for name in ("do_resize", "do_rescale", "rescale_factor", "do_normalize", "do_convert_rgb")
}
"""What is done to every image, under the names that it has in transformers."""


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(io.BytesIO(path.read_bytes()))
    except (OSError, Image.DecompressionBombError) as error:
        raise DecodeError(f"{path}: expected a readable image, got {type(error).__name__}: {error}") from error


def _device(device: Any) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device={device!r} is no device of torch: {error}") from error


def _made(kind: type[P], state: dict[str, object]) -> P:
    return kind(**state)
