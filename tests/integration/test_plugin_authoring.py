"""
The tools of plugin authors, in environments of their own.

A new plugin is installed as its author would, and everything that its CI runs is green at once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from automate_testing.authoring.scaffold import SCAFFOLD_KINDS, Scaffold

# A busy machine needs minutes for what takes ten seconds elsewhere.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
UV = shutil.which("uv")
LONG = pytest.mark.long


class Home:
    """An environment with the kernel in it, and a folder for projects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"

    def run(self, *command: object, cwd: Path | None = None, code: int = 0) -> str:
        """What *command* prints, which must end with *code*."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "VIRTUAL_ENV"))}
        path = f"{self.python.parent}{os.pathsep}{plain.get('PATH', '')}"
        done = subprocess.run(
            [str(each) for each in command], cwd=cwd or self.folder, text=True,
            env={**plain, "PATH": path, "NO_COLOR": "1", "UV_LINK_MODE": "copy"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout[-6000:]}"
        return done.stdout

    def automate(self, *arguments: object, cwd: Path | None = None, code: int = 0) -> str:
        """What `automate` prints."""
        return self.run(self.python, "-m", "automate_cli", *arguments, cwd=cwd, code=code)

    def install(self, *what: object, by: str = "uv") -> None:
        """Install as people do."""
        if by == "uv" and UV:
            self.run(UV, "pip", "install", "-q", "--python", self.python, *what)
        else:
            self.run(self.python, "-m", "pip", "install", "-q", *what)

    def checked(self, project: Path, code: int = 0, *options: str) -> dict:
        """The report of `automate plugins check`."""
        printed = self.automate("plugins", "check", "--json", *options, cwd=project, code=code)
        return json.loads(printed[printed.index("{") :])


def new_home(folder: Path, by: str = "uv") -> Home:
    home = Home(folder)
    folder.mkdir(exist_ok=True)
    if by == "uv" and UV:
        home.run(UV, "venv", "-q", "--python", sys.executable, folder / "venv")
    else:
        home.run(sys.executable, "-m", "venv", folder / "venv")
    home.install("-e", f"{ROOT}[cli,testing]", by=by)
    return home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    yield new_home(tmp_path_factory.mktemp("home"))


def is_clean(home: Home, project: Path) -> None:
    """Require what the project's CI asks for: style, types, tests, level."""
    checkers = Path(sys.executable).parent
    home.run(checkers / "ruff", "check", "--no-cache", cwd=project)
    home.run(checkers / "ruff", "format", "--check", "--no-cache", cwd=project)
    # What it learns of the kernel holds for the next plugin too.
    cache = home.folder / "mypy"
    home.run(
        checkers / "mypy", "--python-executable", home.python, "--cache-dir", cache, cwd=project
    )
    printed = home.run(home.python, "-m", "pytest", "-q", cwd=project)
    assert re.search(r"\d+ passed", printed) and "skipped" not in printed.replace("0 skipped", "")
    report = home.checked(project, 0, "--level", "complete")
    assert (report["level"], report["problems"]) == ("complete", [])
    assert "up to date" in home.automate("plugins", "check", "--manifest", "check", cwd=project)


