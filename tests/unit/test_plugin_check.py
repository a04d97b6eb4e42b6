"""The check of a plugin: a fault of the plugin's own code is a finding, and ends nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_code_that_fails_as_it_is_asked_is_a_finding(tmp_path: Path) -> None:
    """With the error and a remedy, in place of an error of the command."""
    info = tmp_path / "site" / "odd-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[automate.connectors]\nodd = oddly:Odd\n")
    (tmp_path / "site" / "oddly.py").write_text(CONNECTOR)
    done = subprocess.run(
        [sys.executable, "-m", "automate_kernel.cli", "plugins", "check", "odd", "--json"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["level"] == "broken"
    (found,) = [each for each in report["problems"] if each["requirement"] == "specs"]
    assert "ZeroDivisionError" in found["problem"] and found["remedy"]
