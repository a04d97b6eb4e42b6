"""Texts of workflows on a page: without secrets, with their differences, with their problems."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import unified_diff

from automate_django.definitions import Diagnostic
from automate_django.kernel import get_kernel

__all__ = ["Difference", "Problem", "clean", "differences", "explained"]

_MOST_LINES = 2000


@dataclass(frozen=True, slots=True)
class Difference:
    """A line of a comparison: *sign* is ``+``, ``-``, a space, or ``@`` between two stretches."""

    sign: str
    text: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a text, and the line that is meant."""

    text: str
    line: int | None = None
    excerpt: str = ""


def clean(text: str) -> str:
    """*text* without what the redactor knows: a key may have become a secret after it was saved."""
    return get_kernel().redactor.redact(text)


def differences(before: str, after: str) -> list[Difference]:
    """What has changed from *before* to *after*, with three lines around; empty if nothing has."""
    lines = unified_diff(clean(before).splitlines(), clean(after).splitlines(), lineterm="", n=3)
    found = []
    for line in list(lines)[2:_MOST_LINES]:
        sign = line[:1] or " "
        found.append(Difference(sign, line if sign == "@" else line[1:]))
    return found


def explained(problems: Iterable[Diagnostic], source: str) -> list[Problem]:
    """*problems*, each with the line of *source* that it is about."""
    lines = clean(source).splitlines()
    return [
        Problem(
            clean(str(each)),
            each.line,
            lines[each.line - 1][:200] if each.line and each.line <= len(lines) else "",
        )
        for each in problems
    ]
