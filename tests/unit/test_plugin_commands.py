"""Commands that plugins add to ``automate``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import warm_forks

COMMAND = """
import typer

from automate_cli.command import Commands, Context
from automate_cli.session import HostSession
from automate_kernel.base.errors import ConfigError

print("imported")
app = Commands("wave", "Wave at people.")


@app.called("automate wave at Ada")
def at(context: Context, name: str) -> None:
    \"\"\"Wave at somebody.\"\"\"
    settings = context.session.settings["commands"].get("wave", {})
    if name == "nobody":
        raise ConfigError("nobody is there", hint="name somebody")
    context.out.line(f"{settings.get('with', 'hand')} for {name} on {place(context.session)}")


def place(session):
    own = isinstance(session, HostSession)
    assert not own or session.kernel is session.whole is session.in_memory()
    return "the application's" if own else session.settings["database"]


@app.called("automate wave back")
def back(context: Context) -> None:
    \"\"\"Wave back.\"\"\"
"""


@pytest.fixture
def run(tmp_path: Path, forks: str):
    """Run ``automate`` beside a distribution that adds commands."""
    site = tmp_path / "site"
    info = site / "waves-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: waves\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[automate.commands]\nwave = waves:app\nbroken = waves_that:are_not\nnothing = os:sep\n"
        "plugins = waves:app\n"
    )
    (site / "waves.py").write_text(COMMAND)

    (site / "hosted.py").write_text(HOSTED)

    def run(*arguments: str, module: str = "automate_cli") -> subprocess.CompletedProcess[str]:
        plain = {**os.environ, "PYTHONPATH": str(site), "TERM": "dumb", "COLUMNS": "100"}
        program = ["-m", module, *arguments]
        ended = warm_forks.ended(forks, program, plain, folder=tmp_path, seconds=60)
        return subprocess.CompletedProcess(program, *ended)

    return run


def test_a_plugins_command_is_listed_and_not_imported(run):
    """The help names the distribution; nobody else's commands wait for its import."""
    shown = run("--help")
    assert "wave" in shown.stdout and "Of the plugin waves 1.0." in shown.stdout
    assert "imported" not in shown.stdout
    assert "imported" not in run("config").stdout
    listed = run("plugins", "ls", "--load", "--kind", "command")
    assert "waves:app" in listed.stdout and "imported" not in listed.stdout


def test_a_plugins_command_has_the_settings_and_the_errors_of_all(run, tmp_path):
    """Its own are in a table of the same file."""
    (tmp_path / "automate.toml").write_text('[commands.wave]\nwith = "flag"\n')
    done = run("--database", "sqlite:///x.sqlite3", "wave", "at", "Ada")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        "flag for Ada on sqlite:///x.sqlite3",
    )
    failed = run("wave", "at", "nobody")
    assert (failed.returncode, failed.stderr) == (
        2,
        "error: nobody is there\nhint: name somebody\n",
    )
    assert "automate wave at Ada" in run("wave", "at", "--help").stdout


def test_a_plugin_takes_no_command_of_the_program(run):
    """``automate plugins`` stays what it is."""
    assert "Look at connectors" in run("plugins", "--help").stdout


@pytest.mark.parametrize(
    ("name", "says"), [("broken", "waves_that"), ("nothing", "os:sep is a str, and no command")]
)
def test_a_broken_command_is_an_error_of_its_own(run, name, says):
    """With the reason, and no traceback; the others work."""
    failed = run(name)
    assert failed.returncode == 2
    assert "error: " in failed.stderr and says in failed.stderr
    assert "Traceback" not in failed.stderr
    assert run("wave", "back").returncode == 0


HOSTED = """
import sys
from automate_kernel import Kernel
from automate_cli import app_for

kernel = Kernel(secrets={}, disabled=sys.argv[1].split(",") if sys.argv[1] else ())
run = app_for(lambda: kernel, name="shopctl", commands={"wave": {"with": "flag"}})
try:
    sys.exit(run(sys.argv[2:]))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def test_an_application_has_them_on_its_own_kernel(run):
    """`app_for` gives their settings, leaves the common options out, and names the program."""

    def hosted(*arguments, disabled=""):
        return run(disabled, *arguments, module="hosted")

    shown = hosted("--help").stdout
    assert "Of the plugin waves 1.0." in shown and "imported" not in shown
    assert hosted("wave", "at", "Ada").stdout.endswith("flag for Ada on the application's\n")
    assert "shopctl wave at Ada" in (told := hosted("wave", "at", "--help").stdout)
    assert "--database" not in told
    assert hosted("wave", "at", "nobody").stderr.startswith("ConfigError: nobody is there")
    assert "PluginError: command 'broken'" in hosted("broken").stderr
    assert "ConfigError: No such command" in hosted("wave", "back", disabled="waves").stderr


@pytest.mark.parametrize("disabled", ["wave", "waves"])
def test_a_disabled_plugin_adds_no_command(run, tmp_path, disabled):
    """By its key or by its distribution."""
    (tmp_path / "automate.toml").write_text(f'disabled = ["{disabled}"]\n')
    assert "Wave" not in run("--help").stdout
    refused = run("wave", "back")
    assert refused.returncode == 2
    assert "No such command 'wave'" in refused.stderr
