"""
A page can be followed: files show their names, code can be pasted, the install line is whole.

It reads the pages and runs nothing: `nox -s pages` follows them in fresh environments.
"""

from __future__ import annotations

import ast
import codeop
import re
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.append(str(HERE))

import docs_runner as runner  # noqa: E402
from install_lines import install_lines  # noqa: E402

NAMES = sorted(
    str(page.relative_to(ROOT))
    for folder in (ROOT.glob("*.md"), ROOT.glob("docs/**/*.md"), ROOT.glob("plugins/*/README.md"))
    for page in folder
)
INLINE = re.compile(r"`pip install (?!-)([^`…]+)`")
# What our own packages need that is an extra.
OURS = {
    "automate_cli": "typer",
    "automate_django": "django",
    "automate_pages": "starlette",
    "automate_sqlalchemy": "sqlalchemy",
    "automate_testing.contracts": "pytest",
}
COMMANDS = {
    "alembic": "alembic",
    "automate": "typer",
    "django-admin": "django",
    "flask": "flask",
    "gunicorn": "gunicorn",
    "moto_server": "moto",
    "pytest": "pytest",
    "python manage.py automate": "typer",
    "uvicorn": "uvicorn",
    "waitress-serve": "waitress",
    "automate dev": "starlette",
}
DRIVERS = {"postgresql": "psycopg", "mysqldb": "mysqlclient", "mysql": "mysqlclient"}
"""By what stands before ``://``; other drivers are called as their distributions."""
MODULES = packages_distributions()
PLUGINS = {
    table["name"]: table
    for each in ROOT.glob("plugins/*/pyproject.toml")
    for table in [runner._toml(each.read_text())["project"]]
}
# About the repository itself, whose environment has everything.
ABOUT_US = ("CONTRIBUTING.md", "README.md", "docs/project/releasing.md")


def pasted(code: str) -> str:
    """Return what the prompt of Python 3.12 and older answers to *code* first; '' if it takes it."""
    compiler, lines = codeop.CommandCompiler(), []
    for line in [*code.splitlines(), ""]:
        lines.append(line)
        try:
            if compiler("\n".join(lines), "<stdin>", "single") is not None:
                lines = []
        except SyntaxError as error:
            return f"{line!r}: {type(error).__name__}: {error.msg}"
    return "unfinished" if any(lines) else ""


@pytest.mark.parametrize("name", NAMES)
def test_a_file_shows_its_name(name: str) -> None:
    """A renderer drops a fence's other words, so the text before the block has the file's name."""
    text, end = (ROOT / name).read_text(), 0
    for match in runner._BLOCK.finditer(text):
        (block,) = runner.blocks(match[0])
        before, end = text[end : match.start()], end if block.language == "hidden" else match.end()
        if block.file is not None:
            assert re.search(rf"[`/]{re.escape(block.file)}`", before), (
                f"say `{block.file}` before it"
            )


@pytest.mark.parametrize("name", NAMES)
def test_python_can_be_pasted(name: str) -> None:
    """
    A block that is no file goes into a prompt.

    An empty line ends a class there, and the next method is an error. Without an empty line behind
    it, a class has not ended.
    """
    for block in runner.blocks((ROOT / name).read_text()):
        if block.language == "python" and block.file is None:
            assert pasted(block.code) == "", f"line {block.line}"


def test_the_prompt_is_as_strict_as_a_readers() -> None:
    """The check itself: what older prompts refuse, it refuses."""
    assert pasted("class A:\n    b = 1\n\n    c = 2\n").startswith("'    c = 2': IndentationError")
    assert pasted("for a in ():\n    pass\nprint()\n").startswith("'print()': SyntaxError")
    assert pasted("print(\n") == "unfinished"
    assert pasted('class A:\n    """B\n\n    C."""\n    b = 1\n\nprint(\n    A\n)\n') == ""


@pytest.mark.parametrize("name", [each for each in NAMES if each not in ABOUT_US])
def test_the_install_line_brings_what_the_page_uses(name: str) -> None:
    """Each module that is imported, each command, driver, and reader of YAML comes with it."""
    text = (ROOT / name).read_text()
    wanted = dict(_wanted(text))
    asked = list(_asked(text))
    assert asked or not wanted, f"no install line, but it uses {', '.join(wanted.values())}"
    brought = _brought(asked)
    lacking = [f"{used} needs {each}" for each, used in wanted.items() if each not in brought]
    assert lacking == []


def _asked(text: str) -> Iterator[Requirement]:
    """Yield what the page's install lines name."""
    for line in [*install_lines(text), *map(shlex.split, INLINE.findall(text))]:
        for word in line:
            if not word.startswith(("-", ".", "/")):
                yield Requirement(word)


def _brought(asked: list[Requirement]) -> set[str]:
    """Return the distributions that *asked* brings here, as far as they are installed."""
    done: set[tuple[str, frozenset[str]]] = set()
    left = [(canonicalize_name(each.name), frozenset(each.extras)) for each in asked]
    while left:
        name, extras = each = left.pop()
        if each in done:
            continue
        done.add(each)
        for one in _needs(name):
            if one.marker is None or any(
                one.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            ):
                left.append((canonicalize_name(one.name), frozenset(one.extras)))
    return {name for name, _ in done}


def _needs(name: str) -> list[Requirement]:
    """Return what a distribution asks for; of a stranger's that isn't installed that isn't known."""
    if name not in PLUGINS:
        try:
            return [Requirement(each) for each in requires(name) or []]
        except PackageNotFoundError:
            return []
    found = [Requirement(each) for each in PLUGINS[name]["dependencies"]]
    for extra, needed in PLUGINS[name].get("optional-dependencies", {}).items():
        found += [Requirement(f"{each}; extra == {extra!r}") for each in needed if ";" not in each]
    return found


def _wanted(text: str) -> Iterator[tuple[str, str]]:
    """Yield the distributions that the blocks of a page need, each with its use."""
    for block in runner.blocks(text):
        if block.language == "python":
            yield from _imported(block.code)
        if block.language not in ("hidden", "output", "text"):
            for driver in re.findall(r"\b(?:\w+\+(\w+)|postgresql(?=:))://", block.code):
                named = DRIVERS.get(driver or "postgresql", driver)
                yield named, f"{driver or 'postgresql'}://"
        if block.language == "yaml" and block.file:
            yield "pyyaml", block.file
        if block.language in ("python", "yaml") and re.search('type"?: "?schedule', block.code):
            yield "cronsim", "a schedule"
        if block.language == "console":
            for line in re.findall(r"^\$ (.+)", block.code, re.MULTILINE):
                for command in re.split(r" && | \| ", re.sub(r"^(\w+=\S+ )+", "", line)):
                    yield from (
                        (COMMANDS[e], e) for e in COMMANDS if f"{command} ".startswith(e + " ")
                    )


def _imported(code: str) -> Iterator[tuple[str, str]]:
    """Yield the distributions of what *code* imports, as far as this environment knows them."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
        else:
            continue
        for module in modules:
            ours = [needed for name, needed in OURS.items() if f"{module}.".startswith(f"{name}.")]
            top = module.partition(".")[0]
            if not top.startswith(("automate_kernel", *OURS)) and len(MODULES.get(top, ())) == 1:
                ours.append(canonicalize_name(MODULES[top][0]))
            yield from ((each, f"import {module}") for each in ours)
