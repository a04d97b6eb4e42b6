"""Claiming costs the same whatever else is in the table: read off the plans, not off a clock."""

import json
import re
import threading
from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from database_servers import fresh_database
from waiting import until
from workers import working
from machines import give
from automate_kernel import Kernel
from automate_kernel.outbox import NewItem, Outcome, fair_share, limits, rows_store
from automate_sqlalchemy import (
    OptimisticClaimOutboxStore,
    SkipLockedClaimOutboxStore,
    SqlAlchemyStorage,
)
from automate_sqlalchemy.storage import SqlAlchemyRows

EXTRA = 20_000
READY = 50
DAY = 86_400


def _fill(engine, store, extra=EXTRA):
    """A few ready items behind many that are finished and many that are due tomorrow."""
    store.enqueue_many(NewItem("noop", n) for n in range(extra))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE automate_outbox SET status = 'COMPLETED', waiting_for = NULL,"
            " completed_at = created_at"
        )
    store.enqueue_many(NewItem("noop", n, delay=DAY, priority=n % 100) for n in range(extra))
    store.enqueue_many(NewItem("noop", n) for n in range(READY))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        table = " TABLE automate_outbox" if engine.dialect.name in ("mysql", "mariadb") else ""
        connection.exec_driver_sql("ANALYZE" + table)


@pytest.fixture(scope="module")
def _filled_once(postgresql_server):
    """The name of a database that is filled, and that nobody is connected to."""
    with fresh_database(postgresql_server) as url:
        engine = sa.create_engine(url)
        store = SkipLockedClaimOutboxStore(engine)
        store.storage.create_tables()
        _fill(engine, store)
        engine.dispose()
        yield sa.make_url(url).database


@pytest.fixture
def filled(postgresql_server, _filled_once):
    """An engine on a copy of it."""
    with fresh_database(postgresql_server, template=_filled_once) as url:
        engine = sa.create_engine(url)
        yield engine
        engine.dispose()


def _all_statements(engine, work):
    """What *work* sends, with its parameters."""
    sent = []

    def note(connection, cursor, statement, parameters, context, executemany):
        sent.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    return sent


def _statements(engine, work):
    """What *work* sends about items. Pauses and limits are read once in a while."""
    return [one for one in _all_statements(engine, work) if '"automate_outbox"' in one[0]]


def _nodes(plan):
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _claim(store):
    return store.claim_batch("w", 10, kinds=["noop"])


def _renew_and_finish(store):
    items = _claim(store)
    store.extend([one.id for one in items], "w")
    store.acknowledge("w", [Outcome(one.id, token=one.lease_token) for one in items])


# What workers do all the time, and what people look at who wonder how they are.
ROUTINE = {
    "claim": _claim,
    "finish": _renew_and_finish,
    "look ahead": lambda store: store.next_due_seconds(),
    "reap": lambda store: store.reap(),
    "cancellations": lambda store: store.stop_requests("w"),
    "running": lambda store: store.running(),
    "newest": lambda store: store.find(limit=10),
    "failed": lambda store: store.find(status="FAILED", limit=10),
}


def test_claims_are_few_statements(filled):
    """Under a backlog one: whether tenants have some is asked only once in a while."""
    store = SkipLockedClaimOutboxStore(filled, control_seconds=600)
    first, second, third = (
        [sql for sql, _ in _statements(filled, lambda: _claim(store))] for _ in range(3)
    )
    assert len(first) == 2  # what has become due, and the claim
    assert len(second) == 2  # whether tenants have some, and the claim
    assert len(third) == 1


def test_the_order_in_which_kinds_are_named_costs_nothing(postgresql_engine):
    """A worker's pools take turns: what one order has shown counts for the others."""
    store = SkipLockedClaimOutboxStore(postgresql_engine, control_seconds=600)
    store.storage.create_tables()
    store.enqueue_many(NewItem(kind, n) for kind in ("a", "b") for n in range(READY))
    for _ in range(2):
        store.claim_batch("worker", 2, kinds=["a", "b"])
    claim = partial(store.claim_batch, "worker", 2, kinds=["b", "a"])
    assert len(_statements(postgresql_engine, claim)) == 1


def test_an_item_that_comes_alone_waits_for_no_look_at_pauses_and_limits(
    postgresql_engine, monkeypatch
):
    """They are looked at by the claims that find nothing, before what is known of them is old."""
    clock = SimpleNamespace(now=0.0)
    give(monkeypatch, rows_store, limits, fair_share, monotonic=lambda: clock.now)
    store = SkipLockedClaimOutboxStore(postgresql_engine, control_seconds=10)
    store.storage.create_tables()
    for clock.now in range(1, 100):
        store.enqueue("noop", clock.now)
        claimed = []
        sent = _all_statements(postgresql_engine, lambda: claimed.extend(_claim(store)))
        assert len(claimed) == 1
        if clock.now > 1:
            assert len(sent) == 1
        assert not _claim(store)


