"""The SQL function automate_emit: what it writes is what Kernel.emit writes, refusals too."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, PayloadError
from automate_kernel.outbox import ItemStatus
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import LABEL, OUTBOX
from automate_sqlalchemy import SqlAlchemyStorage
from automate_testing.memory_relay import MemoryRelay, MemoryTopic


@pytest.fixture
def engine(postgresql_engine: sa.Engine) -> sa.Engine:
    SqlAlchemyStorage(postgresql_engine).migrate(emit_function=True)
    return postgresql_engine


@pytest.fixture
def kernel(engine: sa.Engine) -> Kernel:
    return Kernel(SqlAlchemyStorage(engine), discover=False)


def call(connection: sa.Connection, name: Any, payload: Any = None, **options: Any) -> str:
    """Call the function as a program in another language does."""
    given: dict[str, Any] = {"payload": json.dumps(payload), **options}
    if "labels" in given:
        given["labels"] = json.dumps(given["labels"])
    types = {"payload": "jsonb", "labels": "jsonb", "delay": "interval", "priority": "integer"}
    named = ", ".join(f"{each} => CAST(:{each} AS {types.get(each, 'text')})" for each in given)
    statement = sa.text(f"SELECT automate_emit(:name, {named})")
    return str(connection.execute(statement, {"name": name, **given}).scalar_one())


def emitted(engine: sa.Engine, name: Any, payload: Any = None, **options: Any) -> str:
    with engine.begin() as connection:
        return call(connection, name, payload, **options)


def row(kernel: Kernel, item_id: str) -> dict[str, Any]:
    """Return an item's row without what must differ."""
    with kernel.storage.begin() as rows:
        (found,) = rows.select(OUTBOX, [Where("id", "eq", item_id)])
        labels = rows.select(LABEL, [Where("subject_id", "eq", item_id)], order_by=("name",))
    ahead = (found["created_at"] - found["sort_at"]).total_seconds()
    due = (found["next_attempt_at"] - found["created_at"]).total_seconds()
    times = ("id", "created_at", "updated_at", "sort_at", "next_attempt_at")
    kept = {key: value for key, value in found.items() if key not in times}
    assert kept["payload"].pop("occurred_at").endswith("+00:00")
    told = [(one["name"], one["value"], one["about"], one["tenant_id"]) for one in labels]
    return {**kept, "ahead": ahead, "due": due, "labels": told}


SAME: list[dict[str, Any]] = [
    {},
    {"payload": {"a": [1, 1.5, "ä\u2028☃", None, True, {}]}},
    {"payload": "text", "source": "shop"},
    {"tenant_id": "acme", "ordering_key": "k", "idempotency_key": "i", "labels": {"a": 7, "b": "ä"}},
    {"priority": 5}, {"priority": -3, "tenant_id": "t" * 200},
    {"tenant_id": "ä☃", "ordering_key": "k" * 150},
    {"labels": {str(n): "x" * 200 for n in range(10)}},
    {"payload": json.loads("[" * 100 + "1" + "]" * 100)},
    {"payload": {"n": 10**300, "deep": json.loads("[" * 98 + "]" * 98)}},
]  # fmt: skip


@pytest.mark.parametrize("given", SAME, ids=range(len(SAME)))
def test_a_row_is_that_of_emit(engine: sa.Engine, kernel: Kernel, given: dict[str, Any]) -> None:
    """Column by column, with its labels."""
    ours = kernel.emit("order.paid", **given)
    mine = dict(given)
    if "idempotency_key" in mine:
        kernel.outbox.cancel([ours])
        expected = row(kernel, ours)
        kernel.outbox.purge(older_than_seconds=0)
        expected |= {"status": "PENDING", "waiting_for": "worker", "completed_at": None}
    else:
        expected = row(kernel, ours)
    found = row(kernel, emitted(engine, "order.paid", mine.pop("payload", None), **mine))
    assert found == expected


def test_a_delay_is_that_of_emit(engine: sa.Engine, kernel: Kernel) -> None:
    """By the database's clock, and noted as a delay that was meant."""
    ours = row(kernel, kernel.emit("a", delay=90))
    assert row(kernel, emitted(engine, "a", delay="90 seconds")) == ours


REFUSED: list[dict[str, Any]] = [
    {"name": ""}, {"name": " a"}, {"name": "a\n"}, {"name": "a\x01b"}, {"name": "n" * 201},
    {"tenant_id": ""}, {"tenant_id": "t" * 201}, {"tenant_id": "t" * 190, "ordering_key": "k" * 10},
    {"ordering_key": "k "}, {"idempotency_key": "k" * 256}, {"source": " "},
    {"labels": {"a b": "c"}}, {"labels": {"a": ""}}, {"labels": {"a": "x" * 201}},
    {"labels": {"a": True}}, {"labels": {"a": 1.5}}, {"labels": {"a": ["b"]}},
    {"labels": {str(n): "x" for n in range(11)}},
    {"priority": 40_000}, {"payload": "x" * 1_000_001},
    {"payload": json.loads("[" * 101 + "]" * 101)}, {"payload": 10**400},
]  # fmt: skip


@pytest.mark.parametrize("given", REFUSED, ids=range(len(REFUSED)))
def test_what_emit_refuses_is_refused(
    engine: sa.Engine, kernel: Kernel, given: dict[str, Any]
) -> None:
    """With a reason, and nothing is written."""
    given = {"name": "a", "payload": None, **given}
    with pytest.raises((PayloadError, TypeError)):
        kernel.emit(**given)
    with pytest.raises(DBAPIError) as caught:
        emitted(engine, **given)
    assert caught.value.orig.sqlstate == "22023"  # type: ignore[union-attr]
    assert kernel.outbox.find() == []


