"""Texts beside images: where a sample keeps its own, and the tokens a user's function makes of it.

Both are done while headers are read, because how many tokens a row holds is the planner's business.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from patchpack.errors import ConfigError, TargetError

Tokenize = Callable[[str], Sequence[int]]
"""Text → token ids, at least one. What it raises makes the sample a rejection."""

TEXT = "txt"  # where a text is looked for if nobody says
_INT32 = np.iinfo(np.int32)


class Text(NamedTuple):
    """Where texts are, and what makes tokens of them.

    Attributes:
        member: extension of the member or file beside the image, column of a row.
        field: of the JSON object that is there; None where it is the text itself.
        tokenize: text → token ids.
    """

    member: str
    field: str | None
    tokenize: Tokenize

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that a row's column may have, the first that is there counts."""
        return (self.member, "text") if self.member == TEXT else (self.member,)

    def column(self, names: Mapping[str, Any]) -> Any:
        """Which of a row's columns, by their names in lower case, has the text. Raises `TargetError`: none."""
        for name in self.columns:
            if name in names:
                return names[name]
        raise TargetError(f"no text member or column {self.member!r}, it has: {', '.join(names)}")

    def of(self, value: Any) -> str:
        """The text in a member's bytes, or in what a pipeline made of them.

        Raises:
            TargetError: bytes that are no UTF-8 or JSON, an object without the field, or no text at all.
        """
        if isinstance(value, (bytes, bytearray, memoryview)):
            try:
                value = bytes(value).decode("utf-8")
            except UnicodeDecodeError as error:
                raise TargetError(f"text {self.member!r} is not UTF-8: {error.reason} at byte {error.start}") from None
        if self.field is not None:
            value = self._in_object(value)
        if not isinstance(value, str):
            raise TargetError(f"text {self.name!r} must be a str, got {_shown(value)}")
        return value

    def tokens(self, text: Any) -> bytes:
        """What `Header.text` holds. Raises `TargetError`: no text, or not the tokens of one."""
        if not isinstance(text, str):
            raise TargetError(f"a sample's text must be a str where tokenize is given, got {_shown(text)}")
        try:
            ids = np.asarray(self.tokenize(text))
        except Exception as error:
            raise TargetError(f"tokenize failed on {_shown(text)}: {type(error).__name__}: {error}") from error
        if ids.ndim == 1 and not len(ids):
            raise TargetError(f"tokenize made no token of {_shown(text)}: give every text one, such as one that ends it")
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise TargetError(f"tokenize must make a list of integers of {_shown(text)}, got {_shown(ids.tolist())}")
        low, high = int(ids.min()), int(ids.max())
        if low < _INT32.min or high > _INT32.max:
            raise TargetError(f"tokenize made {low} … {high} of {_shown(text)}: tokens are integers of 32 bits")
        return ids.astype(np.int32).tobytes()

    @property
    def name(self) -> str:
        """As it was asked for."""
        return self.member if self.field is None else f"{self.member}:{self.field}"

    def _in_object(self, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise TargetError(f"text {self.member!r} is no JSON: {error}") from None
        if not isinstance(value, Mapping) or self.field not in value:
            has = ", ".join(map(repr, value)) if isinstance(value, Mapping) else _shown(value)
            raise TargetError(f"text {self.member!r} has no field {self.field!r}, it has: {has}")
        return value[self.field]


def parse_text(text: str, tokenize: Tokenize | None) -> Text | None:
    """Where texts are, from ``"txt"`` or ``"json:caption"``; None where nothing makes tokens of them.

    Raises:
        ConfigError: a text that is named and not read, no name, or a `tokenize` that cannot be called.
    """
    if tokenize is None:
        if text != TEXT:
            raise ConfigError(f"text={text!r} is read where something makes tokens of it: pass tokenize= and text_len= too")
        return None
    if isinstance(tokenize, type) or not callable(tokenize):
        raise ConfigError(f"tokenize is a function text -> token ids, got {tokenize!r}")
    if not isinstance(text, str):
        raise ConfigError(f"text names a member or column, as 'txt', or a field of one, as 'json:caption'; got {text!r}")
    member, colon, field = text.partition(":")
    member = member.strip().lstrip(".").lower()
    if not member or (colon and not field):
        raise ConfigError(f"text names a member or column, as 'txt', or a field of one, as 'json:caption'; got {text!r}")
    return Text(member, field or None, tokenize)


def require_text_len(tokenize: Tokenize | None, text_len: int | None) -> None:
    """Raises `ConfigError` for one without the other."""
    if (tokenize is None) != (text_len is None):
        raise ConfigError(
            "tokenize makes tokens of texts and text_len says how many of them a row holds: they go together, got "
            f"tokenize={tokenize!r}, text_len={text_len!r}"
        )


def require_picklable(tokenize: Tokenize | None, start_method: str) -> None:
    """Raises `ConfigError` for a `tokenize` that no process could be given that is not forked."""
    if tokenize is None or start_method == "fork":
        return
    try:
        pickle.dumps(tokenize)
    except Exception as error:
        raise ConfigError(
            f"tokenize runs in the process that reads headers, and cannot be sent to one that is started by {start_method!r}: "
            f"{type(error).__name__}: {error}. Make it a function of a module, or an object that pickles"
        ) from None


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
