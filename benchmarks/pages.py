"""The operators' pages at volume: the time and the statements of each page and each filter."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automate_kernel import Kernel
from automate_kernel.storage.rows import queries
from automate_pages.exchange import PageAnswer, PageRequest, SentFields
from automate_pages.site import Site
from automate_pages.users import User
from benchmarks.databases import Databases
from benchmarks.volume import CAUSES, KINDS, WORKFLOWS, Volume, definition

ALLOWED_MS = 200.0
"""The time of the server in which each page is to be answered, at p95."""
_EVERYBODY = User("person-1", {"admin", "finance"}, None)
_TENANT = User("person-2", {"operator"}, "tenant-3")
_LARGE = User("person-2", {"operator"}, "tenant-0")
_STRANGER = User("stranger", {"viewer"}, None)
_COMMON, _OFTEN, _NEVER_FAILED, _RARE = (WORKFLOWS[n] for n in (0, 1, 2, -1))
_GROUP, _RARE_GROUP = CAUSES[0][1], CAUSES[-1][1]


@dataclass(frozen=True)
class Timed:
    """The milliseconds of one page at p50 and p95, its statements, and its size in bytes."""

    name: str
    p50: float
    p95: float
    statements: int
    size: int

    def __str__(self) -> str:
        late = " ←" if self.p95 > ALLOWED_MS else ""
        return (
            f"{self.p50:8.1f} {self.p95:8.1f} {self.statements:5} {self.size / 1024:7.0f}"
            f"  {self.name}{late}"
        )


@dataclass(frozen=True)
class PageTimes:
    """The times of all pages, the slowest last."""

    pages: list[Timed]

    def __str__(self) -> str:
        lines = [str(each) for each in sorted(self.pages, key=lambda each: each.p95)]
        late = sum(each.p95 > ALLOWED_MS for each in self.pages)
        most = max(each.statements for each in self.pages)
        found = (
            f"{len(lines)} pages and filters, {late} above {ALLOWED_MS:.0f} ms at p95,"
            f" {most} statements at most"
        )
        return "\n".join([" p50 ms   p95 ms stmts      KB  page", *lines, found])


def pages(
    scale: float = 1.0, repetitions: int = 20, server: str | None = None, into: str | None = None
) -> PageTimes:
    """
    Fill a database with a `Volume`, if it isn't filled, and time each page on it.

    *into* is the URL of a database to keep, PostgreSQL's, MariaDB's or SQLite's, as SQLAlchemy
    writes it. Without one a database of *server* is used, which goes afterwards.
    """
    with database(server, into) as url:
        kernel = open_kernel(url)
        volume = Volume(kernel, scale)
        if not volume.filled:
            volume.fill(print)
            settle(kernel)
        return PageTimes([timed(kernel, *case, repetitions) for case in cases(kernel)])


@contextmanager
def database(server: str | None, into: str | None = None) -> Iterator[str]:
    """Give the URL of a database: *into*, or a new one of *server* that goes afterwards."""
    if into is not None:
        yield into
        return
    with tempfile.TemporaryDirectory(prefix="automate-pages-") as folder:
        databases = Databases(Path(folder), server)
        try:
            made, _ = databases.database("postgresql", "pages")
            yield made.url.replace("postgresql:", "postgresql+psycopg:")
        finally:
            databases.close()


def open_kernel(url: str) -> Kernel:
    """Return a kernel on the database at *url*, with the workflows of a `Volume`."""
    import sqlalchemy

    from automate_sqlalchemy import SqlAlchemyStorage

    storage = SqlAlchemyStorage(sqlalchemy.create_engine(url))
    storage.create_tables()
    workflows: list[Any] = [definition(name) for name in WORKFLOWS]
    return Kernel(storage, discover=False, secrets={}, workflows=workflows)


def settle(kernel: Kernel) -> None:
    """Let the database know what its tables hold, as it does by itself in time."""
    import sqlalchemy

    engine = kernel.storage.engine  # type: ignore[attr-defined]
    analyze = {"postgresql": "VACUUM (ANALYZE)", "sqlite": "ANALYZE"}.get(engine.dialect.name)
    if analyze:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sqlalchemy.text(analyze))


def cases(kernel: Kernel) -> Iterator[tuple[str, dict[str, str], User]]:
    """Yield each page and each filter: its path, its query and who looks."""
    for path, query in [*_lists(), *_single(kernel)]:
        yield path, query, _EVERYBODY
    for path in ("", "executions", "workflows", "approvals", "outbox"):
        yield path, {}, _TENANT
        yield path, {}, _LARGE
    yield "approvals", {}, _STRANGER
    for user in (_TENANT, _LARGE):
        for query in (
            {"status": "FAILED"}, {"workflow": _RARE}, {"workflow": _COMMON},
            {"status": "FAILED", "workflow": _NEVER_FAILED}, {"label": "region=west"},
            {"status": "FAILED", "group": _RARE_GROUP}, {"since": "1h"},
        ):  # fmt: skip
            yield "executions", query, user
        yield "outbox", {"status": "FAILED", "group": _RARE_GROUP}, user


def _lists() -> Iterator[tuple[str, dict[str, str]]]:
    for path in ("", "workflows", "approvals", "workers"):
        yield path, {}
    yield "approvals", {"of": "all"}
    statuses = ("FAILED", "RUNNING", "PENDING", "PAUSED", "CANCELLING", "COMPLETED", "CANCELLED")
    failed = {"status": "FAILED"}
    for query in (
        {}, *({"status": status} for status in statuses),
        *({"workflow": name} for name in (_COMMON, _RARE, "none")),
        *({"tenant": name} for name in ("tenant-0", "tenant-3", "none")),
        *({"since": since} for since in ("1h", "24h", "7d", "30d")),
        *({"group": group} for group in (_GROUP, _RARE_GROUP, "none")),
        *({**failed, "group": group} for group in (_GROUP, _RARE_GROUP, "none")),
        *({**failed, "workflow": name} for name in (_COMMON, _NEVER_FAILED, _RARE)),
        *({**failed, "workflow": _OFTEN, "group": group} for group in (_GROUP, _RARE_GROUP)),
        {"status": "CANCELLED", "workflow": _RARE}, {"status": "RUNNING", "workflow": _RARE},
        {**failed, "tenant": "tenant-3"}, {"tenant": "tenant-0", "workflow": _RARE},
        {**failed, "tenant": "tenant-0", "workflow": _RARE}, {**failed, "since": "24h"},
        {"workflow": _RARE, "since": "30d"}, {**failed, "workflow": _NEVER_FAILED, "since": "30d"},
        *({"label": label} for label in (
            "order=500", "500", "region=north", "region=west", "region=none",
            "region=north, order=500", "order=500, region=north", "region=north, region=south",
            "region=north, order=none",
        )),
        {**failed, "label": "region=north"}, {**failed, "label": "region=west"},
        {**failed, "workflow": _NEVER_FAILED, "label": "region=north"},
        {**failed, "workflow": _RARE, "label": "region=north"},
        {"tenant": "tenant-3", "label": "region=north"}, {"q": "500"}, {"q": "no such words"},
        {"q": "KeyError"},
    ):  # fmt: skip
        yield "executions", query
    for query in ({"workflow": _COMMON}, {"workflow": _RARE}, {**failed, "workflow": _COMMON}):
        yield "executions/grid", query
    for query in (
        {}, *({"waiting_for": each} for each in ("worker", "time", "key", "resume")),
        *({"status": each} for each in ("FAILED", "RUNNING", "COMPLETED", "CANCELLED")),
        *({"kind": kind} for kind in (KINDS[0], KINDS[-1], "none")),
        *({"status": each, "kind": KINDS[-1]} for each in ("FAILED", "COMPLETED")),
        *({**failed, "kind": KINDS[0], "group": each} for each in (_GROUP, _RARE_GROUP, "none")),
        {**failed, "group": "none"}, {"group": _RARE_GROUP}, {"label": "order=none"},
        {"waiting_for": "key", "kind": KINDS[-1]}, {"waiting_for": "time", "kind": "none"},
    ):  # fmt: skip
        yield "outbox", query


def _single(kernel: Kernel) -> Iterator[tuple[str, dict[str, str]]]:
    failed = kernel.executions.page(status="FAILED", limit=2).executions
    for each in failed:
        yield f"executions/{each.id}", {}
        yield f"executions/{each.id}/steps/charge/whole", {}
    yield "executions/compare", {"a": failed[0].id, "b": failed[-1].id}
    yield f"workflows/{_COMMON}", {}
    for item in kernel.outbox.page(status="FAILED", limit=1).items:
        yield f"outbox/{item.id}", {}
    for asked in kernel.approvals.pending(limit=1).approvals:
        yield f"approvals/{asked.execution_id}/{asked.step_id}/whole", {}


def timed(
    kernel: Kernel, path: str, query: dict[str, str], user: User, repetitions: int = 20
) -> Timed:
    """Return the times of one page, answered and rendered so many times after a first one."""
    site = Site(kernel)
    request = PageRequest(kernel, user, path, query=SentFields(query.items()))
    who = "" if user is _EVERYBODY else f" ({user.tenant or user.name})"
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    name = f"/{path}{'?' * bool(asked)}{asked}{who}"
    took: list[float] = []
    gc.collect()
    for _ in range(repetitions + 1):
        before, began = queries.count, time.perf_counter()
        answer = site.answer(request)
        if not isinstance(answer, PageAnswer) or answer.status != 200:
            raise RuntimeError(f"{name} is no page: {getattr(answer, 'context', answer)}")
        size = len(site.render(request, answer, csrf="", notice=None))
        took.append((time.perf_counter() - began) * 1000)
        statements = queries.count - before
    p95 = statistics.quantiles(took[1:], n=20, method="inclusive")[-1] if repetitions > 1 else 0.0
    return Timed(name, statistics.median(took[1:]), p95 or took[-1], statements, size)
