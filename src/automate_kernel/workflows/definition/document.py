"""
The text of definitions: its values, and the line of each value.

YAML is read by YAML 1.2's JSON schema: a plain ``true``, ``null`` or number is what it looks like,
and everything else is text. So ``no``, ``12:30``, ``2024-01-01`` and ``0123`` are text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from automate_kernel.base.errors import ConfigError
from automate_kernel.workflows.definition.structure import DefinitionProblem, FieldPath

if TYPE_CHECKING:
    import yaml

LARGEST = 256 * 1024
_MOST_VALUES = 50_000
_MOST_BRACKETS = 50  # inside each other
_MOST_DIGITS = 308  # more is no float, as whatever reads the definition may make of it
_LONG_NUMBER = ("has a number that is too large", "write it in quotes, as text")
_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII)
_BREAKS = re.compile("[\r\x85\u2028\u2029\ufeff]")  # PyYAML writes some of them as plain line ends
_QUOTE = 'put quotes around a template: "{{ … }}"'


@dataclass(slots=True)
class Document:
    """A value that was read, the lines of its parts, and the problems of its text."""

    value: Any = None
    lines: dict[FieldPath, int] = field(default_factory=dict)
    problems: list[DefinitionProblem] = field(default_factory=list)

    def line(self, path: FieldPath) -> int | None:
        """Return the line of the value at *path*, or of the value around it."""
        around = (path[:length] for length in range(len(path), -1, -1))
        return next((self.lines[place] for place in around if place in self.lines), None)


def _failed(message: str, hint: str | None = None, line: int | None = None) -> Document:
    return Document(problems=[DefinitionProblem((), message, hint, line)])


class _LongNumberError(ValueError):
    """A number has more digits than one may have."""


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise _LongNumberError(digits)
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _LongNumberError(digits)
    return number


def _too_large(text: str) -> Document | None:
    if len(text) <= LARGEST:
        return None
    return _failed(
        f"is larger than {LARGEST // 1024} KiB", "split it, or keep data out of the definition"
    )


# YAML ------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _yaml() -> tuple[type[yaml.SafeLoader], type[yaml.SafeDumper]]:
    """Return PyYAML's safe loader and dumper, with our reading of plain scalars."""
    try:
        import yaml
    except ImportError:
        raise ConfigError(
            "reading YAML needs the package PyYAML",
            hint="install it with: pip install 'automate-kernel[yaml]', or write JSON",
        ) from None

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own class attribute

        def fetch_flow_collection_start(self, token_class: Any) -> None:
            # PyYAML looks at each open bracket for each token.
            if self.flow_level >= _MOST_BRACKETS:
                raise RecursionError
            super().fetch_flow_collection_start(token_class)

    class Dumper(yaml.SafeDumper):
        """A dumper that quotes text which we or YAML 1.1 would read as another type."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = '"' if _BREAKS.search(value) else None
        return dumper.represent_scalar(_TAG + "str", value, style=style)

    Dumper.add_representer(str, text)
    for name, pattern in (("null", _NULL), ("bool", _BOOL), ("int", _INT), ("float", _FLOAT)):
        whole = re.compile(rf"^(?:{pattern.pattern})$", re.ASCII)
        for target in (Loader, Dumper):
            target.add_implicit_resolver(_TAG + name, whole, None)
    return Loader, Dumper


def dump_yaml(value: Any) -> str:
    """Write *value* as YAML that `read_yaml` and readers of YAML 1.1 read back as it was."""
    import yaml

    dumper = _yaml()[1]
    return yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=100)


def read_yaml(text: str) -> list[Document]:
    """Read the documents of a YAML text; its mistakes are in their problems."""
    too_large = _too_large(text)
    if too_large:
        return [too_large]
    loader_class = _yaml()[0]
    import yaml

    documents: list[Document] = []
    try:
        loader = loader_class(text)
        while loader.check_node():
            documents.append(_NodeReader(loader.get_node()).document)
    except RecursionError:
        documents.append(_failed("is nested too deeply", "flatten it"))
    except _TooManyValuesError:
        documents.append(
            _failed("its aliases repeat too much", "write out what it needs, without anchors")
        )
    except yaml.MarkedYAMLError as error:
        documents.append(_syntax_problem(error, text))
    except yaml.YAMLError as error:
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else None
        documents.append(_failed("holds a character that YAML doesn't allow", "take it out", line))
    return documents


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> Document:
    mark = error.problem_mark or error.context_mark
    number = mark.line + 1 if mark else 1
    lines = text.splitlines()
    shown = lines[number - 1] if number <= len(lines) else ""
    near = lines[max(0, number - 2) : number]  # the parser may notice on the line below
    hint = None
    if any(re.search(r"[:\-]\s+\{\{", each) for each in near):
        hint = _QUOTE
    elif re.match(r"\s*\t", shown):
        hint = "indent with spaces, not tabs"
    elif "mapping values are not allowed" in (error.problem or ""):
        hint = "put quotes around text with a colon in it, or check the indentation"
    elif error.context and error.context_mark and error.context_mark.line + 1 != number:
        hint = f"{error.context} on line {error.context_mark.line + 1}"
    return _failed(f"is not YAML: {error.problem or 'it can not be read'}", hint, number)


class _TooManyValuesError(Exception):
    """Aliases have multiplied the document."""


class _NodeReader:
    """A reader of one document's nodes as plain values, with their lines."""

    def __init__(self, root: Any) -> None:
        self.document = Document()
        self._open: set[int] = set()
        self._count = 0
        self._size = 0  # of all texts, those that aliases repeat too
        self.document.value = self._read(root, (), root)

    def _read(self, node: Any, path: FieldPath, shown: Any) -> Any:
        """Return the value of *node* at *path*, whose line is that of the node *shown*."""
        self.document.lines[path] = shown.start_mark.line + 1
        self._count += 1
        self._size += len(node.value) if node.id == "scalar" else 0
        if self._count > _MOST_VALUES or self._size > LARGEST:
            raise _TooManyValuesError
        if id(node) in self._open:
            self._add(path, "an alias can't stand inside what it repeats", "take it out", node)
            return None
        if node.id == "scalar":
            return self._scalar(node, path)
        self._open.add(id(node))
        try:
            return self._mapping(node, path) if node.id == "mapping" else self._list(node, path)
        finally:
            self._open.discard(id(node))

    def _add(self, path: FieldPath, message: str, hint: str, node: Any) -> None:
        line = node.start_mark.line + 1
        self.document.problems.append(DefinitionProblem(path, message, hint, line))

    def _list(self, node: Any, path: FieldPath) -> list[Any]:
        self._check_tag(node, path, "seq")
        return [self._read(item, (*path, index), item) for index, item in enumerate(node.value)]

    def _mapping(self, node: Any, path: FieldPath) -> Any:
        self._check_tag(node, path, "map")
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.id != "scalar":
                if key_node.id == "mapping" and key_node.flow_style:
                    self._add(path, "looks like a template without quotes", _QUOTE, key_node)
                    return "{{ none }}"  # stands for it, so that one mistake is one problem
                self._add(path, "has a key that is not text", "write the key as text", key_node)
                continue
            key = key_node.value
            if key == "<<" and not key_node.style:
                self._add(path, "merge keys (<<) are not supported", "write it out", key_node)
                continue
            self._size += len(key)
            place = (*path, key)
            if key in values:
                first = self.document.lines[place]
                hint = f"it is on line {first} already: keep one of them"
                self._add(place, "is given twice", hint, key_node)
                continue
            values[key] = self._read(value_node, place, key_node)
        return values

    def _check_tag(self, node: Any, path: FieldPath, *expected: str) -> None:
        if node.tag not in {_TAG + name for name in expected}:
            shown = node.tag.replace(_TAG, "!!")
            self._add(path, f"has the tag {shown}, which means nothing here", "take it out", node)

    def _scalar(self, node: Any, path: FieldPath) -> Any:
        self._check_tag(node, path, "str", "null", "bool", "int", "float")
        text: str = node.value
        if node.tag == _TAG + "null" and _NULL.fullmatch(text):
            return None
        if node.tag == _TAG + "bool" and _BOOL.fullmatch(text):
            return text.lower() == "true"
        if node.tag == _TAG + "int" and _INT.fullmatch(text):
            read: Callable[[str], Any] = _integer
        elif node.tag in (_TAG + "float", _TAG + "int") and _FLOAT.fullmatch(text):
            read = _float
        else:
            return text
        try:
            return read(text)
        except _LongNumberError:
            self._add(path, *_LONG_NUMBER, node)
            return 0  # stands for it, so that one mistake is one problem


