"""Every pattern of the source takes time with the length of a text, not with its square."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings

from automate_cli.settings import _KEY
from automate_kernel.storage.errors import _REMEDIES
from automate_kernel.storage.migration import _MYSQL_TYPES
from tests.unit.pattern_texts import ROOT, Use, hostile, modules, uses

# The keys of valid TOML, each of which has its end.
_OF_VALID_TEXT = {_KEY}
_LENGTH = 4096
_QUICK = 0.003  # seconds of the processor: what is quicker at this length is linear
_SHORT = 256
_QUICK_WHEN_SHORT = 0.00001  # with the square it would take less than _QUICK at _LENGTH
_TOO_LONG = 0.25


def _uses(*sources: Path) -> list[Use]:
    return [each for name, file in modules(*sources) for each in uses(name, file)]


def _own_uses() -> list[Use]:
    found = _uses(ROOT / "src", ROOT / "plugins" / "automate-http" / "src")
    tables = [*_REMEDIES, *(("", each, "") for each in _MYSQL_TYPES.values())]
    found += [Use(each[1], re.compile(each[1]), frozenset({"search"})) for each in tables]
    found = [each for each in found if each.pattern.pattern not in _OF_VALID_TEXT]
    assert len(found) > 120
    return found


def _seconds(use: Use, method: str, text: Any) -> float:
    pattern = use.pattern
    if isinstance(pattern.pattern, bytes):
        text = text.encode("latin-1", "replace")
    best = _TOO_LONG * 100
    for _ in range(3):
        begun = time.thread_time()
        if method == "finditer":
            for _match in pattern.finditer(text):
                pass
        elif method in {"sub", "subn"}:
            pattern.sub(text[:0], text)
        else:
            getattr(pattern, method)(text)
        best = min(best, time.thread_time() - begun)
        if best < _QUICK or best > _TOO_LONG:
            break
    return best


def _is_slow(use: Use, method: str, before: str, repeated: str, after: str) -> bool:
    def taken(length: int) -> float:
        return _seconds(use, method, before + repeated * (length // len(repeated)) + after)

    for length in (32, _SHORT, _LENGTH):
        seconds = taken(length)
        if seconds > _TOO_LONG:
            return True
        if length == _SHORT and seconds < _QUICK_WHEN_SHORT:
            return False
    # Four times the length takes four times as long, and sixteen times if it is the square.
    return seconds > _QUICK and taken(4 * _LENGTH) > 9 * seconds


def _slow_on(use: Use) -> str | None:
    for before, repeated, after in hostile(use.pattern):
        for method in sorted(use.methods):
            if _is_slow(use, method, before, repeated, after):
                return f"{method} of {before!r} + {repeated!r} * n + {after!r}"
    return None


def test_each_pattern_is_linear():
    """Those of the kernel and of Django's part, on texts made from each pattern."""
    slow = {use.where: found for use in _own_uses() if (found := _slow_on(use)) is not None}
    assert slow == {}


@pytest.mark.plugins
def test_each_pattern_of_a_plugin_is_linear(request):
    """Of all plugins of this repository."""
    if not request.config.getoption("--with-plugins"):
        pytest.skip("needs the plugins: uv run --group plugins pytest --with-plugins -m plugins")
    found = _uses(*sorted(ROOT.glob("plugins/*/src")))
    assert len(found) > 30
    slow = {use.where: shown for use in found if (shown := _slow_on(use)) is not None}
    assert slow == {}


@pytest.mark.parametrize(
    "pattern",
    [
        r"([A-Za-z_][\w.]*)\.([A-Za-z_]\w*(?:-[A-Za-z_]\w*)+)",
        r"(\b[A-Za-z][\w+.-]*://)(?:([^\s:/@]*):\S*|[^\s:/@]{16,})@",
        r'"(?:[^"\\]|\\.)*"',
    ],
)
def test_a_slow_pattern_is_found(pattern):
    """Else the test above would say nothing: these are what stood here before."""
    use = Use("here", re.compile(pattern), frozenset({"findall"}))
    assert _slow_on(use) is not None
