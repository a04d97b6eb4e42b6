"""The units for systemd: what systemd says of them, and their commands as systemd would run them."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
from ports import free_ports
from tools import DEPLOY, output_of, refused, tool
from waiting import ready, until

UNITS = sorted((DEPLOY / "systemd").glob("automate-*"))
SERVICES = [each for each in UNITS if each.suffix == ".service"]
_PROGRAM = "/opt/automate/bin/automate"
AUTOMATE = str(Path(sys.executable).with_name("automate"))


def _ids(units: list[Path]) -> list[str]:
    return [each.name for each in units]


def _command(unit: Path) -> list[str]:
    """What the unit starts, as systemd reads it: variables of the unit are split into words."""
    text = unit.read_text()
    line = re.search(r"^ExecStart=(.+)$", text, re.MULTILINE)
    assert line is not None
    words = shlex.split(line[1])
    assert words[0] == _PROGRAM
    for name, value in re.findall(r'^Environment="(\w+)=(.*)"$', text, re.MULTILINE):
        at = words.index(f"${name}")
        words[at : at + 1] = value.split()
    return [each.replace("%i", "gpu") for each in words[1:]]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the units, whose program is the one of this environment."""
    for each in UNITS:
        text = each.read_text().replace(_PROGRAM, AUTOMATE)
        (tmp_path / each.name.replace("@", "@gpu")).write_text(text)
    return tmp_path


def test_systemd_finds_nothing_wrong(installed: Path) -> None:
    """No unit has a key that systemd doesn't know, which is but a warning."""
    analyze = tool("systemd-analyze", "systemd")
    said = output_of(analyze, "verify", *sorted(installed.iterdir()))
    assert "automate-" not in said


@pytest.mark.parametrize("unit", SERVICES, ids=_ids(SERVICES))
def test_a_service_may_do_little(unit: Path, tmp_path: Path) -> None:
    """What systemd calls the exposure of a service is low: 10 is the worst."""
    copy = tmp_path / unit.name.replace("@", "@gpu")
    copy.write_text(unit.read_text())
    analyze = tool("systemd-analyze", "systemd")
    said = output_of(analyze, "security", "--offline=yes", "--threshold=30", copy)
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert exposure is not None
    assert float(exposure[1]) <= 3.0


@pytest.mark.parametrize("unit", SERVICES, ids=_ids(SERVICES))
def test_a_service_starts_a_command_that_exists(unit: Path) -> None:
    """Each option is one of the command's."""
    assert refused(_command(unit)) == ""


@pytest.mark.parametrize("unit", SERVICES, ids=_ids(SERVICES))
def test_a_stop_has_time(unit: Path) -> None:
    """systemd kills no sooner than a worker has let its calls end and recorded them."""
    text = unit.read_text()
    if "Type=oneshot" in text:
        assert "Restart=" not in text
        return
    seconds = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert seconds is not None
    assert int(seconds[1]) >= (40 if "executor" in unit.name else 70)
    assert "KillMode=mixed\n" in text
    assert "Restart=always\n" in text
    assert "StartLimitIntervalSec=0\n" in text


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """The folder of settings, with tables and a token for the pages, made as the page says."""
    (tmp_path / "automate.toml").write_text("[worker]\nretention_seconds = 604800\n")
    _run(tmp_path, _command(DEPLOY / "systemd" / "automate-migrate.service"))
    _run(tmp_path, ["tokens", "new", "ada", "--role", "operator"])
    yield tmp_path


def _environment(folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AUTOMATE_")}
    return {**kept, "AUTOMATE_DATABASE": f"sqlite:///{folder}/automate.sqlite3"}


def _run(folder: Path, arguments: list[str]) -> None:
    output_of(AUTOMATE, *arguments, cwd=folder, env=_environment(folder))


@pytest.mark.long
@pytest.mark.parametrize("name", ["worker", "serve"])
def test_a_service_runs_and_drains(name: str, host: Path) -> None:
    """The command of the unit becomes ready, shows metrics, and ends with 0 at SIGTERM."""
    arguments = _command(DEPLOY / "systemd" / f"automate-{name}.service")
    probes = ("--health-port", "--metrics-port")
    ports = dict(zip((*probes, "--port"), free_ports(3), strict=True))
    for option in probes:
        arguments[arguments.index(option) + 1] = str(ports[option])
    if name == "serve":
        arguments += ["--port", str(ports["--port"])]
    with processes.running([AUTOMATE, *arguments], cwd=host, env=_environment(host)) as process:
        health = f"http://127.0.0.1:{ports['--health-port']}/readyz"
        until(lambda: ready(health), 60, process=process)
        metrics = f"http://127.0.0.1:{ports['--metrics-port']}/metrics"
        assert "automate_up 1\n" in urllib.request.urlopen(metrics, timeout=30).read().decode()
        _run(host, _command(DEPLOY / "systemd" / "automate-doctor.service"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
