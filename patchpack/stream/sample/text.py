"""Texts of samples: where a text is found, and its tokens from the user's function.

Texts are read and tokenized together with headers, because the planner must know how many tokens a row holds.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from patchpack._shown import said
from patchpack.errors import ConfigError, TargetError
from patchpack.stream.sample.field_names import FieldName, brief, decoded, parse_name, parse_object

Tokenize = Callable[[str], Sequence[int]]
"""Text → token ids, at least one. An exception in it rejects the sample."""

TEXT = "txt"  # the default name of a text
_INT32 = np.iinfo(np.int32)


class Text(NamedTuple):
    """The location of texts, and their tokenizer.

    Attributes:
        member: extension of the member or file that holds the text, or name of the column of a row.
        field: name of a field of the JSON object in the member. None if the member holds the text itself.
        tokenize: a function from a text to its token ids.
    """

    member: str
    field: str | None
    tokenize: Tokenize

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that a row's column of texts may have. The first one present is used."""
        return (self.member, "text") if self.member == TEXT else (self.member,)

    def column(self, names: Mapping[str, object]) -> object:
        """Return the name of the row's column that has the text. Raises `TargetError` if there is none.

        `names` maps the name of every column in lower case to the name as written.
        """
        for name in self.columns:
            if name in names:
                return names[name]
        raise TargetError(f"no text member or column {self.member!r}, it has: {', '.join(names)}")

    def of(self, value: object) -> str:
        """Return the text from a member's bytes, or from an object that a pipeline decoded.

        Raises:
            TargetError: the bytes are not UTF-8 or JSON, the object has no such field, or the value is not a text.
        """
        if self.field is None:
            value = decoded("text", self.member, value)
        else:
            value = FieldName(self.member, self.field).of("text", parse_object("text", self.member, value))
        if not isinstance(value, str):
            raise TargetError(f"text {self.name!r} must be a str, got {brief(value)}")
        return value

    def tokens(self, text: object) -> bytes:
        """Return the token ids of a text, for `Header.text`.

        Raises `TargetError` if there is no text, or the tokens are not valid.
        """
        if not isinstance(text, str):
            raise TargetError(f"with tokenize= the text of a sample must be a str, got {brief(text)}")
        try:
            ids = np.asarray(self.tokenize(text))
        except Exception as error:
            raise TargetError(f"tokenize failed for {brief(text)}: {said(error)}") from error
        if ids.ndim == 1 and not len(ids):
            raise TargetError(f"tokenize must return at least one token, such as an end token, got none for {brief(text)}")
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise TargetError(f"tokenize must return a list of integers, got {brief(ids.tolist())} for {brief(text)}")
        low, high = int(ids.min()), int(ids.max())
        if low < _INT32.min or high > _INT32.max:
            raise TargetError(f"tokenize must return integers of 32 bits, got {low} … {high} for {brief(text)}")
        return ids.astype(np.int32).tobytes()

    @property
    def name(self) -> str:
        """The name of the text as the user gives it, such as ``"json:caption"``."""
        return str(FieldName(self.member, self.field))


def parse_text(text: str, tokenize: Tokenize | None) -> Text | None:
    """Return the location of texts for a name such as ``"txt"`` or ``"json:caption"``. Return None without `tokenize`.

    Raises:
        ConfigError: a text is named without `tokenize`, the name is empty, or `tokenize` cannot be called.
    """
    if tokenize is None:
        if text != TEXT:
            raise ConfigError(f"text={text!r} needs a tokenizer: pass tokenize= and text_len= too")
        return None
    if isinstance(tokenize, type) or not callable(tokenize):
        raise ConfigError(f"tokenize must be a function text -> token ids, got {tokenize!r}")
    found = parse_name(text) if isinstance(text, str) else None
    if found is None:
        raise ConfigError(f"text must name a member or column, such as 'txt', or a field, such as 'json:caption', got {text!r}")
    return Text(found.member, found.field, tokenize)


def require_text_len(text: Text | None, text_len: int | None) -> None:
    """Raise `ConfigError` unless `text` and `text_len` are both given, or both None."""
    if (text is None) != (text_len is None):
        got = f"text_len={text_len!r} without tokenize=" if text is None else "tokenize= without text_len="
        raise ConfigError(f"tokenize= and text_len=, the text tokens per row, must be passed together, got {got}")


def require_picklable(tokenize: Tokenize | None, start_method: str) -> None:
    """Raise `ConfigError` if the start method pickles `tokenize` and `tokenize` cannot be pickled."""
    if tokenize is None or start_method == "fork":
        return
    try:
        pickle.dumps(tokenize)
    except Exception as error:
        raise ConfigError(
            f"tokenize runs in the process that reads headers, and cannot be sent to a process started by {start_method!r}: "
            f"{type(error).__name__}: {error}. Use a function of a module, or an object that can be pickled"
        ) from None
