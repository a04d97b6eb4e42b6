"""
Statements: the text of one SQL statement, read as far as safety needs it.

The scanner knows where quoted texts and comments end. It does not parse SQL: it finds the words,
the named parameters, and a second statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_sql.values import bound

READS = frozenset({"SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN", "DESCRIBE", "DESC"})
"""The words that a query begins with."""
WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "WITH", "CALL"})
"""The words that a statement begins with which changes rows."""

_LONGEST = 100_000
_STREAMED = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})
_MYSQL = ("mysql", "mariadb")
_DOLLAR = re.compile(r"\$(?:[A-Za-z_\x80-\U0010ffff][\w]*)?\$")
_WORD = re.compile(r"\w[\w$]*")
# As SQLAlchemy finds them.
_PARAMETER = re.compile(r"(?<![:\w\x5c]):(\w+)(?!:)")


@dataclass(frozen=True, slots=True)
class SqlToken:
    """A word in capitals, a parameter's name, or another character, by its *kind*."""

    kind: str
    text: str


class Statement:
    """
    One statement with named parameters (``:name``), of the dialect *dialect*.

    Raises ``INVALID_ARGUMENT`` for several statements in one text, for a text that ends inside a
    quotation, and for one that does not begin with one of *allowed*.
    """

    def __init__(self, text: str, dialect: str, *, allowed: frozenset[str]) -> None:
        if len(text) > _LONGEST or "\0" in text:
            raise _refused(f"the statement has NUL, or more than {_LONGEST:,} characters")
        tokens = list(_Scanner(text, dialect).tokens())
        while tokens and tokens[-1].text == ";":
            tokens.pop()
        if any(each.text == ";" for each in tokens):
            raise _refused("there are several statements in one text", "call once for each")
        words = [each.text for each in tokens if each.kind == "word"]
        first = words[0] if words else ""
        if first not in allowed:
            raise _refused(
                f"the statement begins with {first[:40] or 'nothing'}",
                f"this action takes {', '.join(sorted(allowed))}",
            )
        if dialect in _MYSQL and _writes_a_file(words):
            raise _refused("SELECT … INTO writes on the server", "take the rows, or use export")
        self.streams: bool = first in _STREAMED
        """True if its rows can be fetched a part at a time."""
        self.parameters: frozenset[str] = frozenset(
            each.text for each in tokens if each.kind == "parameter"
        )
        self._lists = _lists(tokens)
        self._clause = sa.text(text.rstrip().rstrip(";"))
        if set(self._clause._bindparams) != self.parameters:  # noqa: SLF001
            raise _refused(
                "a colon before a word in a quotation or a comment looks like a parameter",
                "give the text as a parameter, or write \\: for the colon",
            )

    def bind(self, params: Mapping[str, Any]) -> sa.TextClause:
        """
        Return the statement with *params* bound, whose names must be those of the statement.

        A list that follows IN stands for its elements; any other is an array.
        """
        given = set(params)
        if missing := sorted(self.parameters - given):
            raise _refused(f"the statement has parameters without a value: {', '.join(missing)}")
        if unknown := sorted(given - self.parameters):
            raise _refused(f"the statement has no parameters {', '.join(unknown)[:200]}")
        clause = self._clause
        binds: list[sa.BindParameter[Any]] = []
        for name, value in params.items():
            if name in self._lists:
                if not isinstance(value, (list, tuple)):
                    raise _refused(f"the parameter {name!r} follows IN, and is no list")
                elements = [bound(each) for each in value]
                binds.append(sa.bindparam(name, elements, expanding=True))
            else:
                binds.append(sa.bindparam(name, bound(value)))
        return clause.bindparams(*binds) if binds else clause


def _lists(tokens: list[SqlToken]) -> frozenset[str]:
    pairs = pairwise(tokens)
    return frozenset(
        after.text
        for before, after in pairs
        if after.kind == "parameter" and before.kind == "word" and before.text == "IN"
    )


