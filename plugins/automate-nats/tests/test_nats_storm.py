"""Kills of hosts, remotes and the broker at random: what becomes of the executions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nats_support import NatsServer

SCRIPT = Path(__file__).parent / "support" / "nats_storm.py"
MODES = pytest.mark.parametrize("durable", [False, True], ids=["in flight", "durable"])


def storm(folder: Path, **options: Any) -> dict[str, Any]:
    """Return what became of the executions of one storm."""
    ended = subprocess.run(  # noqa: S603
        [sys.executable, str(SCRIPT), str(folder), json.dumps(options)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3_000:]
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


@MODES
def test_no_execution_is_lost_in_a_storm(
    tmp_path: Path, server: NatsServer, durable: bool, request: pytest.FixtureRequest
) -> None:
    """All complete; a call is made twice only where its remote or the broker was killed in it."""
    full = request.config.getoption("--full", default=False)
    size = {"executions": 500, "kills": 44, "pause": 0.7, "patience": 200} if full else {
        "executions": 40, "kills": 8
    }  # fmt: skip
    found = storm(tmp_path, durable=durable, **size)
    assert (found["lost"], found["hung"], found["failed"], found["wrong"]) == (0, 0, 0, 0), found
    # Each kill of those interrupts the calls of one remote, or the acknowledgements of both.
    assert found["twice"] <= 20 * sum(found["kills"].values()), found


def test_an_id_without_the_failed_attempts_would_hang(tmp_path: Path, server: NatsServer) -> None:
    """The control: a retry attaches to the stored failure, again and again."""
    found = storm(tmp_path, executions=20, kills=0, generation=False, patience=4)
    assert found["hung"] > 0


@pytest.mark.long
def test_outcomes_that_are_kept_too_briefly_are_made_twice(
    tmp_path: Path, server: NatsServer
) -> None:
    """The control: a host that comes back finds nothing, and its task is created once more."""
    found = storm(tmp_path, executions=60, kills=16, kept_seconds=0.2, pause=0.4)
    assert found["twice"] > 0
