"""Limits hold over all worker processes, and keep nobody waiting longer than they must."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
from waiting import until
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.outbox import NewItem, OutboxItem, SkipLockedClaimOutboxStore
from automate_sqlalchemy import SqlAlchemyStorage

SCRIPT = Path(__file__).with_name("limited_worker.py")
WORKERS = 4
PATIENCE_SECONDS = 90.0


class Crew:
    """Some worker processes, and the ledger that they write."""

    def __init__(self, engine: sa.Engine, folder: Path) -> None:
        self.store = SkipLockedClaimOutboxStore(SqlAlchemyStorage(engine))
        self._ledger, self._errors = folder / "ledger", folder / "errors"
        self._url = engine.url.render_as_string(hide_password=False)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the processes, and wait until they work."""
        with self._errors.open("w") as errors:
            self._process = processes.start(
                [sys.executable, str(SCRIPT), self._url, str(self._ledger), str(WORKERS)],
                stderr=errors,
            )
        self.until(lambda: len(self.store.workers()) == WORKERS)

    def until(self, holds: Callable[[], bool]) -> None:
        until(holds, PATIENCE_SECONDS, why=self.complaints)

    def complaints(self) -> str:
        return self._errors.read_text()[-5000:]

    def stop(self) -> None:
        """Let them finish, which must succeed."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(PATIENCE_SECONDS) == 0, self.complaints()
            finally:
                processes.end(process)

    def claimed_by_all_since(self, moment: float) -> list[str]:
        """
        Enqueue items until each process has claimed some since *moment*; return their ids.

        What a process has looked up before a claim that was held up counts for no later claim.
        """
        ids: list[str] = []

        def claimed() -> bool:
            if self.store.stats().total("COMPLETED") == len(ids):
                ids.extend(self.store.enqueue_many(NewItem("plain") for _ in range(20)))
            claims = [line for line in self.lines() if line["claimed_at"] > moment]
            return len({line["pid"] for line in claims}) == WORKERS

        self.until(claimed)
        return ids

    def finish(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many items are done, and return the ledger's lines."""
        self.until(lambda: self.store.stats().total("COMPLETED") == count)
        self.stop()
        return self.lines()

    def lines(self) -> list[dict[str, Any]]:
        """Return the ledger's lines that are whole."""
        whole = self._ledger.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]


@pytest.fixture
def crew(postgresql_engine: sa.Engine, tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(postgresql_engine, tmp_path)
    yield crew
    crew.stop()


def most_at_once(lines: list[dict[str, Any]]) -> int:
    """How many ran at the same time, at most."""
    most = running = 0
    for line in lines:
        running += 1 if line["what"] == "begin" else -1
        most = max(most, running)
    assert running == 0
    return most


@pytest.mark.slow
def test_limits_hold_over_four_processes(crew: Crew) -> None:
    """Neither per kind nor per key do more run than may, nor do more start in a time."""
    store = crew.store
    store.limit("narrow", concurrency=3)
    store.limit("paced", rate=20, burst=5)
    crew.start()
    begun_at = store.now().timestamp()
    keyed = {"concurrency_key": "printer", "concurrency_limit": 2}
    items = [
        *(NewItem("narrow") for _ in range(60)),
        *(NewItem("paced") for _ in range(45)),
        *(NewItem(kind, **keyed) for kind in ("shared.a", "shared.b") for _ in range(20)),
        *(NewItem("plain", ordering_key="account") for _ in range(20)),
        *(NewItem("plain") for _ in range(60)),
    ]
    ids = store.enqueue_many(items)
    lines = crew.finish(len(ids))

    begun = [line for line in lines if line["what"] == "begin"]
    assert sorted(line["id"] for line in begun) == sorted(ids), "each ran once"
    assert len({line["pid"] for line in begun}) > 1, "more than one process had some"
    assert most_at_once([line for line in lines if line["kind"] == "narrow"]) in (2, 3)
    assert most_at_once([line for line in lines if line["key"] == "printer"]) <= 2
    ordered = [line for line in lines if line["key"] == "account"]
    assert most_at_once(ordered) == 1
    in_line = [line["id"] for line in ordered if line["what"] == "begin"]
    assert in_line == sorted(in_line)
    # By the database's clock: its times of the claims, and when the first could have been.
    starts = sorted(line["claimed_at"] for line in begun if line["kind"] == "paced")
    for number, start in enumerate(starts, 1):
        assert number <= 5 + 20 * (start - begun_at) + 1e-3, f"start {number} came too early"


@pytest.mark.slow
def test_a_pause_reaches_all_processes(crew: Crew) -> None:
    """What is paused on one host begins on none of the others a second later, until its end."""
    store = crew.store
    crew.start()
    store.pause("narrow", "the service is down")
    # Whoever claims looks again if it is a second since it looked last.
    noticed_at = store.now().timestamp() + 1.1
    crew.until(lambda: store.now().timestamp() > noticed_at)
    before = crew.claimed_by_all_since(noticed_at)
    paused = store.enqueue_many(NewItem("narrow") for _ in range(20))
    plain = store.enqueue_many(NewItem("plain") for _ in range(20))
    done = len(before) + len(plain)
    crew.until(lambda: store.stats().counts["plain"].get("COMPLETED") == done)
    assert store.stats().counts["narrow"] == {"PENDING": len(paused)}
    store.resume("narrow")
    lines = crew.finish(len(paused) + done)
    assert Counter(line["kind"] for line in lines) == {"narrow": 40, "plain": 2 * done}


@pytest.mark.parametrize("kept_back_by", ["concurrency", "concurrency_key", "ordering_key"])
def test_the_next_one_begins_when_one_ends(postgresql_engine: sa.Engine, kept_back_by: str) -> None:
    """What waits for a place begins when there is one, not when the worker polls again."""
    kernel = Kernel(SqlAlchemyStorage(postgresql_engine), secrets={}, discover=False)
    done: list[str] = []
    all_done = threading.Event()

    @kernel.handler("k")
    def handle(item: OutboxItem) -> None:
        done.append(item.id)
        if len(done) == 12:
            all_done.set()

    options: dict[str, Any] = {}
    if kept_back_by == "concurrency":
        kernel.outbox.limit("k", concurrency=1)
    elif kept_back_by == "concurrency_key":
        options = {"concurrency_key": "key", "concurrency_limit": 1}
    else:
        options = {"ordering_key": "key"}
    kernel.outbox.enqueue_many(NewItem("k", **options) for _ in range(12))
    worker = kernel.worker(slots=4, poll_seconds=3600.0)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        assert all_done.wait(PATIENCE_SECONDS), f"{len(done)} of 12"
    finally:
        worker.stop()
        thread.join(PATIENCE_SECONDS)
    assert len(set(done)) == 12
    kernel.close()


def test_an_overlap_would_be_seen() -> None:
    """The count of what runs at once, on which the others rest."""
    lines = [{"what": what} for what in ("begin", "begin", "end", "begin", "end", "end")]
    assert most_at_once(lines) == 2
