r"""
Regular expressions of strangers, matched in a time that is linear in the text.

Python's engine goes back in the text when a guess was wrong: ``^(a+)+$`` makes a search of hours in
thirty characters of text, and no other thread runs meanwhile. Pydantic's engine never goes back. It
builds an automaton instead, which costs time and memory: ``\w`` takes 50 kB, and ``\w{200}`` two
hundred times as much. The engine itself stops at 10 MiB. So each pattern has a weight, an estimate
of these bytes. A pattern that is surely too heavy is refused before anything is built. Bounds hold
for the weight of all matchers that are kept, and for all patterns of a schema (`PatternBudget`).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence

from automate_kernel.base.forks import new_lock

NOT_LINEAR = (
    "a pattern is matched in linear time: it has no look-around, no reference to what it has"
    " found, and no more than 2,000 characters; neither it nor all of a schema's patterns together"
    r" repeat large classes some hundred times ([a-z]{255} is fine, \w{255} is not)"
)
"""The hint for a pattern that can't be used."""

_LONGEST = 2_000
_MIB = 2**20
_ENGINES_LIMIT = 10 * _MIB
# A tenth more: the weight is an estimate.
_SURELY_TOO_HEAVY = 11 * _MIB
_MOST_OF_A_SCHEMA = 40 * _MIB
# More than a single schema may have, or its patterns would be built again for each value.
_MOST_KEPT = 64 * _MIB
_MOST_REFUSALS = 1_000


def is_pattern(text: str) -> bool:
    """Return True if *text* is a regular expression that is matched in linear time."""
    try:
        _matchers.of(text)
    except ValueError:
        return False
    return True


def find_pattern(pattern: str, text: str) -> bool:
    """Return True if *pattern* is found in *text*; raises `ValueError` for an invalid pattern."""
    return _matchers.of(pattern)(text)


class PatternBudget:
    """Bounds for the patterns of one author together: 40 MiB, which take about a second."""

    def __init__(self) -> None:
        self._seen: dict[str, bool] = {}
        self._left = _MOST_OF_A_SCHEMA

    def takes(self, pattern: str) -> bool:
        """Return True if *pattern* is linear, and not too much for what is left."""
        known = self._seen.get(pattern)
        if known is None:
            cost = min(weigh(pattern)[1], _ENGINES_LIMIT) if len(pattern) <= _LONGEST else 0
            known = cost <= self._left and is_pattern(pattern)
            self._left -= min(cost, self._left)
            self._seen[pattern] = known
        return known


