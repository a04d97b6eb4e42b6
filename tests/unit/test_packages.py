"""What a user of a package meets first: imports without their extra, and its page on the index."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PLUGINS = tuple(sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml")))
PACKAGES = (ROOT, *PLUGINS)


@pytest.mark.parametrize(
    ("code", "missing", "extra"),
    [
        ("import automate_sqlalchemy", "sqlalchemy", "sqlalchemy"),
        ("import automate_django", "django", "django"),
        ("from automate_django.api import BaseAPIView", "rest_framework", "api"),
        ("from automate_testing import ConnectorContract", "pytest", "testing"),
        ("import automate_kernel.monitoring.opentelemetry", "opentelemetry", "opentelemetry"),
    ],
)
def test_an_import_without_its_extra_names_it(code, missing, extra):
    """Not a module that the user has never heard of; and the extra exists."""
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"try:\n    {code}\n"
        "except ImportError as error:\n    print(type(error).__name__, error.name, error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.startswith(f"ImportError {missing} ")
    assert f"pip install 'automate-kernel[{extra}]'" in ran.stdout
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]


def test_the_clock_and_the_kit_of_workflows_need_no_pytest():
    """A script or a notebook skips time too, and `automate workflow test` is no part of pytest."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from automate_kernel import Kernel\n"
        "from automate_testing import FakeClock, WorkflowTest\n"
        "kernel = Kernel(discover=False)\n"
        "kernel.add_workflow({'name': 'w', 'trigger': {'type': 'manual'},"
        " 'steps': [{'id': 'a', 'sleep': '30d'}]})\n"
        "with WorkflowTest(kernel) as test:\n"
        "    print(test.run('w').status.value, FakeClock().advance(60).minute)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["COMPLETED", "1"]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_page_on_the_index_has_no_broken_links(package):
    """There are no files beside it there: a link into the project is its words alone."""
    settings = tomllib.loads((package / "pyproject.toml").read_text())
    hook = settings["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    text = (package / "README.md").read_text()
    for one in hook["substitutions"]:
        text = re.sub(one["pattern"], one["replacement"], text)
    assert re.findall(r"\]\((?!https?://|#)", text) == []
    assert "automate-kernel" in text
    assert settings["project"]["dynamic"] == ["readme"]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_each_package_brings_its_licence_and_tells_what_it_is(package):
    """As a company's check of its dependencies looks for."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert project["license-files"] == ["LICENSE"]
    assert (package / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert {"authors", "classifiers", "description", "keywords", "license"} <= project.keys()
    assert "Typing :: Typed" in project["classifiers"]


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_the_kernel_and_the_plugins_that_it_declares(plugin: Path) -> None:
    """Never an adapter of another host, or a plugin that its users may not have."""
    owners = {
        package.name: _called(folder)
        for folder in PLUGINS
        for package in (folder / "src").iterdir()
        if package.is_dir()
    }
    project = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *sum(project.get("optional-dependencies", {}).values(), [])]
    declared = {re.split(r"[\[<>=~!; ]", each)[0] for each in needed} | {project["name"]}
    extras = {
        "automate_sqlalchemy": any(
            each.startswith("automate-kernel[sqlalchemy") for each in needed
        ),
        "automate_django": any(re.match(r"automate-kernel\[(django|api)", each) for each in needed),
    }
    for file in sorted((plugin / "src").rglob("*.py")):
        for module in _imported(ast.parse(file.read_text("utf-8"))):
            assert owners.get(module, project["name"]) in declared, f"{file} imports {module}"
            assert extras.get(module, True), f"{file} imports {module}"


def _called(folder: Path) -> str:
    return str(tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"])


def _imported(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
