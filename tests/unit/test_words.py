"""Prose of the package and its pages has no more faults than `words_today.json` allows, and no old name comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import words

ROOT = words.ROOT
ROOMS = sorted({"/".join(file.split("/")[:2]) for file in words.files(ROOT)})
CODE: dict[str, list[Path]] = {}  # folder, three levels deep at most, to its files
for file in sorted(path for room in (words.PACKAGE, "tests", "bench") for path in (ROOT / room).rglob("*.py")):
    CODE.setdefault("/".join(file.relative_to(ROOT).parent.parts[:3]), []).append(file)


@pytest.mark.parametrize("room", ROOMS)
def test_prose_is_as_plain_as_it_was(room: str) -> None:
    problems = words.problems(words.hits(ROOT, room), words.allowed_today(), room)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("folder", CODE)
def test_no_name_that_was_given_up_is_left_in_code(folder: str) -> None:
    found = [(path, hit) for path in CODE[folder] for hit in words.old_names(path.read_text(encoding="utf-8"))]
    assert [f"{path.relative_to(ROOT)}:{line}: {name} → {cure}" for path, (line, name, cure) in found] == []


def test_only_files_that_exist_are_allowed_anything() -> None:
    assert sorted(set(words.allowed_today()) - set(words.files(ROOT))) == [], "run python tests/helpers/words.py --update"