class _Matchers:
    """The matchers that were used last."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._kept: OrderedDict[str, tuple[Callable[[str], bool], int]] = OrderedDict()
        self._refused: OrderedDict[str, None] = OrderedDict()
        self._weight = 0

    def of(self, pattern: str) -> Callable[[str], bool]:
        if len(pattern) > _LONGEST:
            raise ValueError(NOT_LINEAR)
        with self._lock:
            if pattern in self._refused:
                raise ValueError(NOT_LINEAR)
            kept = self._kept.get(pattern)
            if kept is not None:
                self._kept.move_to_end(pattern)
                return kept[0]
        least, weight = weigh(pattern)
        # Not under the lock: it takes up to a fifth of a second.
        made = None if least > _SURELY_TOO_HEAVY else _built(pattern)
        with self._lock:
            if made is None:
                self._refused[pattern] = None
                if len(self._refused) > _MOST_REFUSALS:
                    self._refused.popitem(last=False)
                raise ValueError(NOT_LINEAR)
            if pattern not in self._kept:
                self._kept[pattern] = made, min(weight, _ENGINES_LIMIT)
                self._weight += self._kept[pattern][1]
            while self._weight > _MOST_KEPT:
                self._weight -= self._kept.popitem(last=False)[1][1]
        return made


_matchers = _Matchers()


def _built(pattern: str) -> Callable[[str], bool] | None:
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    try:
        schema = core_schema.str_schema(pattern=pattern, regex_engine="rust-regex")
        return SchemaValidator(schema).isinstance_python
    except SchemaError:
        return None


_TOKEN = re.compile(
    r"""
    (?P<open>\((?:\?(?:P?<\w+>|(?P<flags>[A-Za-z-]*):?))?)
    | (?P<close>\))
    | \{(?P<least>\d*)(?:(?P<comma>,)(?P<most>\d*))?\}
    | (?P<class>\[\^?\]?(?:\\.|[^\]\\])*\]?)
    | (?P<escape>\\[pP](?:\{[^}]*\}|.)|\\[xuU]\{[^}]*\}|\\.)
    | (?P<alternative>\|)
    | (?P<repeat>[*+?])
    | (?P<one>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_COMBINED = ("&&", "--", "~~", "^")
# The bytes of one state, of the classes of Unicode, and of what a class has more by its text.
_STATE, _FOLDING = 40, 8
_CLASSES = {
    "w": 50_200, "W": 50_200, "p": 50_200, "P": 50_200, "d": 5_200, "D": 12_800, "S": 2_000,
    "s": 700,
}  # fmt: skip
_ANY, _RANGE, _LARGE_RANGE = 1_000, 40, 600
# What a class takes wherever it stands. There are many groups of \p.
_SURELY = {"w": 49_900, "W": 46_300, "d": 5_100, "D": 12_700, "S": 1_900, "s": 600}


def weigh(pattern: str) -> tuple[int, int]:
    """
    Return about the fewest and the most bytes that the automaton of *pattern* takes.

    The fewest are 0 where the engine may find a shorter way.
    """
    tokens = list(_TOKEN.finditer(pattern))
    if any("[" in (token["class"] or "")[1:] for token in tokens):
        return 0, _ENGINES_LIMIT  # a class in a class, whose end isn't looked for
    flags = any(token["flags"] for token in tokens)
    most = _sum(tokens, _most_of_one, _STATE) * (_FOLDING if flags else 1)
    shorter = flags or any(token["alternative"] for token in tokens)
    return 0 if shorter else _sum(tokens, _least_of_one, 0), most


def _sum(tokens: Sequence[re.Match[str]], of_one: Callable[[str], int], state: int) -> int:
    """Return the weight of *tokens* if *of_one* gives that of a character or a class."""
    stack: list[list[int]] = [[0, 0]]  # the weight of each open group, and of its last part
    for token in tokens:
        kind, text, top = token.lastgroup, token.group(), stack[-1]
        if token["open"]:
            stack.append([0, 0])
        elif kind == "close":
            if len(stack) > 1:
                inner = sum(stack.pop()) + state
                _append(stack[-1], inner)
        elif kind == "repeat":
            top[1] += state
        elif text[0] == "{" and len(text) > 1:
            top[1] = (top[1] + state) * _times(token)
        else:
            _append(top, of_one(text))
    return sum(map(sum, stack))


def _append(group: list[int], weight: int) -> None:
    group[0] += group[1]
    group[1] = weight


def _times(token: re.Match[str]) -> int:
    least, most = int(token["least"][:12] or 0), int((token["most"] or "")[:12] or 0)
    return max(least + 1, most) if token["comma"] and not token["most"] else max(least, most)


def _most_of_one(text: str) -> int:
    """Return the most that a character, an escape, or a class in brackets can weigh."""
    if text == ".":
        return _ANY
    weight = _STATE + sum(_CLASSES.get(each, 0) for each in _ESCAPED.findall(text))
    if text[0] == "[" and len(text) > 1:
        large = text[1] == "^" or not text.isascii() or re.search(r"\\[xuU]", text)
        weight += _ANY * bool(large) + len(text) * (_LARGE_RANGE if large else _RANGE)
    return weight


def _least_of_one(text: str) -> int:
    """Return the least that it weighs: nothing where one part may take away from another."""
    classes = [each for each in _ESCAPED.findall(text) if each.isalnum()]
    in_brackets = text[0] == "["
    if len(classes) != 1 or (in_brackets and any(each in text[1:] for each in _COMBINED)):
        return 0
    return _SURELY.get(classes[0], 0)
