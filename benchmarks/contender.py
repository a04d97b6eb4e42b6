"""What the benchmark asks of each contender, and what it tells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import quote

Purpose = Literal["drain", "pick-up", "wait", "wait-long", "workflows", "async-steps"]
"""What a worker is started for: each contender then uses the settings that suit it best."""
Filling = Literal["finished", "future"]

BATCH = 1000
"""How many items a producer hands over at once, where the contender takes several."""
WAIT_SECONDS: Mapping[str, float] = {"wait": 0.05, "wait-long": 0.5}
"""For these purposes, how long the handler does nothing."""
STEP_SECONDS = 1.0
"""How long the step of an execution of *async-steps* does nothing."""

_PAD = "x" * 160


def payload(number: int) -> dict[str, Any]:
    """About 200 bytes of JSON."""
    return {"id": number, "event": "order.created", "pad": _PAD}


@dataclass(frozen=True)
class Database:
    """Where a contender keeps its items: a PostgreSQL database of its own, or an SQLite file."""

    kind: Literal["postgresql", "sqlite"]
    name: str
    user: str = ""
    password: str = ""
    host: str = ""
    port: str = ""

    @property
    def url(self) -> str:
        """For libpq, psycopg, asyncpg and, with a driver's name put in, SQLAlchemy."""
        if self.kind == "sqlite":
            return f"sqlite:///{self.name}"
        user = quote(self.user) + (f":{quote(self.password)}" if self.password else "")
        port = f"&port={self.port}" if self.port else ""
        return f"postgresql://{user}@/{self.name}?host={quote(self.host, safe='/')}{port}"


class Contender(Protocol):
    """
    A job queue, as its documentation says that it is used, with the settings that are best for it.

    The handler calls `benchmarks.counter.tick` and does nothing else. Only modules of the standard
    library are imported at the top: the harness reads these classes without the libraries.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    peer: ClassVar[bool] = True
    databases: ClassVar[tuple[str, ...]] = ("postgresql",)
    offers: ClassVar[frozenset[str]]
    """The measures that it takes part in; for anything else it has no interface."""
    variants: ClassVar[tuple[str, ...]] = ()
    """Other settings that are worth a row of their own in the drain with one worker."""
    python: ClassVar[str | None] = None
    """The oldest Python that it runs on, if that is not ours."""
    packages: ClassVar[tuple[str, ...]]
    """The distributions whose versions are noted."""
    imports: ClassVar[str]
    """The statement that a program begins with."""
    bare_imports: ClassVar[str | None] = None
    """What a worker needs at the very least, to compare its memory with."""
    pace: ClassVar[Mapping[str, float]] = {}
    """About how many items a second it manages, per measure, so that each run takes as long."""
    unfinished: ClassVar[Mapping[str, str]]
    """Per database, and for workflows: a query that says whether due work is not finished."""
    claimed: ClassVar[Mapping[str, str]] = {}
    """
    The same, when all was handed to handlers and only their results can be missing.

    For contenders where that is found by an index: it is asked while the clock runs, beside a
    million other rows.
    """

    database: Database
    variant: str

    def __init__(self, database: Database, variant: str = "") -> None:
        self.database, self.variant = database, variant

    def set_up(self) -> None:
        """Make the tables in an empty database."""

    def open(self) -> None:
        """Connect to tables that are there."""

    def reset(self) -> None:
        """Delete all items."""

    def enqueue_each(self, count: int) -> None:
        """Enqueue *count* items, each in a transaction of its own."""

    def enqueue_within(self, count: int) -> None:
        """The same in transactions of the host's own, which would hold its own writes too."""

    def enqueue_bulk(self, count: int) -> None:
        """Enqueue *count* items in the quickest way that is documented."""

    def worker(self, purpose: Purpose) -> Callable[[], object]:
        """Prepare a worker; what is returned works until the process is told to end."""
        ...

    def fill(self, filling: Filling, rows: int) -> None:
        """Add *rows* items that are finished, or due tomorrow, by SQL."""

    def run_workflows(self, count: int) -> None:
        """Run *count* workflows of three steps that do nothing, one after another."""

    def start_workflows(self, count: int) -> None:
        """Have *count* such workflows wait for a worker."""

    def start_async_steps(self, count: int) -> None:
        """Have *count* workflows wait for a worker, each with a step that does nothing for long."""

    def start_elements(self, count: int) -> None:
        """Have one workflow wait for a worker, with a step for each of *count* elements."""
