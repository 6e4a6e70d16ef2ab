"""Check that prose is plain: phrases that must not come back, first lines of docstrings, and documented parameters.

    python tests/helpers/words.py                # every hit with its cure; exit 1 if a file has more, or fewer, than allowed
    python tests/helpers/words.py --update       # write words_today.json: what each file is allowed
    python tests/helpers/words.py patchpack/plan # only the files below a path

There are three rules. `phrase`: no phrase of `helpers.phrases` stands in a docstring, a comment or a message of the package, in
`docs/`, or in `README.md`. `first line`: a public function begins with a verb; a public class, property or module begins with a
noun phrase. `parameter`: a public function with three or more parameters documents each of them by name.

`words_today.json` holds the allowed number of hits per file and rule. A file with more hits fails. A file with fewer hits
fails, too, so that the number is lowered with each clean-up. A file without an entry must have no hits.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))  # a script sees only its own folder

from helpers.phrases import ACTIONS, NAMES, OLD_IDENTIFIERS, OLD_NAMES, OPENINGS, PHRASES, VERBS  # noqa: E402

ROOT = TESTS.parent
TODAY = Path(__file__).with_name("words_today.json")
PACKAGE = "patchpack"

FIXED = ("__exit__", "__aexit__", "__setattr__", "__reduce_ex__")  # whose parameters Python decides
VERB_CURE = "begin with a verb in the imperative: 'Return …', 'Read …', 'Raise X unless …'; a new verb goes into VERBS"
NOUN_CURE = "begin with a noun phrase: 'A …', 'The …', 'Number of …'; a property of True and False with 'True if …'"
ENTRY_CURE = "begin with a noun phrase that says meaning, unit, range and default"
PARAMETER_CURE = "give it a line of its own under 'Args:', with meaning, unit, range and default"
RULES = ("phrase", "first line", "parameter")
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Hit(NamedTuple):
    """One place where a rule is broken."""

    file: str
    line: int
    rule: str
    found: str
    cure: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.found} → {self.cure}"


def _pattern(words: str, flags: re.RegexFlag) -> re.Pattern[str]:
    return re.compile(r"(?<![\w-])(?:" + words.replace(" ", r"\s+") + r")(?![\w-])", flags)


def patterns() -> list[tuple[re.Pattern[str], str]]:
    """Return the compiled phrases and old names, each with its cure."""
    phrases = [(_pattern(words, re.IGNORECASE), cure) for words, cure in PHRASES.items()]
    return phrases + [(_pattern(name, re.RegexFlag(0)), f"write '{word}'") for name, word in OLD_NAMES.items()]


def prose(source: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the first line and the text of every string and of every run of comment lines."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):  # what is filled in becomes {}
            yield node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value
    start, lines = 0, [""]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, text = token.start[0], token.string.lstrip("# ")
            if row == start + len(lines):
                lines.append(text)
            else:
                yield start, "\n".join(lines)
                start, lines = row, [text]
    yield start, "\n".join(lines)


def phrase_hits(file: str, texts: Iterable[tuple[int, str]]) -> Iterator[Hit]:
    """Yield a hit for every phrase in texts, which are given with their first lines."""
    table = patterns()
    any_of_them = _pattern("|".join([*PHRASES, *OLD_NAMES]), re.IGNORECASE)
    for start, text in texts:
        for pattern, cure in table if any_of_them.search(text) else ():
            for match in pattern.finditer(text):
                found = " ".join(match.group().split())
                yield Hit(file, start + text.count("\n", 0, match.start()), "phrase", f"{found!r}", cure)


def old_names(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, name and cure of every identifier that is an old name, or has one among its words joined with underscores."""
    table = [(re.compile(rf"_*(?:\w+_)?(?:{old})(?:_\w+)?"), word) for old, word in {**OLD_NAMES, **OLD_IDENTIFIERS}.items()]
    for node in ast.walk(ast.parse(source)):
        found = {getattr(node, field, None) for field in ("id", "attr", "arg", "name", "asname")}
        for name in found:
            if not isinstance(name, str) or (isinstance(node, Function) and name.startswith("test_")):
                continue  # the name of a test is a sentence
            for pattern, word in table:
                if pattern.fullmatch(name):
                    yield getattr(node, "lineno", 0), name, f"write '{word}'"


