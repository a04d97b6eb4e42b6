"""
Statements: the text of one SQL statement, read as far as its parameters and a clear error need it.

The reading is no boundary: a server may read a text in another way. What holds a query to one
statement that writes nothing is in `drivers`. Only its first word is sure, as nothing stands before
it in what is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_sql.values import bound

READS = frozenset({"SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN", "DESCRIBE", "DESC"})
"""The words that a query begins with."""
WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "WITH", "CALL"})
"""The words that a statement begins with which changes rows."""

_LONGEST = 100_000
_STREAMED = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})
_MYSQL = ("mysql", "mariadb")
_BLANKS = " \t\r\n"
# Servers disagree on which of these end a comment or are a blank.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]|\r(?!\n)")
_DOLLAR = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]*)?\$")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_$]*")
_PARAMETER = re.compile(r"(?<![:\w\x5c]):(\w+)(?![:\w])", re.ASCII)
# PostgreSQL joins a text in the next line to the text before, with its escapes.
_GOES_ON = re.compile(r"[ \t\r]*(?:--[^\n]*)?\n(?:\s|--[^\n]*\n)*'")
# Functions and words that reach beyond the transaction, wherever they stand: also in a quotation,
# as a name or as a text that another function executes. Those that execute a text are among them:
# it may be put together.
_REACHING = {
    "postgresql": re.compile(
        r"(?<![\w$])(pg_read_\w*file|pg_ls_\w*dir\w*|pg_stat_file|pg_file_\w+|lo_(?:im|ex)port"
        r"|dblink\w*|pg_(?:terminate|cancel)_backend|pg_reload_conf|pg_rotate_logfile\w*|pg_promote"
        r"|pg_switch_wal|pg_logical_emit_message|pg_stat_reset\w*|pg_log_backend_memory_contexts"
        r"|pg_(?:create|copy|drop)_\w*slot|pg_logical_slot_\w+|pg_replication_(?:slot_|origin_)\w+"
        r"|pg_create_restore_point|pg_(?:start_|stop_)?backup\w*|pg_wal_replay_\w+"
        r"|ts_stat|ts_rewrite|query_to_xml\w*|crosstab\w*|connectby|xpath_table)(?![\w$])",
        re.ASCII | re.IGNORECASE,
    ),
    "mysql": re.compile(
        r"(?<![\w$])(outfile|dumpfile|load_file|sys_exec|sys_eval)(?![\w$])",
        re.ASCII | re.IGNORECASE,
    ),
}


@dataclass(frozen=True, slots=True)
class SqlToken:
    """A word in capitals, a parameter's name, or another character, by its *kind*."""

    kind: str
    text: str
    begin: int


class Statement:
    """
    One statement with named parameters (``:name``), of the dialect *dialect*.

    Raises ``INVALID_ARGUMENT`` for several statements in one text, for a text that ends inside a
    quotation, and for one that does not begin with one of *allowed*.
    """

    def __init__(self, text: str, dialect: str, *, allowed: frozenset[str]) -> None:
        if len(text) > _LONGEST:
            raise _refused(f"the statement has more than {_LONGEST:,} characters")
        if control := _CONTROL.search(text):
            raise _refused(
                f"the statement has the control character U+{ord(control[0]):04X}",
                "give it in a parameter; lines end with a line feed",
            )
        tokens = list(_Scanner(text, dialect).tokens())
        end = next((each.begin for each in tokens if each.text == ";"), len(text))
        if any(each.begin > end and each.text != ";" for each in tokens):
            raise _refused("there are several statements in one text", "call once for each")
        first = next((each for each in tokens if each.text != "("), None)
        word = first.text if first is not None and first.kind == "word" else ""
        if word not in allowed:
            raise _refused(
                f"the statement begins with {word[:40] or 'no word'}",
                f"this action takes {', '.join(sorted(allowed))}",
            )
        _check_reach(text, "mysql" if dialect in _MYSQL else dialect)
        self.streams: bool = word in _STREAMED
        """True if its rows can be fetched a part at a time."""
        named = [each.text for each in tokens if each.kind == "parameter"]
        self.parameters: frozenset[str] = frozenset(named)
        self._lists = _lists(tokens)
        # Without the comments before it: so the server reads the same first word in any case.
        sent = text[tokens[0].begin : end].rstrip()
        self._clause = sa.text(sent)
        # By number, too: a driver would put the value into the quotation.
        found = set(self._clause._bindparams)  # noqa: SLF001
        if found != self.parameters or len(_PARAMETER.findall(sent)) != len(named):
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


def _check_reach(text: str, dialect: str) -> None:
    reaching = _REACHING.get(dialect)
    if reaching is not None and (found := reaching.search(text)):
        raise _refused(
            f"{found[0]} reaches beyond the transaction, and is refused, also in a quotation",
            "give a text as a parameter; what is to be done there belongs in code of your own",
        )


def _refused(problem: str, hint: str | None = None) -> AutomateError:
    return AutomateError(ErrorCodes.INVALID_ARGUMENT, problem, hint=hint)


class _Scanner:
    """Splits a text into tokens, without quotations and comments."""

    def __init__(self, text: str, dialect: str) -> None:
        self._text, self._at = text, 0
        self._mysql, self._postgresql = dialect in _MYSQL, dialect == "postgresql"
        self._quotes = "'\"" if self._postgresql else "'\"`"

    def tokens(self) -> Iterator[SqlToken]:
        text = self._text
        while self._at < len(text):
            begin, char, rest = self._at, text[self._at], text[self._at : self._at + 2]
            if char in _BLANKS:
                self._at += 1
            elif rest == "--" or (char == "#" and self._mysql):
                self._line_comment()
            elif rest == "/*":
                self._block_comment()
            elif char in self._quotes or self._dollar():
                if char in self._quotes:
                    self._quoted(char, escapes=self._mysql)
                yield SqlToken("quotation", char, begin)
            elif char == "[" and not self._postgresql and not self._mysql:
                self._until("]")
                yield SqlToken("quotation", char, begin)
            elif ord(char) > 127:
                raise _refused(
                    "a character beyond ASCII stands outside of a quotation",
                    'quote the name ("…", on MariaDB and MySQL `…`), or give a parameter',
                )
            else:
                yield self._plain(char)

    def _plain(self, char: str) -> SqlToken:
        text, begin = self._text, self._at
        if char == "\\" and text[self._at + 1 : self._at + 2] == ":":
            self._at += 2
            return SqlToken("other", ":", begin)
        if text.startswith("::", self._at):
            self._at += 2
            return SqlToken("other", "::", begin)
        if found := _PARAMETER.match(text, self._at):
            self._at = found.end()
            return SqlToken("parameter", found[1], begin)
        if found := _WORD.match(text, self._at):
            self._at = found.end()
            if self._postgresql and found[0] in ("E", "e") and text.startswith("'", self._at):
                self._quoted("'", escapes=True)
                if _GOES_ON.match(text, self._at):
                    raise _refused("a text with escapes goes on in the next line", "join the two")
                return SqlToken("quotation", "'", begin)
            if self._postgresql and text[begin : self._at + 2].upper() == 'U&"':
                raise _refused("a name with Unicode escapes is refused", "write its letters")
            return SqlToken("word", found[0].upper(), begin)
        self._at += 1
        return SqlToken("other", char, begin)

    def _line_comment(self) -> None:
        after = self._text[self._at + 2 : self._at + 3]
        if self._mysql and self._text[self._at] == "-" and after not in _BLANKS:
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
