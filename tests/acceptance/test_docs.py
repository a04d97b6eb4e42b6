"""The documentation is true: its code runs, its links lead somewhere, its reference is whole."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.joinpath("docs").rglob("*.md"),
        *ROOT.joinpath("plugins").glob("*/README.md"),
    ]
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def _load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runner = _load("docs_runner", HERE / "docs_runner.py")
generate = _load("docs_generate", ROOT / "docs" / "generate.py")


@pytest.mark.parametrize("name", NAMES)
def test_code_blocks_run(name: str, tmp_path: Path) -> None:
    """Every code block of the page runs, and prints what the page says."""
    done = subprocess.run(
        [sys.executable, HERE / "docs_runner.py", ROOT / name],
        cwd=tmp_path, env=runner.environment() | {"PYTHONPATH": ""}, text=True,
        capture_output=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


@pytest.mark.parametrize("name", NAMES)
def test_every_block_is_of_a_known_language(name: str) -> None:
    """No block is passed over because nobody knows how to check it, or can't be found."""
    text = (ROOT / name).read_text()
    found = list(runner.blocks(text))
    assert {block.language for block in found} <= set(runner.RUNNERS)
    fences = len(re.findall(r"^ *```", text, re.MULTILINE))
    assert fences == 2 * sum(block.language != "hidden" for block in found)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    """A link to another page, or to a heading of one, finds it."""
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} is not there"
        if anchor:
            assert anchor in _anchors(linked), f"{linked.name} has no heading #{anchor}"


def test_every_page_is_in_the_index() -> None:
    """A reader who starts at docs/index.md can reach every page."""
    reached, new = set(), [ROOT / "docs" / "index.md"]
    while new:
        page = new.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+\.md)", _prose(page)):
            linked = (page.parent / target).resolve()
            if linked.exists() and linked not in reached:
                new.append(linked)
    assert not set(ROOT.joinpath("docs").rglob("*.md")) - reached


@pytest.mark.parametrize("path", sorted(generate.PAGES))
def test_generated_pages_are_up_to_date(path: str) -> None:
    """The reference says what the code says; `python docs/generate.py` writes it anew."""
    assert generate.page(path) == (ROOT / "docs" / path).read_text(), "run docs/generate.py"


def _public_modules() -> list[str]:
    folders = ("automate_kernel", "automate_sqlalchemy", "automate_django")
    packages = {
        ".".join(file.parent.relative_to(ROOT / "src").parts)
        for folder in folders
        for file in ROOT.joinpath("src", folder).rglob("__init__.py")
        if "migrations" not in file.parts and "management" not in file.parts
    }
    return sorted(packages)


@pytest.mark.parametrize("module", _public_modules())
def test_every_public_name_is_in_the_reference(module: str) -> None:
    """What a package lists in `__all__` has a heading in docs/reference."""
    if module.startswith("automate_django"):
        sys.path.insert(0, str(ROOT / "tests" / "django_project"))
        from shopsite.configured import configure

        configure()
    names = set(getattr(importlib.import_module(module), "__all__", ()))
    told: set[str] = set()
    for page in ROOT.joinpath("docs", "reference").rglob("*.md"):
        told |= set(re.findall(r"^#+ .*?`([\w.]+)`", page.read_text(), re.MULTILINE))
    assert not names - told


def test_a_broken_page_is_noticed(tmp_path: Path) -> None:
    """The check itself works: a wrong output and an unknown language are failures."""
    for text in ("```python\nprint(1)\n```\n\n```output\n2\n```\n", "```cobol\nSTOP RUN.\n```\n"):
        page = tmp_path / "page.md"
        page.write_text(text)
        with pytest.raises(runner.DocumentationError):
            runner.Page(page).run()


def _prose(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$|`[^`\n]*`", "", page.read_text(), flags=re.S | re.M)


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.S | re.M)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