# JSON ------------------------------------------------------------------------------------------

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\],:]|[^\s{}\[\],:"]+')


def read_json(text: str) -> Document:
    """Read the value of a JSON text; its mistakes are in its problems."""
    too_large = _too_large(text)
    if too_large:
        return too_large
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_float)
    except json.JSONDecodeError as error:
        before, after = text[: error.pos].rstrip(), text[error.pos :]
        comma = before.endswith(",") or after.startswith(",")
        hint = "JSON has no comma after the last item" if comma else None
        return _failed(f"is not JSON: {error.msg}", hint, error.lineno)
    except _LongNumberError as error:
        found = next(m.start() for m in _TOKEN.finditer(text) if m[0] == str(error))
        return _failed(*_LONG_NUMBER, text.count("\n", 0, found) + 1)
    except RecursionError:
        return _failed("is nested too deeply", "flatten it")
    document = Document(value)
    for path, line, repeated in _json_places(text):
        if repeated:
            hint = f"it is on line {document.lines[path]} already: keep one of them"
            document.problems.append(DefinitionProblem(path, "is given twice", hint, line))
        else:
            document.lines[path] = line
    return document


def _json_places(text: str) -> Iterator[tuple[FieldPath, int, bool]]:
    """Yield path and line of each value of a JSON text, and True if its key came before."""
    stack: list[str | int] = []  # the path of the value that comes next; -1 is a key to come
    seen: list[set[str]] = []  # the keys of each object that is open; an array has an empty set
    line, position = 1, 0
    yield (), text[: len(text) - len(text.lstrip())].count("\n") + 1, False
    for match in _TOKEN.finditer(text):
        line += text.count("\n", position, match.start())
        position, mark = match.start(), match.group()
        if mark in "}]":
            stack.pop()
            seen.pop()
        elif mark == ",":
            stack[-1] = stack[-1] + 1 if isinstance(stack[-1], int) else -1
        elif stack and stack[-1] == -1:
            stack[-1] = key = json.loads(mark)
            yield tuple(stack), line, key in seen[-1]
            seen[-1].add(key)
        elif mark != ":":
            if stack and isinstance(stack[-1], int):
                yield tuple(stack), line, False
            if mark in "{[":
                stack.append(-1 if mark == "{" else 0)
                seen.append(set())
