"""What a user of a package meets first: imports without their extra, and its page on the index."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PLUGINS = tuple(sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml")))
PACKAGES = (ROOT, *PLUGINS)
sys.path.append(str(ROOT / "tests" / "acceptance"))

import distributions  # noqa: E402
import versions  # noqa: E402


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
    settings = tomllib.loads((package / "pyproject.toml").read_text())
    packages = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert [each for each in packages if not (package / each / "py.typed").is_file()] == []


def test_the_release_publishes_each_distribution_after_those_that_it_needs():
    """A plugin that nobody listed would stay at home, and its name would be free for a stranger."""
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    listed = re.findall(r"^ {10}- (automate_\w+)$", workflow, re.MULTILINE)
    assert sorted(listed) == sorted(_called(each).replace("-", "_") for each in PACKAGES)
    for package in PLUGINS:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        needed = {re.split(r"[\[<>=~!; ]", each)[0] for each in project["dependencies"]}
        before = listed[: listed.index(_called(package).replace("-", "_"))]
        assert {each.replace("-", "_") for each in needed} & set(listed) <= set(before)


def test_a_classifier_stands_for_a_python_that_the_tests_run_on():
    """nox reads the kernel's classifiers: a plugin, and the policy, name the same Pythons."""
    pattern = r'"Programming Language :: Python :: (3\.\d+)"'
    said = [re.findall(pattern, (each / "pyproject.toml").read_text()) for each in PACKAGES]
    assert all(each == said[0] for each in said)
    policy = (ROOT / "docs" / "project" / "support.md").read_text()
    assert f"| Python | {said[0][0]} to {said[0][-1]}. " in policy


def _wheel(folder: Path, **files: str) -> Path:
    """A wheel with *files*, in whose names `__` is a folder."""
    about = "License-Expression: Apache-2.0\n\nA page."
    whole = {
        "shop__a.py": "",
        "shop__py.typed": "",
        "shop-1.dist-info__licenses__LICENSE": "",
        **files,
    }
    with zipfile.ZipFile(folder / "shop-1-py3-none-any.whl", "w") as archive:
        archive.writestr("shop-1.dist-info/METADATA", files.pop("about", about))
        for name, text in whole.items():
            if name != "about" and text != "none":
                archive.writestr(name.replace("__", "/"), text)
    return folder / "shop-1-py3-none-any.whl"


def test_a_release_refuses_a_wheel_that_lacks_something(tmp_path):
    """A type checker's mark, the licence, the page on the index; and nobody installs our tests."""
    assert distributions.of_wheel(_wheel(tmp_path)) == []
    assert distributions.of_wheel(_wheel(tmp_path, **{"shop__py.typed": "none"})) == [
        "shop has no py.typed"
    ]
    assert distributions.of_wheel(
        _wheel(tmp_path, **{"shop-1.dist-info__licenses__LICENSE": "none"})
    ) == ["the licence is missing"]
    for test in ("tests__a.py", "shop__tests__a.py", "shop__conftest.py", "shop__test_a.py"):
        assert distributions.of_wheel(_wheel(tmp_path, **{test: ""}))[-1].endswith("is a test")
    wrong = distributions.of_wheel(_wheel(tmp_path, about="Requires-Dist: a @ file:///a\n\n"))
    assert len(wrong) == 3


def test_a_release_refuses_an_sdist_that_nobody_could_build_or_test(tmp_path):
    """It has the tests, the licence and the file that says how it is built."""
    about = "License-Expression: Apache-2.0\n\nA page."
    with tarfile.open(tmp_path / "shop-1.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("shop-1/PKG-INFO")
        info.size = len(about)
        archive.addfile(info, io.BytesIO(about.encode()))
    assert len(distributions.of_sdist(tmp_path / "shop-1.tar.gz")) == 4
    assert distributions.main(tmp_path) == 1  # and there is no wheel
    (tmp_path / "empty").mkdir()
    assert distributions.main(tmp_path / "empty") == 1


def test_a_tag_is_refused_when_a_distribution_or_the_changelog_is_behind(tmp_path):
    """Half a release can't be taken back."""
    plugin = tmp_path / "plugins" / "automate-a"
    plugin.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('version = "0.2.0"\n')
    (plugin / "pyproject.toml").write_text('version = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n\n## [0.2.0]\n")
    assert len(versions.differing("0.2.0", tmp_path)) == 2
    (plugin / "pyproject.toml").write_text('version = "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n\n## [0.2.0] - 2027-01-31\n")
    assert versions.differing("0.2.0", tmp_path) == []
    assert len(versions.differing("0.2", tmp_path)) == 3


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
