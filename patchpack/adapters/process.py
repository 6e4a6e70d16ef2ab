"""The base class of the processors: calls with images, saving and loading of settings, and methods that transformers calls."""

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
    """A processor that turns images into the arguments of a model. It is called like a processor of transformers.

    Subclasses are dataclasses. Once transformers has been imported, an instance is also an instance of transformers'
    ``BaseImageProcessor``. See `native`.

    Attributes:
        recipe: a recipe for `load` and `pack_images` that gives the same patches as this processor. Pass the batches of `load`
            or `pack_images` to the model's adapter.
        model_input_names: names of the model's arguments that the processor makes.
        do_resize: True, because images are always resized. The name is transformers' name.
        do_rescale: True, because pixels are always rescaled. The name is transformers' name.
        do_normalize: True, because pixels are always normalised. The name is transformers' name.
        do_convert_rgb: True, because images are always converted to RGB. The name is transformers' name.
        rescale_factor: factor of the rescaling, 1 / 255.
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
        """Return the model's arguments for one image or for a list of images, in the order of the list.

        The documentation of the model's adapter describes the returned arguments.

        Args:
            images: one image, or a list of images. An image is a PIL image, file bytes, a path, or a uint8 array or tensor. The
                array of a colour image is ``[H, W, 3]`` or ``[3, H, W]``. The array of a grey image is ``[H, W]``,
                ``[H, W, 1]`` or ``[1, H, W]``. An array with one more axis in front is a batch of images.
            return_tensors: ``"pt"`` (default) for tensors, ``"np"`` or None for numpy arrays.
            **changes: other values for fields of the processor, for this call only. Other options of transformers' processors
                (``size``, ``resample``, ``do_resize``, ``device``, …) are accepted if they ask for something that this
                processor does anyway.

        Raises:
            SourceError: a path cannot be read. The error names the path.
            DecodeError: an image cannot be decoded. The error names the number or the path of the image.
            SizeError: the model does not take the shape of an image.
            ConfigError: an option is unknown, or asks for something that this processor cannot do.
        """
        if return_tensors not in ("pt", "np", None):
            raise ConfigError(f"return_tensors must be 'pt' (torch), 'np' (numpy) or None (numpy), got {return_tensors!r}")
        device, layout = changes.pop("device", None), changes.pop("input_data_format", None)
        layout = getattr(layout, "value", layout)
        if layout not in (None, "channels_first", "channels_last"):
            raise ConfigError(f"input_data_format must be 'channels_first' or 'channels_last', got {layout!r}")
        if device is not None and _device(device).type != "cpu" and return_tensors != "pt":
            raise ConfigError(f"numpy arrays are in CPU memory: device={str(device)!r} needs return_tensors='pt'")
        processor = self._changed(changes)
        arrays = processor._arrays(prepare(images, processor.recipe, layout))
        if return_tensors != "pt":
            return ModelInputs(arrays)
        inputs = ModelInputs({name: torch.from_numpy(array) for name, array in arrays.items()})
        return inputs if device is None else inputs.to(_device(device))

    def preprocess(self, images: object, **options: Any) -> ModelInputs:
        """Return the result of calling the processor with these arguments."""
        return self(images, **options)

    def fetch_images(self, images: object) -> object:
        """Return the images, with each path replaced by the opened image.

        The processors of text and images in transformers call this method.

        A string that is not the path of a file, such as a URL in a conversation, is loaded by transformers if transformers is
        imported. Otherwise the string is returned unchanged.

        Raises:
            DecodeError: a file is not an image.
        """
        if isinstance(images, (list, tuple)):
            return [self.fetch_images(image) for image in images]
        if isinstance(images, (str, os.PathLike)):
            if len(os.fspath(images)) < 4096 and Path(images).is_file():  # a longer string is an image encoded as text
                return _opened(Path(images))
            if isinstance(images, str) and sys.modules.get("transformers") is not None:
                return importlib.import_module("transformers.image_utils").load_image(images)
        return images

    def get_number_of_image_patches(self, height: int, width: int, images_kwargs: Mapping[str, object] | None = None) -> int:
        """Return the number of patches of an image of this size. Servers call this method before they have the image.

        Args:
            height: height of the image in pixels.
            width: width of the image in pixels.
            images_kwargs: dict of the options of the call. None (default) means no options.

        Raises:
            SizeError: the model does not take this size.
        """
        elsewhere = ("return_tensors", "device", "input_data_format")  # these do not change the size
        recipe = self._changed({k: v for k, v in (images_kwargs or {}).items() if k not in elsewhere}).recipe
        return int(grids_of([Size(height, width)], ["the image"], recipe)[0].prod())

    # ---------------------------------------------------------------------------------------------------- saved and read again

    def to_dict(self) -> dict[str, object]:
        """Return the settings in the form that the model's own processor writes to its file. `like` accepts this dict."""
        return {"image_processor_type": self._FAMILY.theirs, **self._stated()}

    def to_json_string(self) -> str:
        """Return the settings of `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **_: object) -> list[str]:
        """Write the settings to a file in a folder. The model's own processor and `like` of this class can read the file.

        Returns:
            The path of the file, in a list.

        Raises:
            ConfigError: ``push_to_hub=True``. Call the method `push_to_hub`, which exists once transformers is imported.
        """
        if push_to_hub:
            raise ConfigError("save_pretrained only writes a folder: call push_to_hub(repo_id) to upload it")
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self._FAMILY.files[-1]
        path.write_text(self.to_json_string(), encoding="utf-8")
        return [str(path)]

    @classmethod
    def from_pretrained(cls: type[P], folder: str | os.PathLike[str], **changes: object) -> P:
        """Return the result of `like` for a folder or file. Nothing is downloaded."""
        return like(cls, os.fspath(folder), changes)

    @classmethod
    def from_dict(cls: type[P], settings: Mapping[str, object], **changes: object) -> P:
        """Return the result of `like` for a dict."""
        return like(cls, settings, changes)

    # ----------------------------------------------------------------------------------------------- defined by each subclass

    @abstractmethod
    def _arrays(self, prepared: Prepared) -> dict[str, np.ndarray]:
        """Return the model's arguments, as a dict from names to arrays."""

    @abstractmethod
    def _stated(self) -> dict[str, object]:
        """Return the settings under the names of the model's own processor, as values for JSON."""

    @abstractmethod
    def _fields(self, settings: Settings) -> dict[str, object]:
        """Return the fields of this processor that the given settings change, as a dict from names to new values.

        Raise `ConfigError` for a setting that this processor cannot apply.
        """

    # ------------------------------------------------------------------------------------------------------------------ inside

    def _changed(self: P, changes: Mapping[str, object]) -> P:
        """Return a processor with the options of a call applied.

        Raise `ConfigError` for an option that is unknown or cannot be applied.
        """
        if not changes:
            return self
        own = [field.name for field in fields(self)]  # type: ignore[arg-type]
        unknown = sorted(changes.keys() - {*own, *(CALL if self._NATIVE else ())})
        if unknown:
            raise ConfigError(
                f"{type(self).__name__} has no option {unknown[0]}={changes[unknown[0]]!r}; a call takes images, "
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
            """The class that ``isinstance`` reads.

            Once transformers is imported, this class is also a subclass of transformers' ``BaseImageProcessor``.
            """
            return native.native_class(type(self)) if self._NATIVE else type(self)

        def __getattr__(self, name):
            if not name.startswith("__") and self._NATIVE and native.become_native(self):
                return getattr(self, name)  # such as valid_kwargs
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def like(kind: type[P], processor: object, changes: Mapping[str, object]) -> P:
    """Return a processor that has the settings of another processor, except for the fields in `changes`.

    Args:
        kind: class of the returned processor.
        processor: source of the settings: a processor, folder, file or dict that ``kind.like`` accepts.
        changes: dict from field names to values, used in place of the settings of `processor`.

    Raises:
        ConfigError: a changed field does not exist, or `processor` has no such settings.
    """
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for name in changes:
        if name not in known:
            raise ConfigError(f"{kind.__name__} has no field {name}{nearest(name, known)}")
    settings = settings_of(processor, kind._FAMILY, f"{kind.__name__}.like")
    given = settings.given
    if isinstance(given, kind):
        return replace(given, **changes)  # type: ignore[type-var]
    made = kind(**{**kind()._fields(settings), **changes})
    made.recipe  # noqa: B018  refuses what cannot be done now, such as means on the 0-255 scale
    return made


def colours_of(processor: Any) -> dict[str, object]:
    """Return mean, standard deviation and resampling kernel under transformers' names, as values for JSON."""
    return {
        "image_mean": list(processor.image_mean),
        "image_std": list(processor.image_std),
        "resample": int(FILTERS[processor.resample]),
    }


STEPS = {
    name: getattr(Processor, name) for name in ("do_resize", "do_rescale", "rescale_factor", "do_normalize", "do_convert_rgb")
}
"""Steps that are done to every image, under their names in transformers."""


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(io.BytesIO(path.read_bytes()))
    except (OSError, Image.DecompressionBombError) as error:
        raise DecodeError(f"{path}: expected a readable image, got {type(error).__name__}: {error}") from error


def _device(device: Any) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device={device!r} is not a device that torch knows: {error}") from error


def _made(kind: type[P], state: dict[str, object]) -> P:
    return kind(**state)
