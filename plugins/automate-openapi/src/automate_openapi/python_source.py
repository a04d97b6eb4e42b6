"""Words of a document as names, literals and docstrings of Python, none of which can be code."""

from __future__ import annotations

import ast
import hashlib
import keyword
import re
import textwrap
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 100
"""The most columns of a line that is written."""

_WORD = re.compile(r"[A-Za-z0-9]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def words(text: str) -> list[str]:
    """Return the words of *text*: of ``listPets`` two."""
    return [word for part in _WORD.findall(text) for word in _HUMP.split(part) if word]


def camel(text: str) -> str:
    """Return *text* as the name of a class; empty if it has no letters."""
    return "".join(word[:1].upper() + word[1:] for word in words(text))


def snake(text: str) -> str:
    """Return *text* as the name of a function; empty if it has no letters."""
    return "_".join(word.lower() for word in words(text))


def apart(name: str, taken: Collection[str], *, digits: str = "_") -> str:
    """Return *name* as one that Python takes, with *digits* before some, and that isn't *taken*."""
    if name[:1].isdigit():
        return f"{digits}{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in taken else name


def told_apart(name: str, place: str) -> str:
    """Return *name* with a digest of the *place* that it stands for."""
    digest = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{name.rstrip('_')}_{digest[:6]}"


def quoted(text: str) -> str:
    """Return *text* as a literal in double quotes."""
    return f'"{"".join(map(_escaped, text))}"'


def literal(value: Any) -> str:
    """Return a scalar as a literal, of a text in the form that formatters leave as it is."""
    if not isinstance(value, str):
        return repr(value)
    # They would change the quotes around \\", and count the columns of others than letters anew.
    shown = ("\\x22" if each == '"' else _escaped(each, ("Lu", "Ll")) for each in value)
    return f'"{"".join(shown)}"'


def _escaped(character: str, categories: Collection[str] = ()) -> str:
    if character in '"\\':
        return f"\\{character}"
    shown = character.isprintable()
    if categories and not character.isascii():
        shown = unicodedata.category(character) in categories and _columns(character) == 1
    # Not as JSON has it: its pairs of surrogates are two characters for Python.
    code = ord(character)
    return character if shown else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def line(text: str, most: int = 90) -> str:
    """Return *text* in one line that may stand in a docstring."""
    found = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    found = found.replace("\\", "/").replace('"', "'")
    return found if len(found) <= most else found[: most - 1].rstrip() + "…"


def docstring(text: str, indent: str) -> list[str]:
    """Return the lines of a docstring of *text*, whose first paragraph stays apart."""
    first, *more = [found for part in text.split("\n\n") if (found := line(part, 400))] or [""]
    rest = line(" ".join(more), 400)
    if not rest and _columns(first) + len(indent) + 6 <= WIDTH:
        return [f'{indent}"""{first}"""']
    lines = [each for part in (first, rest) if part for each in ("", *_wrapped(part, indent))]
    return [f'{indent}"""', *(f"{indent}{each}".rstrip() for each in lines[1:]), f'{indent}"""']


def _wrapped(text: str, indent: str) -> list[str]:
    # A character that is wide has two columns.
    most = (WIDTH - len(indent)) // (1 if _columns(text) == len(text) else 2)
    return textwrap.wrap(text, most)


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


@dataclass(frozen=True, slots=True)
class Bracket:
    """A call or another list in brackets, which are the ends of *head* and *tail*."""

    head: str
    parts: Sequence[str | Bracket]
    tail: str = ")"

    def __str__(self) -> str:
        return f"{self.head}{', '.join(map(str, self.parts))}{self.tail}"

    def written(self, indent: str = "", room: int = 0) -> str:
        """
        Return it in one line, with *room* for what is around it, or else with a line for each part.

        That is how formatters write it, which leave the comma at the end alone.
        """
        whole = f"{indent}{self}"
        if not self.parts or len(whole) + room <= WIDTH:
            return whole
        deeper = f"{indent}    "
        lines = [
            f"{deeper}{each}," if isinstance(each, str) else f"{each.written(deeper, 1)},"
            for each in self.parts
        ]
        return "\n".join([f"{indent}{self.head}", *lines, f"{indent}{self.tail}"])


def noted(source: str) -> str:
    """Return *source* with a word to the linter beside each line that can't be made shorter."""
    return "\n".join(
        f"{each}  # noqa: E501" if len(each) > WIDTH else each for each in source.split("\n")
    )


def names_in(source: str) -> set[str]:
    """Return the names that *source* reads, and not what stands in its texts."""
    return {each.id for each in ast.walk(ast.parse(source)) if isinstance(each, ast.Name)}