def names_of(function: Function) -> list[str]:
    """Return the names of a function's parameters, without `self`, `cls`, and names that begin with an underscore."""
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg) if each]
    return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]


def protocol_methods(trees: Iterable[ast.Module]) -> set[tuple[str, ...]]:
    """Return the name and parameters of every method that a `Protocol` declares: an implementation may say "See …"."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    declared = [part for node in classes if any("Protocol" in ast.unparse(base) for base in node.bases) for part in node.body]
    return {(part.name, *names_of(part)) for part in declared if isinstance(part, Function)}


def entries(docstring: str) -> list[tuple[int, list[str], str]]:
    """Return line, names and the first word of the description of every entry below 'Args:' and 'Attributes:'."""
    found, depth = [], None
    for number, line in enumerate(docstring.splitlines()):
        indent = len(line) - len(line.lstrip())
        if line.strip() in ("Args:", "Attributes:"):
            depth, inner = indent, 0
        elif line.strip() and depth is not None:
            if indent <= depth:
                depth = None
                continue
            inner = inner or indent
            match = re.match(r"([*\w, ]+?):\s*(\S*)", line.strip())
            if match and indent == inner:
                found.append((number, [name.strip(" *") for name in match[1].split(",")], match[2]))
    return found


def opening(kind: str, docstring: str, *, follows_protocol: bool) -> str | None:
    """Return the cure for a docstring's first words, None if they are in order."""
    first, second = [*docstring.split(maxsplit=2), "", ""][:2]
    word = first.rstrip(",:.;").lower()
    if kind == "function":
        if word == "see":
            return None if follows_protocol else VERB_CURE
        return None if word in VERBS and second not in ("of", "rate", "rates") else VERB_CURE  # "Drop rates for …"
    if kind == "module" and first.startswith("`"):
        return None
    if kind == "property" and (word == "whether" or (word, second) == ("true", "if")):
        return None
    is_proper = re.split(r"[.'’]", word)[0] in NAMES
    is_word = first[:1].isupper() or is_proper
    third = {word.removesuffix("s"), word.removesuffix("es"), re.sub("ies$", "y", word)} - {word}
    is_verb = bool(third & ACTIONS) or (kind != "module" and word in ACTIONS)
    return None if is_word and not is_verb and word not in OPENINGS else NOUN_CURE


def docstring_hits(file: str, tree: ast.Module, protocols: set[tuple[str, ...]]) -> Iterator[Hit]:
    """Yield a hit for every first line and every parameter of a public module that breaks a rule."""

    def first_line(kind: str, node: ast.Module | ast.ClassDef | Function, *, follows_protocol: bool = False) -> Iterator[Hit]:
        if not (docstring := ast.get_docstring(node, clean=False)):
            return
        line = node.body[0].lineno
        if cure := opening(kind, docstring, follows_protocol=follows_protocol):
            yield Hit(file, line, "first line", f"{' '.join(docstring.split()[:5])!r}", cure)
        for number, names, word in entries(docstring):
            if word.lower() in ("what", "who", "see", "as"):
                yield Hit(file, line + number, "first line", f"'{', '.join(names)}: {word} …'", ENTRY_CURE)

    def visit(body: list[ast.stmt], owner: ast.ClassDef | None) -> Iterator[Hit]:
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from first_line("class", node)
                yield from visit(node.body, node)
            elif isinstance(node, Function) and (not node.name.startswith("_") or node.name.startswith("__")):
                decorators = [ast.unparse(each) for each in node.decorator_list]
                names, docstring = names_of(node), ast.get_docstring(node, clean=False) or ""
                follows = owner is not None and (node.name, *names) in protocols
                is_property = any(each.endswith("property") for each in decorators)
                yield from first_line("property" if is_property else "function", node, follows_protocol=follows)
                if follows and (not docstring or docstring.startswith("See ")):
                    continue
                if len(names) < 3 or node.name in FIXED or any("overload" in each for each in decorators):
                    continue
                if node.name == "__init__" and owner:
                    docstring = f"{ast.get_docstring(owner) or ''}\n{ast.get_docstring(node) or ''}"
                documented = {name for _, named, _ in entries(docstring) for name in named}
                for name in names:
                    if name not in documented:
                        where = f"{owner.name}.{node.name}" if owner else node.name
                        yield Hit(file, node.lineno, "parameter", f"{where}({name}=) is not documented", PARAMETER_CURE)

    yield from first_line("module", tree)
    yield from visit(tree.body, None)


