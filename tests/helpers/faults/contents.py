"""Images and labels that are not what they should be."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from helpers.faults.table import Lost, between, fault, spliced
from helpers.painted import END, Maker, member, members, picture

# ------------------------------------------------------------------------------------------------------------------ images


def with_image(data: Callable[[Maker], bytes], name: str = "s2.png") -> Callable[[Maker], bytes]:
    return between(lambda m: members([(name, data(m)), m.sample(2)[1]]))


def bomb(_: Maker) -> bytes:
    """13,000 x 13,000 pixels in 20 kB."""
    file = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(file, "PNG")
    return file.getvalue()


for name, data, stage, reason in (
    ("an image of no bytes", lambda m: b"", "header", "0 bytes"),
    ("a page of HTML for an image", lambda m: b"<html>404 Not Found</html>" * 30, "header", "expected a readable JPEG, PNG"),
    ("an image cut in its header", lambda m: m.image(2)[:20], "header", ""),
    ("an image cut in its pixels", lambda m: m.image(2)[:900], "decode", ""),
    ("an image with a scratch", lambda m: spliced(m.image(2), 400, 440, b"\xaa" * 40), "decode", ""),
    ("an image of too many pixels", bomb, "header", "13000"),
    ("a pickle for an image", lambda m: pickle.dumps(Bomb()), "header", ""),
):
    fault(name, "1 3", Lost("s2", stage, reason))(with_image(data))
fault("an image under another extension", "1 2 3")(with_image(lambda m: m.image(2), "s2.jpg"))
fault("an image of another kind", "1 2 3")(with_image(lambda m: m.image(2, "WEBP"), "s2.webp"))
fault("an image nobody asked for", "1 3", Lost("s2", "read", "it has: bmp, cls", ""))(
    with_image(lambda m: m.image(2, "BMP"), "s2.bmp")
)
fault("two images, one asked for first", "1 2 3")(
    between(lambda m: members([("s2.png", picture(m.label(9))), ("s2.jpg", picture(m.label(2), "JPEG")), m.sample(2)[1]]))
)


class Bomb:
    """Opens a file to write when it is unpickled."""

    def __reduce__(self) -> Any:
        return open, ("unpickled", "w")


fault("pickles nobody asked for", "1 2 3")(
    between(lambda m: members([*m.samples(2), *((f"s2.{e}", pickle.dumps(Bomb())) for e in ("pyd", "pkl", "pickle", "pth"))]))
)

# ------------------------------------------------------------------------------------------------------------------ labels


def npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value)
    return file.getvalue()


def lying_npy(shape: str, numbers: int) -> bytes:
    """An array of int64 whose header says another shape."""
    head = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}}}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + np.arange(numbers).tobytes()


UNFIT = "expected a target of kind int64 as the first sample had, got"
for extension, cases in {
    "cls": {
        "text": (b"two", "does not hold a cls"),
        "a float": (b"2.0", "does not hold a cls"),
        "nothing": (b"", "does not hold a cls"),
        "NaN": (b"nan", "does not hold a cls"),
        "a number with an underscore": (b"1_0", "does not hold a cls"),
        "a number with a zero byte": (b"12\0", "does not hold a cls"),
        "a number of 30 digits": (b"9" * 30, "does not hold a cls"),
        "a number of 2 million digits": (b"9" * 2_000_000, "does not hold a cls"),
        "UTF-16": ("12".encode("utf-16"), "does not hold a cls"),
        "a list": (b"[12]", "does not hold a cls"),
        "a pickle": (pickle.dumps(Bomb()), "does not hold a cls"),
    },
    "json": {
        "broken": (b'{"class": 1', "does not hold a json"),
        "nothing": (b"", "does not hold a json"),
        "text": (b'"two"', UNFIT),
        "a list": (b"[1, 2]", UNFIT),
        "NaN": (b"NaN", UNFIT),
        "a float": (b"2.5", UNFIT),
        "null": (b"null", UNFIT),
        "a number of 30 digits": (b"9" * 30, UNFIT),
        "lists in lists without an end": (b"[" * 200_000, "does not hold a json"),
        "raw bytes": (b"\xff\xfe\xfd", "does not hold a json"),
    },
    "npy": {
        "a pickled object": (npy(np.array([Bomb()], dtype=object)), "does not hold a npy"),
        "a pickle": (pickle.dumps(Bomb()), "does not hold a npy"),
        "too few numbers": (lying_npy("(2,)", 1), "does not hold a npy"),
        "too many numbers": (lying_npy("()", 2), "does not hold a npy"),
        "a shape of 32 GiB": (lying_npy("(4294967296,)", 1), "does not hold a npy"),
        "a shape of 8 TB": (lying_npy("(1000000, 1000000)", 1), "does not hold a npy"),
        "a shape below zero": (lying_npy("(-1,)", 1), "does not hold a npy"),
        "a shape that is code": (lying_npy("open('unpickled', 'w')", 1), "does not hold a npy"),
        "another shape": (npy(np.arange(3)), UNFIT),
        "another kind": (npy(np.array(2.5)), UNFIT),
        "text": (npy(np.array("two")), UNFIT),
        "nothing": (b"", "does not hold a npy"),
    },
}.items():  # fmt: skip
    for what, (label, reason) in cases.items():
        in_kind = {"cls": Maker.cls, "json": Maker.cls, "npy": lambda m, n: npy(np.array(m.label(n)))}[extension]
        fault(f"{extension} of {what}", "1 3", Lost("s2", "target", reason), target=extension)(
            lambda m, data=label, e=extension, k=in_kind: m.with_label(data, e, (k(m, 1), k(m, 3)))  # type: ignore[misc]
        )
fault("a label with spaces around", "1 2 3")(lambda m: m.with_label(b" %d\r\n" % m.label(2)))


def two_labels(make: Maker, of_second: bytes) -> bytes:
    rest = [(f"s{n}.json", make.cls(n)) for n in (1, 3)]
    return members([*make.samples(1), rest[0], *make.samples(2)]) + of_second + members([*make.samples(3), rest[1]]) + END


fault(
    "one of two labels missing", "1 3", Lost("s2", "target", "no label member 'json', it has: cls, png"), target=("cls", "json")
)(lambda m: two_labels(m, b""))
fault("one of two labels broken", "1 3", Lost("s2", "target", "does not hold a json"), target=("cls", "json"))(
    lambda m: two_labels(m, member("s2.json", b"{"))
)
