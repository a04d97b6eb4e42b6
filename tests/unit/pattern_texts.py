"""Regular expressions of the source, and texts that make a slow pattern slow."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

from example_counts import examples

try:
    import re._constants as c  # type: ignore[import-not-found]
    import re._parser as parser  # type: ignore[import-not-found]
except ImportError:  # before Python 3.11
    import sre_constants as c
    import sre_parse as parser  # type: ignore[no-redef]

ROOT = Path(__file__).parents[2]
_METHODS = frozenset(
    {"compile", "findall", "finditer", "fullmatch", "match", "search", "split", "sub", "subn"}
)
_WHOLE = frozenset({"search"})
_MENTION = re.compile(rf"\bre\.(?:{'|'.join(sorted(_METHODS))})\(")


@dataclass(frozen=True)
class Use:
    """A pattern of a module, and the methods that are called on it."""

    where: str
    pattern: re.Pattern[Any]
    methods: frozenset[str]


def modules(*sources: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and file of each module in these folders."""
    for source in sources:
        for file in sorted(source.rglob("*.py")):
            name = ".".join(file.relative_to(source).with_suffix("").parts)
            yield name.removesuffix(".__init__"), file


def uses(name: str, file: Path) -> Iterator[Use]:
    """Yield the patterns of a module. What needs a value of a call has that as an empty text."""
    text = file.read_text("utf-8")
    if not _MENTION.search(text):
        return
    tree = ast.parse(text)
    scope = _scope(name, file)
    called = _called(tree)
    for statement in ast.walk(tree):
        if not isinstance(statement, ast.Call) or not _is_of_re(statement.func):
            continue
        method = statement.func.attr  # type: ignore[attr-defined]
        try:
            pattern = _evaluated(statement, scope, compiled=method == "compile")
        except KeyError:  # of a table, which the test names
            continue
        where = f"{name}:{statement.lineno}"
        if pattern is None:
            raise AssertionError(f"{where}: the pattern can't be evaluated")
        methods = called.get(id(statement), _WHOLE) if method == "compile" else {method}
        yield Use(where, pattern, frozenset(methods))


def _scope(name: str, file: Path) -> dict[str, Any]:
    # Django's part has no constants in its patterns, and can't be imported without settings.
    return {"re": re} if name.startswith("automate_django") else vars(importlib.import_module(name))


def _is_of_re(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "re"
        and node.attr in _METHODS
    )


def _called(tree: ast.Module) -> dict[int, set[str]]:
    """Return the methods that the module calls on each compiled pattern, by its call's id."""
    names: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Call):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if _is_of_re(node.value.func) and isinstance(targets[0], ast.Name):
                names[targets[0].id] = id(node.value)
    found: dict[int, set[str]] = {}
    owners = {id(n.value): n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names and isinstance(node.ctx, ast.Load):
            method = owners.get(id(node), "search")
            if method not in {"pattern", "flags"}:
                found.setdefault(names[node.id], set()).add(
                    method if method in _METHODS else "search"
                )
    return found


class _Anything(dict[str, Any]):
    """A scope in which what only a call knows is a text."""

    def __missing__(self, name: str) -> Any:
        import builtins

        if hasattr(builtins, name):
            return getattr(builtins, name)
        return _Text("x")


class _Text(str):
    """A text whose fields and items are texts too."""

    def __getattr__(self, name: str) -> Any:
        return _Text("x")

    def __getitem__(self, key: Any) -> Any:
        return _Text("x")


def _evaluated(call: ast.Call, scope: dict[str, Any], *, compiled: bool) -> Any:
    first = call.args[0]
    flags: list[ast.expr] = [each.value for each in call.keywords if each.arg == "flags"]
    if compiled and len(call.args) > 1:
        flags = [call.args[1]]
    elif not compiled:
        flags += [a for a in call.args[2:] if "re." in ast.unparse(a)]

    def value(node: ast.expr) -> Any:
        return eval(compile(ast.Expression(node), "", "eval"), _Anything(scope))  # noqa: S307

    pattern = value(first)
    if isinstance(pattern, re.Pattern):
        return pattern
    if isinstance(pattern, _Text):
        pattern = "x"
    return re.compile(pattern, sum(int(value(each)) for each in flags))


# -- texts --------------------------------------------------------------------------------------


def hostile(pattern: re.Pattern[Any]) -> Iterator[list[Any]]:
    """Yield units ``[before, repeated, after]`` of texts that may make *pattern* slow, more in full."""
    tree = parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)
    prefixes = dict.fromkeys(_prefixes(tree))
    letters = list(dict.fromkeys(_letters(tree)))
    ends = ("", "\x00", "!", "\n")[: examples(4, 2)]
    singles = [*letters, " ", "a", "0"]
    shapes: dict[tuple[str, str], None] = {}
    for letter in singles:
        shapes["", letter] = None
    for prefix in islice(prefixes, examples(40, 10)):
        shapes["", prefix or "a"] = None
        for letter in singles[: examples(10, 4)]:
            shapes[prefix, letter] = None
            shapes["", prefix + letter] = None
    for pair in product(singles[: examples(8, 4)], repeat=2):
        shapes["", "".join(pair)] = None
    for (before, repeated), after in product(shapes, ends):
        yield [before, repeated, after]


