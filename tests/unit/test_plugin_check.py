"""The check of a plugin: a fault of the plugin's own code is a finding, and ends nothing."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import warm_forks

from automate_testing.authoring.contracts import ContractRun
from automate_testing.authoring.project import PluginProject
from automate_kernel.base.errors import ConfigError

pytestmark = pytest.mark.slow

CONNECTOR = """
from automate_kernel import Connector


class Odd(Connector):
    key = "odd"
    display_name = "Odd"

    @classmethod
    def config_schema(cls):
        return 1 / 0
"""


BLOCKING = """
import time

from automate_kernel import Connector, action


class Odd(Connector):
    key = "odd"
    display_name = "Odd"

    @action
    async def wait(self) -> int:
        time.sleep(1)
        return "not a number"
"""


def checked(
    forks: str, tmp_path: Path, code: str, *options: str, place: str = "odd"
) -> subprocess.CompletedProcess[str]:
    """Install a plugin by its metadata, and check it by its key."""
    site = announced(tmp_path)
    (site / "oddly.py").write_text(code)
    return asked(forks, tmp_path, "check", place, *options, path=[site])


def announced(tmp_path: Path) -> Path:
    """Install the metadata of a plugin; return the folder to import from."""
    site = tmp_path / "site"
    info = site / "odd-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[automate.connectors]\nodd = oddly:Odd\n")
    return site


def asked(
    forks: str, folder: Path, *words: str, path: Sequence[Path] = ()
) -> subprocess.CompletedProcess[str]:
    program = ["-m", "automate_cli", "plugins", *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    ended = warm_forks.ended(forks, program, environment, folder=folder, seconds=120)
    return subprocess.CompletedProcess(program, *ended)


FOLLOWING = """
from automate_kernel import ActionSpec, Connector
from automate_kernel.base.errors import ConfigError
from pydantic import BaseModel


class Settings(BaseModel):
    document: str


class Odd(Connector):
    key = "odd"
    display_name = "Odd"

    @classmethod
    def config_schema(cls):
        return Settings

    def own_operations(self):
        if self.config["document"] != "there":
            raise ConfigError("the document isn't there")
        return [ActionSpec(name="read", description="Read it.", handler=lambda: 1)]
"""


def test_operations_that_follow_from_a_config_need_the_applications(
    tmp_path: Path, forks: str
) -> None:
    """A made-up one names a server or a document that isn't there, which is no fault of its own."""
    printed = checked(forks, tmp_path / "a", FOLLOWING).stdout
    assert "tested: no problems; not looked at: contract, tests" in printed
    assert "the contract of connector odd: its operations follow from its config" in printed
    assert "give it one, [config.odd] in automate.toml" in printed
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "automate.toml").write_text('[config.odd]\ndocument = "gone"\n')
    printed = checked(forks, tmp_path / "b", FOLLOWING).stdout
    assert "the document isn't there" in printed
    assert "correct its config in automate.toml" in printed


def test_parts_that_nothing_looks_at_are_named(tmp_path: Path, forks: str) -> None:
    """An installed plugin's operations are not called: what they return and block isn't known."""
    printed = checked(forks, tmp_path, BLOCKING).stdout
    assert "tested: no problems; not looked at: contract, tests" in printed
    assert "not looked at (contract): the output of odd.wait, and blocking calls" in printed
    assert "automate plugins check FOLDER" in printed


def test_no_level_is_without_problems_that_was_not_looked_at(tmp_path: Path, forks: str) -> None:
    """A plugin that can't be imported has nothing that could be looked at."""
    done = checked(forks, tmp_path, "import nowhere_at_all")
    assert done.returncode == 1
    assert (
        "tested: not looked at\ndocumented: not looked at\ncomplete: not looked at" in done.stdout
    )
    assert "the plugin is not imported" in done.stdout


def test_what_is_not_installed_has_no_levels_without_problems(tmp_path: Path, forks: str) -> None:
    """It is what a new author sees who forgets the step. A folder that isn't there is said to be."""
    assert asked(forks, tmp_path, "new", "gone").returncode == 0
    done = asked(forks, tmp_path, "check", "./automate-gone")
    assert "automate-gone is not installed in this environment" in done.stdout
    assert "tested: not looked at\ndocumented: not looked at" in done.stdout
    with pytest.raises(ConfigError, match=r"there is no folder '\./nowhere'"):
        PluginProject.named("./nowhere")


PROJECT = """
[project]
name = "odd"
version = "1.0"

[project.entry-points."automate.connectors"]
odd = "oddly:Odd"
"""


