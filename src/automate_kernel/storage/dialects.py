"""Dialects: the differences between the databases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """
    The ways in which one database differs from the others.

    It is compared by identity, so that texts of statements are found by it at no cost.
    """

    name: str
    quote: str = '"'
    arrays: bool = False
    """``= ANY(array)``: one statement text, and so one plan, for every number of values."""
    long_list: str = ""
    """
    The list of an IN with ``{}`` in the place of a JSON array that has the values.

    It is one parameter, where a statement takes only so many. Empty where it takes any number.
    """
    returning: bool = True
    """``UPDATE … RETURNING``."""
    skip_locked: bool = False
    row_locks: bool = True
    shares_locks: bool = False
    """``FOR SHARE SKIP LOCKED``, which MariaDB and MySQL write each in a way of its own."""
    sorts_keys: bool = False
    """It gives the keys of a JSON object back in an order of its own: `codec.with_sorted_keys`."""
    conflict: str = " ON CONFLICT DO NOTHING"
    """The clause by which an INSERT skips an existing key and nothing else; empty without one."""
    now: str = ""
    """The server's clock; empty if it has none, so that the process's own must serve."""
    now_plus: str = ""
    casts: Mapping[str, str] = field(default_factory=dict)
    first: str = ""
    """The statement that a transaction of our own begins with."""
    bounds_idle: str = ""
    """
    The statement after which such a transaction ends, once it stands still for a while.

    Empty where that can't be said for one transaction alone.
    """
    waits_briefly: str = ""
    """
    The statement after which the rest of a transaction waits for no lock for more than a moment.

    Empty where that can't be said for one transaction alone.
    """
    bounds_waits: str = ""
    """
    The same with half a minute, unless the connection has a bound already.

    Empty where the database has one of its own: MariaDB and MySQL wait for 50 s, SQLite for what
    the connection says.
    """
    lock_table: tuple[str, ...] = ()
    """
    The statements that keep writers out of a table until the transaction ends, with their patience.

    Empty where an INSERT that skips an existing row locks that row, or the whole file.
    """


DIALECTS: dict[str, Dialect] = {
    "postgresql": Dialect(
        "postgresql",
        arrays=True,
        skip_locked=True,
        shares_locks=True,
        sorts_keys=True,
        now="statement_timestamp()",
        now_plus="statement_timestamp() + {} * interval '1 second'",
        casts={"id": "uuid", "json": "jsonb", "time": "timestamptz", "int": "integer"},
        # A worker that froze in a transaction would keep what it has locked from all others. A
        # bound that the connection has already stays.
        bounds_idle="SELECT set_config('idle_in_transaction_session_timeout', '15s', true)"
        " WHERE current_setting('idle_in_transaction_session_timeout') = '0'",
        waits_briefly="SET LOCAL lock_timeout = '500ms'",
        bounds_waits="SELECT set_config('lock_timeout', '30s', true)"
        " WHERE current_setting('lock_timeout') = '0'",
        # Those who wait to write are held up as well, behind this: so not for long.
        lock_table=(
            "SET LOCAL lock_timeout = '200ms'",
            "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE",
        ),
    ),
    "sqlite": Dialect(
        "sqlite",
        long_list="(SELECT value FROM json_each({}))",
        row_locks=False,
        # A deferred transaction that reads first and writes later fails at once with "database is
        # locked" when another has written in between; one that writes first waits its turn.
        first="UPDATE automate_outbox_pause SET kind = kind WHERE 0",
    ),
    "mysql": Dialect(
        "mysql",
        quote="`",
        returning=False,
        skip_locked=True,
        # IGNORE would hide every other error as well, and ON DUPLICATE KEY UPDATE count what it
        # skips as added (to a client that asks for found rows, as all frameworks do).
        conflict="",
        # The default, REPEATABLE READ, locks gaps (so that claims and enqueueing deadlock), and on
        # MariaDB it refuses a row that another has changed since the transaction's first read.
        first="SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        now="UTC_TIMESTAMP(6)",
        now_plus="UTC_TIMESTAMP(6) + INTERVAL {} * 1000000 MICROSECOND",
    ),
}


Clock = Callable[[], datetime]
"""A function that gives the time, aware and in UTC. Tests inject one to hold the time still."""
