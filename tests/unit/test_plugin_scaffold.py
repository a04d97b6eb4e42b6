"""A new plugin: its names, its size, and what is left alone."""

from __future__ import annotations

import ast
import compileall
import shutil
import sys
from pathlib import Path

import pytest
from command_line import CliRunner

from automate_testing.authoring import scaffold
from automate_testing.authoring.example import ExampleFile
from automate_testing.authoring.project import PluginProject
from automate_testing.authoring.scaffold import SCAFFOLD_KINDS, Scaffold
from automate_cli.app import app
from automate_kernel.base.errors import ConfigError
from automate_kernel.plugins.manifest import Manifest
from automate_kernel.workflows.definition.loader import load_workflow

MOST_LINES, MOST_CONTRACT_LINES = 25, 6
"""Of an author's own: for a typed connector with one action and one verified webhook, and its test."""


def own_lines(path: Path) -> int:
    """The lines of code: neither blank ones nor docstrings."""
    source = path.read_text()
    docs: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            docs |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(bool(line.strip()) and number not in docs for number, line in lines)


@pytest.mark.parametrize(
    ("given", "key", "distribution", "class_name"),
    [
        ("acme", "acme", "automate-acme", "AcmeConnector"),
        ("automate-acme", "acme", "automate-acme", "AcmeConnector"),
        ("Acme Mail", "acme_mail", "automate-acme-mail", "AcmeMailConnector"),
        ("acmeMail", "acme_mail", "automate-acme-mail", "AcmeMailConnector"),
        ("acme__mail.2", "acme_mail_2", "automate-acme-mail-2", "AcmeMail2Connector"),
    ],
)
def test_one_name_makes_all_others(
    tmp_path: Path, given: str, key: str, distribution: str, class_name: str
) -> None:
    """The distribution, the package, the key and the class follow from what is typed."""
    folder = Scaffold.named(given, ["connector"]).write(tmp_path)
    assert folder == tmp_path / distribution
    code = (folder / "src" / f"automate_{key}" / "connector.py").read_text()
    assert f"class {class_name}(Connector)" in code
    assert f'key = "{key}"' in code
    assert (
        f'{key} = "automate_{key}.connector:{class_name}"'
        in (folder / "pyproject.toml").read_text()
    )


@pytest.mark.parametrize(
    "name", ["", "1acme", "acme!", "a" * 25, "../acme", "a/b", "class", "kernel", "django", "ä"]
)
def test_a_name_of_no_use_is_refused(name: str) -> None:
    """With the rule, and before anything is written."""
    with pytest.raises(ConfigError) as caught:
        Scaffold.named(name, ["connector"])
    assert caught.value.hint


def test_a_word_of_python_is_refused_as_such() -> None:
    """The rule of letters and digits wouldn't say what is wrong."""
    with pytest.raises(ConfigError, match="is a word of Python") as caught:
        Scaffold.named("class", ["connector"])
    assert "class-plugin" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["json", "upper"])
def test_a_name_that_templates_have_is_refused_for_a_filter(name: str) -> None:
    """Its own suite would fail at once."""
    with pytest.raises(ConfigError, match="templates have one, built in") as caught:
        Scaffold.named(name, ["connector", "filter"])
    assert f"my-{name}" in str(caught.value.hint)
    assert Scaffold.named(name, ["connector"]).name == name


def test_commands_to_copy_are_right_for_a_folder_with_spaces(tmp_path: Path) -> None:
    """Those that the new plugin is installed with, and those of the check."""
    parent = tmp_path / "my code"
    made = CliRunner().invoke(app, ["plugins", "new", "acme", "--directory", str(parent)])
    folder = parent / "automate-acme"
    assert f"cd '{folder}'" in made.stdout
    assert f"pip install -e '{folder}'" in PluginProject.at(folder).install_hint


def test_a_key_that_is_installed_already_is_told(tmp_path: Path) -> None:
    """It is made all the same: it may be meant to take the other's place."""
    made = CliRunner().invoke(app, ["plugins", "new", "http", "--directory", str(tmp_path)])
    assert (made.exit_code, (tmp_path / "automate-http").is_dir()) == (0, True)
    assert "connector http of automate-http is installed here" in made.stderr
    assert Scaffold.named("http", ["filter"]).namesakes() == []


