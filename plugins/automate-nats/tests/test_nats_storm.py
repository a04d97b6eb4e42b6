"""Kills of all that there is at random: what becomes of executions, and of events that are relayed."""

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
RELAYS = Path(__file__).parent / "support" / "relay_storm.py"
KEPT = ("lost", "twice", "out of order", "not started", "started twice", "failed")
MODES = pytest.mark.parametrize("durable", [False, True], ids=["in flight", "durable"])


def storm(folder: Path, *, script: Path = SCRIPT, **options: Any) -> dict[str, Any]:
    """Return what became of the executions of one storm."""
    ended = subprocess.run(  # noqa: S603
        [sys.executable, str(script), str(folder), json.dumps(options)],
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


def test_no_event_is_lost_doubled_or_out_of_order_in_a_storm(
    tmp_path: Path, server: NatsServer, request: pytest.FixtureRequest
) -> None:
    """In the stream, and at the other installation: each starts one execution there."""
    full = request.config.getoption("--full", default=False)
    size = {"executions": 600, "kills": 48, "pause": 0.7, "patience": 200} if full else {
        "executions": 60, "kills": 8
    }  # fmt: skip
    found = storm(tmp_path, script=RELAYS, **size)
    assert found["emitted"] == size["executions"]
    assert {name: found[name] for name in KEPT} == dict.fromkeys(KEPT, 0), found


@pytest.mark.long
def test_a_window_that_is_too_short_doubles_messages_but_no_execution(
    tmp_path: Path, server: NatsServer
) -> None:
    """The control: the broker takes repeats, and the ids in the database still keep them out."""
    found = storm(
        tmp_path, script=RELAYS, executions=400, kills=40, pause=0.3, duplicate_seconds=0.1,
        patience=120,
    )  # fmt: skip
    assert found["twice"] > 0, found
    assert (found["lost"], found["not started"], found["started twice"]) == (0, 0, 0), found
