"""The install lines of a page, for the test that reads pages and the session that follows them."""

from __future__ import annotations

import re
import shlex

_LINE = re.compile(
    r"^\$ (?:.+ && )?(?:python -m )?pip install (?!-e \./|uv\b)(.+?)(?: && .+)?$", re.MULTILINE
)


def install_lines(text: str) -> list[list[str]]:
    """Return the words of each `pip install` in a terminal, without packages that the page makes."""
    return [shlex.split(line, comments=True) for line in _LINE.findall(text)]
