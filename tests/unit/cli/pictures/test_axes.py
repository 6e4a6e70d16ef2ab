"""Names of sources in figures."""

from __future__ import annotations

import pytest

from patchpack.cli.pictures.axes import source_name


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/data/secret/train-{0000..0099}.tar", "train-{0000..0099}.tar"),
        ("/data/secret/{a,b/c}.tar", "{a,b/c}.tar"),
        ("photos/*.jpg", "*.jpg"),
        ("photos/", "photos"),
        ("https://bucket.example/set/train.tar?token=secret", "train.tar"),
        ("pipe:curl -H secret https://bucket.example/train.tar", "a pipe"),
    ],
)
def test_a_picture_names_its_source_without_where_it_lies(source: str, shown: str) -> None:
    assert source_name(source) == shown
