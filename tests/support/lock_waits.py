"""Waiting until a transaction is in another one's way, as its database says."""

from __future__ import annotations

import random
import sys
import threading
import time

import sqlalchemy as sa
from waiting import PATIENCE, until

from automate_kernel.storage.rows import Rows

_BEHIND = {
    # Not pg_stat_activity, which stays as it was first seen for as long as a transaction lasts.
    "postgresql": "SELECT count(*) FROM pg_locks WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))",
    "mysql": "SELECT count(*) FROM information_schema.innodb_lock_waits"
    " JOIN information_schema.innodb_trx ON trx_id = blocking_trx_id"
    " WHERE trx_mysql_thread_id = CONNECTION_ID()",
}
# InnoDB shows what the last look saw, be it of an earlier test, to whoever looks again within a
# tenth of a second; at random, so that tests on one server don't keep each other from a new one.
_APART_SECONDS = {"postgresql": (0.02, 0.05), "mysql": (0.12, 0.6)}


def until_awaited(connection: sa.Connection) -> None:
    """Wait until another transaction waits for a lock that the one of *connection* has."""
    name = {"mariadb": "mysql"}.get(connection.dialect.name, connection.dialect.name)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(random.uniform(*_APART_SECONDS[name]))
        if connection.exec_driver_sql(_BEHIND[name]).scalar():
            return
    raise AssertionError("nobody waits")


def until_held_up(thread: threading.Thread, rows: Rows) -> None:
    """Wait until *thread* waits for a lock that the transaction of *rows* has, which has written."""
    if rows.dialect.name in _BEHIND:
        until_awaited(rows.native)
    else:
        # One transaction writes at a time, and the database doesn't tell who is to be the next.
        until(lambda: _wants_to_write(thread))


def _wants_to_write(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        return False
    at = frame.f_globals["__name__"], frame.f_code.co_name
    if at == ("automate_sqlalchemy.storage", "_run"):
        return not frame.f_locals["sql"].startswith("SELECT")
    return at == ("automate_kernel.storage.memory", "begin")
