"""The limit on SQLite: the same semantics in hand-written statements, synchronous=FULL."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from typing import ClassVar

from benchmarks import counter
from benchmarks.contender import BATCH, Contender, Purpose, payload

_BATCH = 100
_TABLES = """
CREATE TABLE outbox(
  id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload TEXT NOT NULL,
  status INT NOT NULL DEFAULT 0, attempts INT NOT NULL DEFAULT 0, available_at INT NOT NULL,
  created_at INT NOT NULL, lease_until INT, lease_token INT, finished_at INT, last_error TEXT);
CREATE INDEX outbox_due ON outbox(available_at, id) WHERE status = 0;
CREATE INDEX outbox_lease ON outbox(lease_until) WHERE status = 1;
"""
_INSERT = "INSERT INTO outbox(topic, payload, available_at, created_at) VALUES ('noop', ?, ?, ?)"
_CLAIM = """
UPDATE outbox SET status = 1, attempts = attempts + 1, lease_until = ? + 60000, lease_token = ?
WHERE id IN (SELECT id FROM outbox WHERE status = 0 AND available_at <= ?
  ORDER BY available_at, id LIMIT ?)
RETURNING id, topic, payload, attempts
"""
_ACKNOWLEDGE = """
UPDATE outbox SET status = 2, finished_at = ?, lease_until = NULL
WHERE id IN ({}) AND lease_token = ?
"""


class SqliteLimit(Contender):
    """Two statements a batch of 100: leases on, rows kept."""

    name = "limit-sqlite"
    title = "hand-written SQL, SQLite"
    peer = False
    databases = ("sqlite",)
    offers = frozenset({"sqlite-enqueue", "sqlite-drain"})
    packages = ()
    imports = "import sqlite3"
    pace: ClassVar = {"sqlite": 20_000}
    unfinished: ClassVar = {"sqlite": "SELECT EXISTS (SELECT 1 FROM outbox WHERE status IN (0, 1))"}
    _connection: sqlite3.Connection

    def open(self) -> None:
        self._connection = self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.database.name, timeout=30, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def set_up(self) -> None:
        self._connect().executescript(_TABLES)

    def reset(self) -> None:
        self._connection.execute("DELETE FROM outbox")

    def enqueue_each(self, count: int) -> None:
        for number in range(count):
            self._insert(range(number, number + 1))

    def enqueue_bulk(self, count: int) -> None:
        for start in range(0, count, BATCH):
            self._insert(range(start, min(start + BATCH, count)))

    def _insert(self, numbers: range) -> None:
        now = _milliseconds()
        self._connection.execute("BEGIN IMMEDIATE")
        rows = [(json.dumps(payload(number)), now, now) for number in numbers]
        self._connection.executemany(_INSERT, rows)
        self._connection.execute("COMMIT")

    def worker(self, purpose: Purpose) -> Callable[[], object]:
        connection, token = self._connect(), os.getpid()

        def take() -> int:
            now = _milliseconds()
            rows = connection.execute(_CLAIM, (now, token, now, _BATCH)).fetchall()
            for _ in rows:
                counter.tick()
            if rows:
                ids = [row[0] for row in rows]
                marks = ",".join("?" * len(ids))
                connection.execute(_ACKNOWLEDGE.format(marks), (_milliseconds(), *ids, token))
            return len(rows)

        def work() -> None:
            while True:
                if not take():
                    time.sleep(0.01)

        return work


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000


CONTENDER = SqliteLimit
