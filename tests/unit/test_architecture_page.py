"""The files, classes and functions that the architecture pages name exist."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs/explanation" / name for name in ("architecture.md", "concepts.md")]
_FILE = re.compile(r"`((?:src|tests|plugins|docs|benchmarks|examples)/[\w./-]+)`")
_NAMES = re.compile(r"`(src/[\w./-]+\.py)`((?:[ ,:]+`[A-Za-z_][\w.]*(?:\(\))?`)+)")
_ROOM = re.compile(r"^### (\w+)\n\n`(src/[\w/]+/)`(.*?)(?=^##)", re.MULTILINE | re.DOTALL)
_MODULE = re.compile(r"^\| `(\w+\.py)`([^|]*)\|", re.MULTILINE)
_NAME = re.compile(r"`([A-Za-z_][\w.]*)(?:\(\))?`")


@lru_cache
def names_in(path: str) -> frozenset[str]:
    """Return the module's names, those of methods and attributes with their class's."""
    found: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else []
            if isinstance(node, ast.AnnAssign):
                targets = [node.target]
            found.update(prefix + each.id for each in targets if isinstance(each, ast.Name))

    visit(ast.parse((ROOT / path).read_text()).body, "")
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_the_page_names_exists(page: Path) -> None:
    """A page that leads to nothing costs more than none."""
    missing = [name for name in _FILE.findall(page.read_text()) if not (ROOT / name).exists()]
    assert not missing, f"{page.name} names what is not there: {missing}"


def test_every_name_behind_a_file_is_in_it() -> None:
    """The stations of an event and the table of changes are checked against the code."""
    pairs = [
        (path, name)
        for path, names in _NAMES.findall(PAGES[0].read_text())
        for name in _NAME.findall(names)
    ]
    assert len(pairs) > 20, "the page's form has changed, and nothing is checked any more"
    missing = [f"{path}: {name}" for path, name in pairs if name not in names_in(path)]
    assert not missing, f"rename these in architecture.md: {missing}"


def rooms() -> list[tuple[str, dict[str, str]]]:
    """Return the folder of each room of workflows, and the names in each of its rows."""
    found = _ROOM.findall(PAGES[0].read_text())
    return [(folder, dict(_MODULE.findall(table))) for _, folder, table in found]


def test_each_module_of_workflows_has_a_row_whose_names_are_in_it() -> None:
    """Who looks for the place of a change looks at the tables alone."""
    assert len(rooms()) == 6
    for folder, named in rooms():
        there = {each.name for each in (ROOT / folder).glob("*.py")} - {"__init__.py"}
        assert named.keys() == there, f"give each module of {folder} one row in architecture.md"
        missing = [
            f"{module}: {name}"
            for module, names in named.items()
            for name in _NAME.findall(names)
            if name not in names_in(folder + module)
        ]
        assert not missing, f"rename these in architecture.md: {missing}"


def test_an_event_passes_at_most_twelve_stations() -> None:
    """More would not fit into one head."""
    text = PAGES[0].read_text().partition("## The journey of an event")[2].partition("\n## ")[0]
    stations = re.findall(r"^\| \d+ \|", text, re.MULTILINE)
    assert 5 < len(stations) <= 12
