"""The text of a user's values and errors, for messages. These functions never raise an error, even if a `repr` does."""

from __future__ import annotations

_LIMIT = 2000


def shown(value: object) -> str:
    """Return the `repr` of a value, cut after 2000 characters. If the `repr` raises an error, name the class of the value."""
    try:
        text = repr(value)
    except Exception as error:  # an int with too many digits, or an error in the `repr` of a user's class
        return f"a {type(value).__name__} that cannot be shown ({type(error).__name__})"
    return text if len(text) <= _LIMIT else f"{text[:_LIMIT]}..."


def said(error: BaseException) -> str:
    """Return the class and the text of an error."""
    return f"{type(error).__name__}: {text_of(error)}"


def text_of(error: BaseException) -> str:
    """Return the text of an error, or a note that the text cannot be shown."""
    try:
        return str(error)
    except Exception:
        return "(its text cannot be shown)"
