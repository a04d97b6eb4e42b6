"""The README's examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_example_prints_what_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Word for word."""
    exec(compile(EXAMPLES[0], "README.md", "exec"), {"__name__": "readme"})
    (expected,) = re.findall(r"^```output\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert capsys.readouterr().out == expected


def test_the_transport_is_made_as_the_readme_says() -> None:
    """The names are there and take what they are given."""
    exec(compile(EXAMPLES[1], "README.md", "exec"), {"__name__": "readme"})
