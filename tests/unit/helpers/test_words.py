"""The check of plain words finds each kind of fault in little made-up trees, and lets plain prose through."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

from helpers import words


def write(root: Path, **sources: str) -> Path:
    """Write modules of a made-up package below `root` and return `root`."""
    (root / "docs").mkdir()
    (root / words.PACKAGE).mkdir()
    for name, source in sources.items():
        (root / words.PACKAGE / f"{name}.py").write_text(textwrap.dedent(source))
    return root


def found(root: Path) -> list[tuple[str, int, str, str]]:
    return [(hit.file.removeprefix(f"{words.PACKAGE}/"), *hit[1:4]) for hit in words.hits(root)]


def test_phrases_are_found_wherever_somebody_reads_them(tmp_path: Path) -> None:
    source = '''
    """The noun."""
    # told
    # of it, so
    X = "fine"  # at hand

    def _private(x):
        """Read a list

        and keep those
        that fit.
        """
        raise ValueError(f"{x}: a rank that is none, so "
                         f"many of them")
    '''
    write(tmp_path, one=source)
    (tmp_path / "README.md").write_text("# Title\n\nWhat\nhappens to what\n")
    (tmp_path / "docs" / "page.md").write_text("plain\n\nEach as it is.\n")
    assert found(tmp_path) == [
        ("README.md", 3, "phrase", "'What happens to what'"),
        ("docs/page.md", 3, "phrase", "'as it is'"),
        ("one.py", 3, "phrase", "'told of'"),
        ("one.py", 5, "phrase", "'at hand'"),
        ("one.py", 10, "phrase", "'those that'"),
        ("one.py", 13, "phrase", "'is none'"),
        ("one.py", 13, "phrase", "'so many'"),
    ]


@pytest.mark.parametrize(
    "plain", ["is None", "0 if there is none", "an item that is none of these", "so many-sided", "beforehand", "at handover"]
)
def test_plain_words_are_no_hit(plain: str) -> None:
    assert list(words.phrase_hits("x.md", [(1, plain)])) == []


def test_an_old_name_is_a_phrase_once_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(words.OLD_NAMES, r"Kites?", "byte reader")
    (hit,) = words.phrase_hits("x.md", [(1, "The kite of a Kite.")])
    assert (hit.found, hit.cure) == ("'Kite'", "write 'byte reader'")


def test_an_old_name_is_found_in_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "OLD_NAMES", {r"[Kk]ites?": "byte reader"})
    monkeypatch.setattr(words, "OLD_IDENTIFIERS", {"spool": "samples"})
    source = """