@pytest.mark.parametrize(
    ("kinds", "by"),
    [
        (["connector"], "uv"),
        *(pytest.param([kind], "uv", marks=LONG) for kind in list(SCAFFOLD_KINDS)[1:]),
        pytest.param(["provider", "secrets", "filter", "store"], "uv", marks=LONG),
        pytest.param(["connector", "filter"], "pip", marks=LONG),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_new_plugin_is_green_at_once(
    home: Home, tmp_path: Path, kinds: list[str], by: str
) -> None:
    """Made by the command and installed: its tests, ruff, mypy and the highest level."""
    if by == "pip":
        home = new_home(tmp_path / "pip", by)
    name = "-".join(["new", *kinds])[:24].rstrip("-")
    options = [word for kind in kinds for word in ("--kind", kind)]
    home.automate("plugins", "new", name, *options, "--directory", tmp_path)
    project = tmp_path / f"automate-{name}"
    home.install("-e", project, by=by)
    is_clean(home, project)


@LONG
def test_a_plugin_that_is_written_from_a_document_is_green_at_once(
    home: Home, tmp_path: Path
) -> None:
    """With cursors, OAuth 2 and odd names: its tests, ruff, mypy and the highest level."""
    plugins = ROOT / "plugins"
    home.install(*(plugins / f"automate-{name}" for name in ("http[oauth]", "openapi")))
    document = plugins / "automate-openapi" / "tests" / "support" / "ledger.yaml"
    said = home.automate(
        "plugins", "new", "ledger", "--from-openapi", document, "--directory", tmp_path
    )
    assert "made" in said and "look at this" not in said
    project = tmp_path / "automate-ledger"
    home.install("-e", project)
    is_clean(home, project)


@LONG
def test_a_plugin_goes_the_way_of_an_author(home: Home, tmp_path: Path) -> None:
    """Each fault lowers the level, and is named with its remedy; the next command mends it."""
    project = Scaffold.named("faulty", ["connector"]).write(tmp_path)
    package = project / "src" / "automate_faulty"
    report = home.checked(project, 1)
    assert report["level"] == "broken"
    assert "is not installed" in report["problems"][0]["problem"]
    assert report["problems"][0]["remedy"].startswith("pip install -e")
    assert "is not installed" in home.automate(
        "plugins", "check", "--manifest", "write", cwd=project, code=2
    )
    home.install("-e", project)
    assert home.checked(project)["level"] == "complete"

    code = package / "connector.py"
    good = code.read_text()
    code.write_text(good.replace("greeting: str", "word: str").replace("'greeting'", "'word'"))
    failed = home.run(home.python, "-m", "pytest", "-q", cwd=project, code=1)
    assert "config.properties.word is new" in failed
    assert "automate plugins check --manifest write" in failed
    report = home.checked(project, 1)
    assert report["level"] == "loads"
    assert {each["requirement"] for each in report["problems"]} == {"contract", "tests", "manifest"}
    assert "not up to date" in home.automate(
        "plugins", "check", "--manifest", "check", cwd=project, code=1
    )
    assert "written" in home.automate("plugins", "check", "--manifest", "write", cwd=project)
    assert home.checked(project)["level"] == "complete"

    (package / "py.typed").unlink()
    (package / "example.yaml").write_text(
        "name: x\ntrigger: {type: manual}\nsteps:\n  - {id: a, action: faulty.sent, input: {}}\n"
    )
    code.write_text(good.replace('"The word that a message begins with."', '""'))
    report = home.checked(project, 1, "--level", "documented")
    by_name = {each["requirement"]: each for each in report["problems"]}
    assert {"typed", "example", "described", "manifest"} <= set(by_name)
    assert "did you mean 'send'?" in by_name["example"]["problem"]
    assert all(each["remedy"] for each in report["problems"])

    code.write_text("import not_there_at_all\n")
    report = home.checked(project, 1)
    assert report["level"] == "broken"
    assert "not_there_at_all" in report["problems"][0]["problem"]
    code.write_text(good.replace('return "ready"', 'raise ConnectionError("no route")'))
    home.automate("plugins", "check", "--manifest", "write", cwd=project)
    report = home.checked(project, 1, "--test-connection")
    assert report["level"] == "broken"
    (problem,) = [each for each in report["problems"] if each["requirement"] == "connection"]
    assert "UNAVAILABLE" in problem["problem"]


@LONG
def test_tests_that_can_not_run_are_no_proof(home: Home, tmp_path: Path) -> None:
    """A project without a contract, or whose tests fail to import, is not tested."""
    project = Scaffold.named("unproved", ["filter"]).write(tmp_path)
    home.install("-e", project)
    (test,) = (project / "tests").glob("test_*.py")
    suite = test.read_text()
    test.write_text("def test_nothing():\n    pass\n")
    report = home.checked(project, 1)
    assert (report["level"], report["problems"][0]["requirement"]) == ("loads", "contract")
    test.write_text("import not_there_at_all\n")
    assert home.checked(project, 1)["level"] == "loads"
    test.write_text(suite.replace('"AL"', '"XX"'))
    report = home.checked(project, 1)
    assert "1 failed" in report["problems"][0]["problem"]
    test.write_text(
        f"import pytest\n{suite}\n    @pytest.mark.xfail\n"
        "    def test_it_says_what_it_gives(self): assert False\n"
    )
    report = home.checked(project, 1)
    assert "1 replaced by the author's own" in report["problems"][0]["problem"]


def test_an_installed_plugin_is_shown_and_searched_without_an_import(
    home: Home, tmp_path: Path
) -> None:
    """What its manifest says is enough, even if its code would end the process."""
    project = Scaffold.named("shown", ["connector"]).write(tmp_path)
    (project / "src" / "automate_shown" / "connector.py").write_text(
        "raise SystemExit('imported')\n"
    )
    home.install(project)
    listed = home.automate("plugins", "ls")
    assert "DISCOVERED" in listed and "Sends messages with Shown" in listed
    shown = home.automate("plugins", "show", "shown")
    assert "action  send(name, [text])" in shown
    assert "trigger  received  needs SHOWN_HOOK" in shown
    found = json.loads(home.automate("plugins", "ls", "--search", "shown greeting", "--json"))
    assert [(each["kind"], each["name"]) for each in found] == [("action", "shown.send")]
    broken = home.automate("plugins", "show", "shown", "--load", code=2)
    assert "SystemExit" in broken and "report that to the author" in broken


def test_an_installed_plugin_is_checked_by_its_key(home: Home) -> None:
    """The command makes the suite of its kind; it needs no tests of the author."""
    home.install(ROOT / "plugins" / "automate-http")
    # It is run in the application's folder, but not with the settings of its tests.
    (home.folder / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    report = home.checked(home.folder, 0, "http", "--level", "complete")
    assert (report["distribution"], report["problems"]) == ("automate-http", [])
    page = home.automate("plugins", "show", "--markdown", "http")
    assert "### `http.send_webhook`" in page and "name: http-example" in page


def test_the_wheel_has_the_templates(tmp_path: Path) -> None:
    """What is installed can make each kind: the files are in the wheel, dotless ones too."""
    if UV is None:
        pytest.skip("uv builds the wheel")
    subprocess.run([UV, "build", "-q", "--wheel", "--out-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    folder = ROOT / "examples" / "plugin"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    assert len(files) > 20
    assert {f"automate_testing/authoring/template/{name}" for name in files} <= inside