def files(root: Path) -> list[str]:
    """Return the checked files, relative to the root."""
    found = [*(root / PACKAGE).rglob("*.py"), *(root / "docs").rglob("*.md"), *root.glob("README.md")]
    return sorted(path.relative_to(root).as_posix() for path in found)


def hits(root: Path, below: str = "") -> list[Hit]:
    """Return every hit in the files whose path begins with `below`, by file and line."""
    found: list[Hit] = []
    sources = {file: (root / file).read_text(encoding="utf-8") for file in files(root)}
    with_protocols = [source for file, source in sources.items() if file.endswith(".py") and "Protocol" in source]
    protocols = protocol_methods(map(ast.parse, with_protocols))
    for file, source in sources.items():
        if not file.startswith(below):
            continue
        if file.endswith(".md"):
            found += phrase_hits(file, [(1, source)])
            continue
        tree = ast.parse(source)
        found += phrase_hits(file, prose(source, tree))
        private = [part for part in Path(file).with_suffix("").parts if part.startswith("_") and part != "__init__"]
        found += [] if private else docstring_hits(file, tree, protocols)
    return sorted(found)


def counts(found: Iterable[Hit]) -> dict[str, dict[str, int]]:
    """Return the number of hits by file and rule, without zeros."""
    totals = Counter((hit.file, hit.rule) for hit in found)
    names = sorted({file for file, _ in totals})
    return {file: {rule: totals[file, rule] for rule in RULES if totals[file, rule]} for file in names}


def problems(found: list[Hit], allowed: dict[str, dict[str, int]], below: str = "") -> list[str]:
    """Return what differs from the allowed numbers: the hits of a rule that a file breaks too often, and entries too high."""
    now, said, update = counts(found), [], "run python tests/helpers/words.py --update"
    for file in sorted({*now, *(file for file in allowed if file.startswith(below))}):
        for rule in RULES:
            have, may = now.get(file, {}).get(rule, 0), allowed.get(file, {}).get(rule, 0)
            if have > may:
                said.append(f"{file}: {have} hits of the rule '{rule}', {may} allowed; mend at least {have - may} of these:")
                said += [f"  {hit}" for hit in found if (hit.file, hit.rule) == (file, rule)]
            elif have < may:
                said.append(f"{file}: {have} hits of the rule '{rule}', {may} allowed; {update}")
    return said


def allowed_today() -> dict[str, dict[str, int]]:
    """Return the allowed numbers by file and rule."""
    numbers: dict[str, dict[str, int]] = json.loads(TODAY.read_text(encoding="utf-8")) if TODAY.exists() else {}
    return numbers


def main(arguments: list[str]) -> int:
    """Print every hit and the totals, or write `words_today.json`; return 1 if a number is not the allowed one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("below", nargs="?", default="", help="check the files below this path only (all)")
    parser.add_argument("--update", action="store_true", help="write words_today.json from the tree as it stands")
    options = parser.parse_args(arguments)
    if options.update and options.below:
        parser.error("--update writes the numbers of all files: leave the path out")
    found, allowed = hits(ROOT, options.below), allowed_today()
    entries_below = [each for file, each in allowed.items() if file.startswith(options.below)]
    before = {rule: sum(each.get(rule, 0) for each in entries_below) for rule in RULES}
    if options.update:
        lines = (f" {json.dumps(file)}: {json.dumps(each)}" for file, each in counts(found).items())
        TODAY.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")  # one line a file, for merges
    else:
        print(*found, sep="\n")
    totals = Counter(hit.rule for hit in found)
    print(*(f"{rule}: {before[rule]} allowed, {totals[rule]} now" for rule in RULES), sep="\n", file=sys.stderr)
    return int(not options.update and bool(problems(found, allowed, options.below)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
