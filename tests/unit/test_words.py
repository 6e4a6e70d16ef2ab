"""Prose of the package and its pages has no more faults than `words_today.json` allows."""

from __future__ import annotations

import pytest

from helpers import words

ROOT = words.ROOT
ROOMS = sorted({"/".join(file.split("/")[:2]) for file in words.files(ROOT)})


@pytest.mark.parametrize("room", ROOMS)
def test_prose_is_as_plain_as_it_was(room: str) -> None:
    problems = words.problems(words.hits(ROOT, room), words.allowed_today(), room)
    assert not problems, "\n".join(problems)


def test_only_files_that_exist_are_allowed_anything() -> None:
    assert sorted(set(words.allowed_today()) - set(words.files(ROOT))) == [], "run python tests/helpers/words.py --update"
