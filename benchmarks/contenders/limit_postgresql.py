"""The limit on PostgreSQL: the same semantics in hand-written statements, and nothing around."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks import counter
from benchmarks.contender import BATCH, Contender, Filling, Purpose, payload

_BATCH = 100
_TABLES = """
DROP TABLE IF EXISTS outbox;
CREATE TABLE outbox(
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text NOT NULL, payload jsonb NOT NULL,
  status smallint NOT NULL DEFAULT 0, attempts smallint NOT NULL DEFAULT 0,
  available_at timestamptz NOT NULL DEFAULT now(), created_at timestamptz NOT NULL DEFAULT now(),
  lease_until timestamptz, lease_token bigint, finished_at timestamptz, last_error text
) WITH (autovacuum_vacuum_scale_factor=0.02, autovacuum_vacuum_cost_delay=0);
CREATE INDEX outbox_due ON outbox(available_at, id) WHERE status = 0;
CREATE INDEX outbox_lease ON outbox(lease_until) WHERE status = 1;
DROP TABLE IF EXISTS wf_step; DROP TABLE IF EXISTS wf_run;
CREATE TABLE wf_run(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL,
  status smallint NOT NULL DEFAULT 0, input jsonb NOT NULL, output jsonb);
CREATE TABLE wf_step(run_id bigint NOT NULL, seq smallint NOT NULL, name text NOT NULL,
  output jsonb, PRIMARY KEY(run_id, seq));
"""
_INSERT = "INSERT INTO outbox(topic, payload) VALUES ('noop', %s)"
# A NOTIFY inside the statement costs nothing; as a statement of its own it costs 40 %.
_INSERT_AND_WAKE = f"WITH item AS ({_INSERT}) SELECT pg_notify('outbox', '')"
_INSERT_MANY = "INSERT INTO outbox(topic, payload) SELECT 'noop', x FROM unnest(%s::jsonb[]) x"
_CLAIM = """
UPDATE outbox SET status = 1, attempts = attempts + 1, lease_token = %s,
  lease_until = now() + interval '60 s'
WHERE id IN (SELECT id FROM outbox WHERE status = 0 AND available_at <= now()
  ORDER BY available_at, id LIMIT %s FOR UPDATE SKIP LOCKED)
RETURNING id, topic, payload, attempts
"""
_ACKNOWLEDGE = """
UPDATE outbox SET status = 2, finished_at = now(), lease_until = NULL
WHERE id = ANY(%s) AND lease_token = %s
"""
_FILL = """
INSERT INTO outbox(topic, payload, status, available_at)
SELECT 'noop', jsonb_build_object('pad', repeat('x', 180)), {status},
  now() + interval '{due}' + number * interval '1 ms' FROM generate_series(1, {rows}) number
"""


class PostgresqlLimit(Contender):
    """Two statements a batch of 100: leases on, rows kept."""

    name = "limit"
    title = "hand-written SQL"
    peer = False
    offers = frozenset(
        {
            "drain-1", "drain-2", "enqueue", "enqueue-within", "bulk", "pick-up", "finished",
            "future", "workflows-each",
        }
    )  # fmt: skip
    packages = ("psycopg",)
    imports = "import psycopg"
    pace: ClassVar = {"drain": 20_000}
    unfinished: ClassVar = {
        "postgresql": "SELECT EXISTS (SELECT FROM outbox WHERE status IN (0, 1)"
        " AND available_at <= now())"
    }
    claimed: ClassVar = {"postgresql": "SELECT EXISTS (SELECT FROM outbox WHERE status = 1)"}
    _connection: Any = None

    def open(self) -> None:
        self._connection = self._connect()

    def _connect(self) -> Any:
        import psycopg

        return psycopg.connect(self.database.url, autocommit=True)

    def set_up(self) -> None:
        self._connect().execute(_TABLES)

    def reset(self) -> None:
        self._connection.execute("TRUNCATE outbox, wf_run, wf_step")

    def enqueue_each(self, count: int) -> None:
        for number in range(count):
            body = json.dumps(payload(number))
            self._connection.execute(_INSERT_AND_WAKE, (body,), prepare=True)

    def enqueue_within(self, count: int) -> None:
        for _ in range(count):
            with self._connection.transaction():
                self.enqueue_each(1)

    def enqueue_bulk(self, count: int) -> None:
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            bodies = [json.dumps(payload(number)) for number in numbers]
            self._connection.execute(_INSERT_MANY, (bodies,), prepare=True)

    def worker(self, purpose: Purpose) -> Callable[[], object]:
        connection, listening, token = self._connect(), self._connect(), os.getpid()

        def take() -> int:
            rows = connection.execute(_CLAIM, (token, _BATCH), prepare=True).fetchall()
            for _ in rows:
                counter.tick()
            if rows:
                ids = [row[0] for row in rows]
                connection.execute(_ACKNOWLEDGE, (ids, token), prepare=True)
            return len(rows)

        def work() -> None:
            listening.execute("LISTEN outbox")
            while True:
                while take():
                    pass
                for _ in listening.notifies(timeout=1.0, stop_after=1):
                    pass

        return work

    def fill(self, filling: Filling, rows: int) -> None:
        status, due = (2, "-1 h") if filling == "finished" else (0, "1 d")
        self._connection.execute(_FILL.format(status=status, due=due, rows=rows))

    def run_workflows(self, count: int) -> None:
        """Start, three steps, finish: five commits, each durable before the next."""

        def run(sql: str, *parameters: Any) -> Any:
            return self._connection.execute(sql, parameters, prepare=True)

        for number in range(count):
            body = json.dumps(payload(number))
            inserted = "INSERT INTO wf_run(name, input) VALUES ('three', %s) RETURNING id"
            (run_id,) = run(inserted, body).fetchone()
            for step in range(3):
                run("INSERT INTO wf_step VALUES (%s, %s, 'step', '1')", run_id, step)
            run("UPDATE wf_run SET status = 2, output = '3' WHERE id = %s", run_id)


CONTENDER = PostgresqlLimit