def _writes_a_file(words: list[str]) -> bool:
    pairs = pairwise(words)
    return any(pair in (("INTO", "OUTFILE"), ("INTO", "DUMPFILE")) for pair in pairs)


def _refused(problem: str, hint: str | None = None) -> AutomateError:
    return AutomateError(ErrorCodes.INVALID_ARGUMENT, problem, hint=hint)


class _Scanner:
    """Splits a text into tokens, without quotations and comments."""

    def __init__(self, text: str, dialect: str) -> None:
        self._text, self._at = text, 0
        self._mysql, self._postgresql = dialect in _MYSQL, dialect == "postgresql"

    def tokens(self) -> Iterator[SqlToken]:
        text = self._text
        while self._at < len(text):
            char, rest = text[self._at], text[self._at : self._at + 2]
            if char.isspace():
                self._at += 1
            elif rest == "--" or (char == "#" and self._mysql):
                self._line_comment()
            elif rest == "/*":
                self._block_comment()
            elif char in "'\"`":
                self._quoted(char, escapes=self._mysql)
            elif self._dollar():
                continue
            elif char == "[" and not self._postgresql:
                # A quoted name in some dialects, and nothing in others: it must end in any case.
                self._until("]")
            else:
                yield self._plain(char)

    def _plain(self, char: str) -> SqlToken:
        text = self._text
        if char == "\\" and text[self._at + 1 : self._at + 2] == ":":
            self._at += 2
            return SqlToken("other", ":")
        if text.startswith("::", self._at):
            self._at += 2
            return SqlToken("other", "::")
        if found := _PARAMETER.match(text, self._at):
            self._at = found.end()
            return SqlToken("parameter", found[1])
        if found := _WORD.match(text, self._at):
            self._at = found.end()
            if self._postgresql and found[0] in ("E", "e") and text.startswith("'", self._at):
                self._quoted("'", escapes=True)
                return SqlToken("other", "'")
            return SqlToken("word", found[0].upper())
        self._at += 1
        return SqlToken("other", char)

    def _line_comment(self) -> None:
        after = self._text[self._at + 2 : self._at + 3]
        if self._mysql and self._text[self._at] == "-" and after and not after.isspace():
            # Two minus signs there, and a comment elsewhere.
            raise _refused("'--' without a space after it means two things", "write '-- '")
        end = self._text.find("\n", self._at)
        self._at = len(self._text) if end < 0 else end + 1

    def _block_comment(self) -> None:
        if self._mysql and self._text[self._at + 2 : self._at + 4].startswith(("!", "M!")):
            raise _refused("a comment that the server executes is refused")
        depth, begin = 0, self._at
        while self._at < len(self._text):
            if self._text.startswith("/*", self._at) and (self._postgresql or self._at == begin):
                depth, self._at = depth + 1, self._at + 2
            elif self._text.startswith("*/", self._at):
                depth, self._at = depth - 1, self._at + 2
                if not depth:
                    return
            else:
                self._at += 1
        raise _refused("a comment does not end")

    def _quoted(self, quote: str, *, escapes: bool) -> None:
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            doubled = self._text.startswith(quote * 2, self._at)
            if doubled or (escapes and char == "\\" and quote != "`"):
                self._at += 2
            elif char == quote:
                self._at += 1
                return
            else:
                self._at += 1
        raise _refused("a quotation does not end")

    def _dollar(self) -> bool:
        if not self._postgresql or not (found := _DOLLAR.match(self._text, self._at)):
            return False
        before = self._text[self._at - 1 : self._at]
        if before.isalnum() or (before and before in "_$"):
            return False
        self._at = found.end()
        self._until(found[0])
        return True

    def _until(self, end: str) -> None:
        place = self._text.find(end, self._at)
        if place < 0:
            raise _refused("a quotation does not end")
        self._at = place + len(end)