def test_random_texts_are_taken_by_both_or_by_neither(engine: sa.Engine, kernel: Kernel) -> None:
    """Names and keys of odd characters, all of one seed."""
    odd = random.Random(7)
    letters = "aZ0 .-_:'\"\\\t\u00a0\u2003ä☃𝄞\u200b"
    for _ in range(150):
        given = {
            each: "".join(odd.choices(letters, k=odd.choice([1, 2, 5, 199, 200, 201])))
            for each in odd.sample(["tenant_id", "ordering_key", "source"], 2)
        }
        outcomes = []
        for emit in (lambda **g: kernel.emit("a", **g), lambda **g: emitted(engine, "a", **g)):
            try:
                emit(**given)
                outcomes.append(True)
            except (PayloadError, DBAPIError):
                outcomes.append(False)
        assert outcomes[0] == outcomes[1], given


def test_an_event_exists_exactly_if_its_transaction_commits(
    engine: sa.Engine, kernel: Kernel
) -> None:
    """By a trigger of the application's own, and it goes out by the relays."""
    topic = MemoryTopic()
    relays = {"out": MemoryRelay(topic)}
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE orders_of_test (id int, state text)"))
        connection.execute(sa.text("""
            CREATE FUNCTION order_changed() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
              PERFORM automate_emit('order.' || NEW.state, to_jsonb(NEW),
                ordering_key => NEW.id::text, labels => jsonb_build_object('order', NEW.id));
              RETURN NEW;
            END $$"""))  # fmt: skip
        connection.execute(sa.text(
            "CREATE TRIGGER t AFTER INSERT OR UPDATE ON orders_of_test"
            " FOR EACH ROW EXECUTE FUNCTION order_changed()"
        ))  # fmt: skip
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO orders_of_test VALUES (7, 'new'), (8, 'new')"))
            connection.execute(sa.text("UPDATE orders_of_test SET state = 'paid' WHERE id = 7"))
        with engine.connect() as connection:
            connection.execute(sa.text("INSERT INTO orders_of_test VALUES (9, 'new')"))
            connection.rollback()
        with Kernel(kernel.storage, discover=False, relays=relays) as worker:
            worker.run_until_idle()
            assert len(worker.labelled("order=7")) == 2
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE orders_of_test"))
            connection.execute(sa.text("DROP FUNCTION order_changed"))
    found = [(event.type, event.data["id"]) for event in topic.events]
    assert sorted(found) == [("order.new", 7), ("order.new", 8), ("order.paid", 7)]
    assert found.index(("order.new", 7)) < found.index(("order.paid", 7))


def test_a_key_that_is_taken_gives_the_first_event(engine: sa.Engine, kernel: Kernel) -> None:
    """Whichever of both ways took it; another tenant's key is another."""
    first = kernel.emit("a", idempotency_key="k", tenant_id="acme")
    assert emitted(engine, "a", idempotency_key="k", tenant_id="acme") == first
    other = emitted(engine, "a", idempotency_key="k")
    assert other != first
    assert kernel.emit("a", idempotency_key="k") == other
    assert len(kernel.outbox.find(status=ItemStatus.PENDING)) == 2


def test_ids_are_in_the_order_of_their_time(engine: sa.Engine, kernel: Kernel) -> None:
    """As the kernel's are, of version 7."""
    with engine.begin() as connection:
        ids = [call(connection, "a") for _ in range(200)]
    assert ids == sorted(ids)
    assert {each[14] for each in ids} == {"7"}
    assert kernel.emit("a") > ids[-1]


def test_a_role_that_may_do_nothing_else_emits(engine: sa.Engine, kernel: Kernel) -> None:
    """With SECURITY DEFINER a role needs no right on the tables, whatever its search path is."""
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE ROLE automate_guest"))
        connection.execute(sa.text("ALTER FUNCTION automate_emit SECURITY DEFINER"))
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("SET LOCAL ROLE automate_guest"))
            assert kernel.outbox.get(call(connection, "a")) is None
            with pytest.raises(DBAPIError):
                connection.execute(sa.text("SELECT * FROM automate_outbox"))
            connection.rollback()
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text("ALTER FUNCTION automate_emit SECURITY INVOKER"))
            connection.execute(sa.text("DROP ROLE automate_guest"))


def test_migrate_makes_it_only_if_it_is_asked_to_and_keeps_it_up(
    postgresql_engine: sa.Engine, sqlite_engine: sa.Engine
) -> None:
    """An older one is exchanged by the next migration."""
    storage = SqlAlchemyStorage(postgresql_engine)
    with postgresql_engine.begin() as connection:
        connection.execute(sa.text("DROP FUNCTION IF EXISTS automate_emit"))
    assert storage.migrate() == []
    assert len(storage.migrate(emit_function=True)) == 1
    assert storage.migrate(emit_function=True) == []
    with postgresql_engine.begin() as connection:
        connection.execute(sa.text(
            "CREATE OR REPLACE FUNCTION automate_emit(name text, payload jsonb DEFAULT 'null',"
            " ordering_key text DEFAULT NULL, idempotency_key text DEFAULT NULL,"
            " tenant_id text DEFAULT NULL, labels jsonb DEFAULT '{}', source text DEFAULT '',"
            " delay interval DEFAULT '0', priority integer DEFAULT 0, wake boolean DEFAULT false)"
            " RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'"
        ))  # fmt: skip
    assert len(storage.migrate()) == 1
    assert storage.migrate() == []
    with pytest.raises(AutomateError, match="of PostgreSQL"):
        SqlAlchemyStorage(sqlite_engine).migrate(emit_function=True)