@pytest.mark.parametrize("kinds", [["conector"], ["connector", "provider"]])
def test_kinds_of_no_use_are_refused(kinds: list[str]) -> None:
    """One that there isn't, and two that would share their names."""
    with pytest.raises(ConfigError):
        Scaffold.named("acme", kinds)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Not a file of a folder that is there, empty or not."""
    folder = Scaffold.named("acme", ["filter"]).write(tmp_path)
    (folder / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        Scaffold.named("acme", ["connector"]).write(tmp_path)
    assert (folder / "README.md").read_text() == "mine"
    assert not (folder / "src" / "automate_acme" / "connector.py").exists()


@pytest.mark.parametrize("kind", SCAFFOLD_KINDS)
def test_the_readme_is_true_of_the_files(tmp_path: Path, kind: str) -> None:
    """It speaks of an example only where there is one."""
    folder = Scaffold.named("acme", [kind]).write(tmp_path)
    example = (folder / "src" / "automate_acme" / "example.yaml").exists()
    assert ("example.yaml" in (folder / "README.md").read_text()) is example


def test_what_an_installer_compiles_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip compiles the templates' modules, and puts the results beside them."""
    fresh = Scaffold.named("acme", ["connector"]).files()
    installed = tmp_path / "templates"
    shutil.copytree(
        scaffold.template_folder(), installed, ignore=shutil.ignore_patterns("__pycache__")
    )
    assert compileall.compile_dir(installed, quiet=1)
    monkeypatch.setattr(scaffold, "template_folder", lambda: installed)
    assert Scaffold.named("acme", ["connector"]).files() == fresh


def test_several_kinds_share_a_distribution(tmp_path: Path) -> None:
    """Each has its module, test, entry point and part of the README; the example uses them."""
    kinds = ["connector", "secrets", "filter", "store"]
    folder = Scaffold.named("acme", kinds).write(tmp_path)
    manifest = Manifest.read(folder / "src" / "automate_acme" / "automate.json")
    wanted = sorted(SCAFFOLD_KINDS[kind].kind for kind in kinds)
    assert [each["kind"] for each in manifest.plugins] == wanted
    readme, project = (folder / "README.md").read_text(), (folder / "pyproject.toml").read_text()
    for kind in kinds:
        assert SCAFFOLD_KINDS[kind].group in project
        assert list(
            (folder / "tests").glob(f"test_acme_{'backend' if kind == 'secrets' else kind}.py")
        )
    assert readme.count("\n## ") == len(kinds) + 1
    example = ExampleFile(folder / "src" / "automate_acme" / "example.yaml")
    workflow = load_workflow(example.path)
    assert [step.action for step in workflow.steps] == ["acme.send"]
    assert "| acme" in example.text


@pytest.mark.parametrize("kind", SCAFFOLD_KINDS)
def test_everything_that_an_index_and_a_checker_ask_for_is_there(tmp_path: Path, kind: str) -> None:
    """Of each kind, and nothing is left to fill in."""
    folder = Scaffold.named("zeta", [kind]).write(tmp_path)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    package = "src/automate_zeta"
    assert {
        "LICENSE", "README.md", "pyproject.toml", ".gitignore", ".github/workflows/ci.yml",
        f"{package}/py.typed", f"{package}/__init__.py", f"{package}/automate.json",
    } <= names  # fmt: skip
    for name in names - {"LICENSE"}:
        text = (folder / name).read_text()
        assert "acme" not in text.lower(), name
        assert "<!-- plugins" not in text and "# entry points" not in text
    assert not [name for name in sys.modules if name.startswith("automate_zeta")]
    assert not list(folder.rglob("__pycache__"))


def test_a_connector_is_short(tmp_path: Path) -> None:
    """What an author has to write for one action and one verified webhook, typed, and its test."""
    folder = Scaffold.named("acme", ["connector"]).write(tmp_path)
    assert own_lines(folder / "src" / "automate_acme" / "connector.py") <= MOST_LINES
    assert own_lines(folder / "tests" / "test_acme_connector.py") <= MOST_CONTRACT_LINES