@pytest.mark.parametrize(
    ("code", "check", "manifest"),
    [
        # One that is nowhere isn't imported from another place, and no installation brings it.
        (None, "imported: connector odd: ModuleNotFoundError: No module named 'oddly'",
         "connector 'odd' can't be described: ModuleNotFoundError: No module named 'oddly'"),
        # A module has no folder, and is none of another place's for that.
        (CONNECTOR.partition("    @classmethod")[0], "loads: no problems",
         "make it a folder: oddly/__init__.py"),
    ],
)  # fmt: skip
def test_a_module_that_is_not_there_and_one_that_is_no_package_are_told_as_such(
    tmp_path: Path, forks: str, code: str | None, check: str, manifest: str
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    if code is not None:
        (folder / "oddly.py").write_text(code)
    path = [announced(tmp_path), folder]
    for options, says in (((), check), (("--manifest", "check"), manifest)):
        done = asked(forks, tmp_path, "check", "./project", *options, path=path)
        told = done.stdout + done.stderr
        assert says in told
        assert "another place" not in told


OWN_KEY = """
from automate_kernel import Connector

class Odd(Connector):
    key = "odd"
    display_name = "Odd"

    def check(self):
        return f"{self.config['name']} answers"
"""


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--test-connection"], 0, "connector west: the west answers"),
        ([], 2, "the key 'west' is this application's"),
    ],
)
def test_a_plugin_under_a_key_of_the_application_can_be_asked(
    tmp_path: Path, forks: str, options: list[str], code: int, says: str
) -> None:
    """As one of several servers: no distribution announces it, and `plugins ls` shows it."""
    (tmp_path / "automate.toml").write_text(
        'plugins = ["west=oddly:Odd"]\n[config.west]\nname = "the west"\n'
    )
    done = checked(forks, tmp_path, OWN_KEY, *options, place="west")
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr


def test_code_that_fails_as_it_is_asked_is_a_finding(tmp_path: Path, forks: str) -> None:
    """With the error and a remedy, in place of an error of the command."""
    done = checked(forks, tmp_path, CONNECTOR, "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["level"] == "broken"
    assert [each["requirement"] for each in report["not_looked_at"]] == ["tests"]
    (found,) = [each for each in report["problems"] if each["requirement"] == "specs"]
    assert "ZeroDivisionError" in found["problem"] and found["remedy"]


def test_an_installed_plugin_has_the_name_of_its_distribution_too(
    tmp_path: Path, forks: str
) -> None:
    """Who has installed it knows that one, and the key may be another."""
    assert "odd 1.0" in checked(forks, tmp_path / "a", BLOCKING, place="ODD").stdout
    assert "did you mean 'odd'?" in checked(forks, tmp_path / "b", BLOCKING, place="ood").stderr


TESTS = """
import pytest


def test_quick() -> None:
    pass


@pytest.mark.skip(reason="takes long")
def test_long() -> None:
    pass


def test_last() -> None:
    pass
"""


def test_a_run_shows_where_it_is_and_what_it_skipped(tmp_path: Path) -> None:
    """A suite may take minutes; what was left out is said, and so are the tests that took long."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "odd"\nversion = "1"\n')
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_odd.py").write_text(TESTS)
    shown: list[str] = []
    run = ContractRun.of(PluginProject.at(tmp_path), {}, shown.append)
    assert run.problem is None and run.failures == []
    assert shown[-1] == "running the plugin's tests: 3 of 3: test_odd.py::test_last"
    assert list(run.notes()) == ["1 test skipped: takes long"]
    run.seconds = {"tests/test_odd.py::test_last": 100.0, "tests/test_odd.py::test_quick": 1.0}
    assert list(run.notes())[1] == (
        "the tests took 101 s; the slowest: test_odd.py::test_last 100 s, test_odd.py::test_quick 1 s"
    )


@pytest.mark.timeout(60)
def test_a_run_whose_threads_do_not_end_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin that leaves one behind kept its check waiting for a quarter of an hour."""
    monkeypatch.setattr("automate_testing.authoring.contracts._LINGER_SECONDS", 0)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "odd"\nversion = "1"\n')
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_odd.py").write_text(
        "import threading\n\ndef test_it():\n    threading.Thread(target=threading.Event().wait).start()\n"
    )
    run = ContractRun.of(PluginProject.at(tmp_path), {})
    assert run.problem is None and list(run.seconds) == ["test_odd.py::test_it"]