class Kite: ...
def fly(kite, kitestring): return kite.own_spool
def test_kites_fly(): "a kite"
"""
    found = sorted((line, name) for line, name, _ in words.old_names(source))
    assert found == [(2, "Kite"), (3, "kite"), (3, "kite"), (3, "own_spool")]


FIRST_LINES = {
    "a verb": ("function", "Return the size.", True),
    "a verb and a comma": ("function", "Compile, or load, the kernels.", True),
    "a noun for a function": ("function", "The size of an image.", False),
    "a noun that is also a verb": ("function", "Plan of a batch.", False),
    "the third person": ("function", "Returns the size.", False),
    "what": ("function", "What the size is.", False),
    "see": ("function", "See `Reader`.", False),
    "a noun phrase": ("class", "A row of images.", True),
    "a bare noun": ("class", "Location of a sample.", True),
    "what a class is": ("class", "What a source yields.", False),
    "a class that acts": ("class", "Turns headers into plans.", False),
    "a class that commands": ("class", "Hear warnings.", False),
    "markup for a class": ("class", "``rows * cols``.", False),
    "a property": ("property", "Number of rows.", True),
    "a property of two values": ("property", "True if the row is full.", True),
    "a property that returns": ("property", "Return the number of rows.", False),
    "a property elsewhere": ("property", "See `Header.num_bytes`.", False),
    "a module": ("module", "Sizes of images.", True),
    "a module that does one thing": ("module", "Decode images.", True),
    "a module by its name": ("module", "``patchpack.load``: planner and painter.", True),
    "a small name": ("module", "libtiff's messages.", True),
    "how": ("module", "How images are read.", False),
    "a module that acts": ("module", "CARRIES. Samples in, batches out.", False),
}


@pytest.mark.parametrize(("kind", "text", "plain"), FIRST_LINES.values(), ids=FIRST_LINES)
def test_first_words(kind: str, text: str, plain: bool) -> None:
    assert (words.opening(kind, text, follows_protocol=False) is None) is plain


def test_the_method_of_a_protocol_may_be_explained_there(tmp_path: Path) -> None:
    protocol = '''
    """Readers."""

    class Reader(Protocol):
        """A reader."""

        def read(self, at, count, whence):
            """Read bytes.

            Args:
                at: first byte.
                count: number of bytes.
                whence: 0 or 2.
            """
    '''
    other = '''
    """More readers."""

    class File:
        """A file."""

        def read(self, at, count, whence):
            """See `Reader`."""

        def seek(self, at, whence, again):
            """See `Reader`."""
    '''
    assert [hit[1:3] for hit in found(write(tmp_path, protocol=protocol, other=other))] == [
        (10, "parameter"), (10, "parameter"), (10, "parameter"), (11, "first line"),
    ]  # fmt: skip


def test_three_parameters_are_documented_each(tmp_path: Path) -> None:
    source = '''
    """Packing."""

    def two(a, b):
        """Pack."""

    def three(a, *, b, **options):
        """Pack.

        Args:
            a: rows, at least 1.
            b: what is packed:
                c: no entry, because it is further in.

        Returns:
            options: no entry, because it is returned.
        """

    def _hidden(a, b, c):
        pass

    class Packer:
        """A packer.

        Args:
            a, b: rows and columns.
            c: images.
        """

        def __init__(self, a, b, c, d):
            pass

        def __exit__(self, kind, value, traceback):
            pass
    '''
    assert found(write(tmp_path, one=source, _private=source)) == [
        ("one.py", 7, "parameter", "three(options=) is not documented"),
        ("one.py", 12, "first line", "'b: what …'"),
        ("one.py", 30, "parameter", "Packer.__init__(d=) is not documented"),
    ]


def test_a_file_may_have_as_many_hits_as_it_is_allowed_no_more_and_no_fewer(tmp_path: Path) -> None:
    write(tmp_path, one='"""How it is done: so many, at hand."""', two='"""The noun."""')
    hits, one = words.hits(tmp_path), f"{words.PACKAGE}/one.py"
    allowed = {one: {"phrase": 2, "first line": 1}}
    assert words.counts(hits) == allowed
    assert words.problems(hits, allowed) == []
    rule, first, second = words.problems(hits, {one: {"phrase": 1, "first line": 1}})
    assert rule == f"{one}: 2 hits of the rule 'phrase', 1 allowed; mend at least 1 of these:"
    assert first.startswith(f"  {one}:1: phrase: 'at hand' → name it")
    assert second.startswith(f"  {one}:1: phrase: 'so many' → give")
    (lower,) = words.problems(hits, {one: {"phrase": 2, "first line": 4}})
    assert lower == f"{one}: 1 hits of the rule 'first line', 4 allowed; run python tests/helpers/words.py --update"
    (gone,) = words.problems(hits, allowed | {f"{words.PACKAGE}/gone.py": {"phrase": 1}})
    assert gone.startswith(f"{words.PACKAGE}/gone.py: 0 hits")
    assert len(words.problems(hits, {})) == 5  # two rules and three hits: a file without an entry must be clean


def test_updating_writes_what_is_allowed_and_then_nothing_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(words, "ROOT", write(tmp_path, one='"""How it is done."""', two='"""The noun."""'))
    monkeypatch.setattr(words, "TODAY", tmp_path / "today.json")
    assert words.main([]) == 1
    assert capsys.readouterr().out.startswith(f"{words.PACKAGE}/one.py:1: first line: 'How it is done.' → begin with a noun")
    assert words.main(["--update"]) == 0
    assert words.allowed_today() == {f"{words.PACKAGE}/one.py": {"first line": 1}}
    assert words.main([]) == 0
    assert words.main([f"{words.PACKAGE}/two.py"]) == 0


def test_every_pattern_is_found_in_its_own_words() -> None:
    samples = """who asks for who what is none a rank is none; of which none none any more as it is as they are as they come
    as without those that told of cannot be told at hand of one's own so many what happens to what what such a to speak of
    can eat looked at are asked for whatever x says a whole one comes to no"""
    found = [pattern for pattern, _ in words.patterns()[: len(words.PHRASES)] if not pattern.search(samples)]
    assert [pattern.pattern for pattern in found] == []


def test_prose_of_a_formatted_string_is_read_once() -> None:
    source = 'x = f"a {1} b"\n'
    assert [text for _, text in words.prose(source, ast.parse(source)) if text] == ["a {} b"]