def _letters(tree: Any) -> Iterator[str]:
    for op, argument in tree:
        if op is c.LITERAL:
            yield chr(argument)
        elif op is c.NOT_LITERAL:
            yield "a" if argument != ord("a") else "b"
            yield "\\"
        elif op is c.ANY:
            yield from "a."
        elif op is c.IN:
            yield from _of_class(argument)
        else:
            for inner in _inside(op, argument):
                yield from _letters(inner)


def _of_class(items: Any) -> list[str]:
    negated = items[0][0] is c.NEGATE
    found: list[str] = []
    if negated:
        members = re.compile(_class_text(items))
        return [each for each in "a0 .\\\"'-_<" if members.fullmatch(each)][:3]
    for op, argument in items:
        if op is c.LITERAL:
            found.append(chr(argument))
        elif op is c.RANGE:
            found.append(chr(argument[0]))
        elif op is c.CATEGORY:
            found += {"DIGIT": "0", "SPACE": " \n", "WORD": "a0_"}.get(
                str(argument).removeprefix("CATEGORY_").removeprefix("UNI_"), "a. "
            )
    return found


def _class_text(items: Any) -> str:
    parts = []
    for op, argument in items[1:]:
        if op is c.LITERAL:
            parts.append(re.escape(chr(argument)))
        elif op is c.RANGE:
            parts.append(f"{re.escape(chr(argument[0]))}-{re.escape(chr(argument[1]))}")
        elif op is c.CATEGORY:
            text = str(argument).removeprefix("CATEGORY_").removeprefix("UNI_")
            parts.append({"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}.get(text, r"\W"))
    return f"[^{''.join(parts)}]"


def _inside(op: Any, argument: Any) -> list[Any]:
    if op is c.BRANCH:
        return list(argument[1])
    if op is c.SUBPATTERN:
        return [argument[3]]
    if op in _REPEATS:
        return [argument[2]]
    if op in (c.ASSERT, c.ASSERT_NOT):
        return [argument[1]]
    if op is c.GROUPREF_EXISTS:
        return [each for each in argument[1:] if each is not None]
    if op is getattr(c, "ATOMIC_GROUP", None):
        return [argument]
    return []


_REPEATS = {
    each
    for name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
    if (each := getattr(c, name, None)) is not None
}


def _prefixes(tree: Any, before: str = "") -> Iterator[str]:
    """Yield what matches the first parts of *tree*: all that stands before each repetition."""
    text = before
    for op, argument in tree:
        for inner in _inside(op, argument):
            if op not in (c.ASSERT, c.ASSERT_NOT):
                yield from _prefixes(inner, text)
        text += _example([(op, argument)])
        yield text


def _example(tree: Any) -> str:
    text = ""
    for op, argument in tree:
        if op is c.LITERAL:
            text += chr(argument)
        elif op is c.NOT_LITERAL:
            text += "a" if argument != ord("a") else "b"
        elif op is c.ANY:
            text += "a"
        elif op is c.IN:
            text += (_of_class(argument) or ["a"])[0]
        elif op is c.BRANCH:
            text += _example(argument[1][0])
        elif op is c.SUBPATTERN:
            text += _example(argument[3])
        elif op in _REPEATS:
            text += _example(argument[2]) * max(1, min(argument[0], 300))
        elif op is getattr(c, "ATOMIC_GROUP", None):
            text += _example(argument)
    return text
