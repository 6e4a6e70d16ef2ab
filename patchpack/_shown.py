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


def briefly(value: object) -> str:
    """Return a short description of an image or a label."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if isinstance(value, (list, tuple)) and value and not isinstance(value[0], (str, int, float)):
        more = f", … {len(value)} in all" if len(value) > 3 else ""
        return f"[{', '.join(map(briefly, value[:3]))}{more}]"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None and len(shape):
        return f"<{str(dtype).removeprefix('torch.')} {list(shape)}>"
    if hasattr(value, "mode") and hasattr(value, "size"):
        return f"<{value.mode} picture {value.size[1]} x {value.size[0]}>"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