@pytest.mark.parametrize("work", ROUTINE.values(), ids=ROUTINE)
def test_postgresql_reads_only_what_it_needs(filled, work):
    """No statement reads the table, or of an index more than about as many rows as it is about."""
    store = SkipLockedClaimOutboxStore(filled)
    # The first claim makes ready what has become due, the next one, under a backlog, does not.
    sent = [one for _ in range(2) for one in _statements(filled, lambda: work(store))]
    assert sent
    for statement, parameters in sent:
        with filled.begin() as connection:
            explained = connection.exec_driver_sql(
                "EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters
            ).scalar()
        document = explained if isinstance(explained, list) else json.loads(explained)
        for node in _nodes(document[0]["Plan"]):
            assert node["Node Type"] != "Seq Scan", document
            assert node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0) <= READY


@pytest.fixture(scope="module")
def _filled_mariadb(mariadb_server):
    """An engine on a database that is filled, with one connection, which counts its own reads."""
    with fresh_database(mariadb_server) as url:
        engine = sa.create_engine(url, pool_size=1, max_overflow=0)
        store = SkipLockedClaimOutboxStore(engine)
        store.storage.create_tables()
        _fill(engine, store, 3_000)
        yield engine
        engine.dispose()


@pytest.mark.parametrize("work", ["claim", "finish", "look ahead", "reap", "failed"])
def test_mariadb_reads_only_what_it_needs(_filled_mariadb, work):
    """It has no partial indexes: the whole ones begin with what tells the rows apart."""
    store = SkipLockedClaimOutboxStore(_filled_mariadb)

    def read():
        with _filled_mariadb.connect() as connection:
            found = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read_%%'")
            return sum(int(value) for _, value in found)

    ROUTINE[work](store)
    before = read()
    ROUTINE[work](store)
    assert 0 < read() - before < 20 * READY


@pytest.mark.parametrize("kinds", [None, ["noop"]])
def test_sqlite_claims_through_the_index_of_ready_items(sqlite_engine, kinds):
    """The partial indexes serve, although SQLite can't match a parameter with their condition."""
    store = OptimisticClaimOutboxStore(sqlite_engine)
    store.storage.create_tables()
    _fill(sqlite_engine, store)
    claims = _statements(sqlite_engine, lambda: store.claim_batch("w", 10, kinds=kinds))
    used = set()
    for statement, parameters in claims:
        with sqlite_engine.connect() as connection:
            plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)
            steps = [row[3] for row in plan]
        assert not any(re.match(r"SCAN automate_outbox($| )(?!.*INDEX)", step) for step in steps)
        used |= {name for step in steps for name in re.findall(r"INDEX (automate_\w+)", step)}
    # In the index of tenants' items it looks whether there are any.
    assert used - {"automate_outbox_shared"} == {"automate_outbox_ready", "automate_outbox_later"}


@pytest.fixture
def read(monkeypatch):
    """What is sent to the database: the number of statements, and of the rows that come back."""
    counted, lock = Counter(), threading.Lock()

    def count(method):
        def run(self, sql, parameters, *, fetch):
            found = method(self, sql, parameters, fetch=fetch)
            with lock:
                counted["statements"] += 1
                counted["rows"] += len(found) if fetch else 0
            return found

        return run

    for kind in (SqlAlchemyRows, *SqlAlchemyRows.__subclasses__()):
        monkeypatch.setattr(kind, "run", count(kind.run))
    return counted


@pytest.mark.parametrize("engine", ["sqlite_engine", "postgresql_engine"])
def test_the_end_of_a_child_costs_the_same_however_many_there_are(request, engine, read):
    """A parent is not read anew, with all its steps, for each sub-workflow that ends."""
    kernel = Kernel(SqlAlchemyStorage(request.getfixturevalue(engine)), discover=False, secrets={})
    child, over = [{"id": "nap", "sleep": 0}], threading.Event()
    kernel.action("over")(over.set)
    each = {
        "id": "each", "for_each": "{{ event.payload }}", "concurrency": 20, "workflow": "child",
    }  # fmt: skip
    for name, steps in (("child", child), ("parent", [each, {"id": "over", "action": "over"}])):
        kernel.add_workflow({"name": name, "trigger": {"type": "manual"}, "steps": steps})

    def cost_of(count):
        with working(kernel, poll_seconds=0.5):
            read.clear()
            one = kernel.start("parent", list(range(count)))
            assert over.wait(120)
            over.clear()
            cost = {name: number / count for name, number in read.items()}
            until(lambda: kernel.executions.get(one).status == "COMPLETED")
        return cost

    # How many children end in one group is the machine's affair, and moves the statements by a
    # third either way: what grows with their number does so each time.
    for _ in range(3):
        few, many = cost_of(300), cost_of(900)
        # Without that, the larger one reads twice as many rows for each of its children.
        grown = {name for name, cost in many.items() if cost >= 1.3 * few[name]}
        if not grown:
            break
    assert not grown, (few, many)
