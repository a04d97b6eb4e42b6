"""Our statements on Django's connections: whose transaction they are in, and how they fail."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

import pytest
from logged import logged
from automate_django.outbox import SkipLockedClaimOutboxStore
from automate_django.storage import DjangoStorage
from automate_kernel.base.errors import ConfigError, LeaseLostError, PayloadError, StorageError
from automate_kernel.outbox import ItemStatus, NewItem
from automate_kernel.storage import Rows
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from shop.models import Order
from waiting import at_once


@pytest.fixture
def store(alias: str) -> SkipLockedClaimOutboxStore:
    """The outbox on each database."""
    return SkipLockedClaimOutboxStore()


class Undo(Exception):
    """Rolls a block back."""


def place(alias: str) -> Order:
    """An order, written by the host."""
    return Order.objects.using(alias).create(number="1", total=5)


def test_an_item_commits_with_the_order(alias: str, store: SkipLockedClaimOutboxStore) -> None:
    """What is enqueued in ``atomic()`` exists when the block has ended."""
    with transaction.atomic(using=alias):
        place(alias)
        item_id = store.enqueue("mail", {"to": "ada@example.org", "ünï": ["\u2028", 1.5, None]})
    item = store.get(item_id)
    assert item is not None
    assert item.payload == {"to": "ada@example.org", "ünï": ["\u2028", 1.5, None]}
    assert item.status is ItemStatus.PENDING


def test_an_item_is_rolled_back_with_the_order(
    alias: str, store: SkipLockedClaimOutboxStore
) -> None:
    """What is enqueued in ``atomic()`` never existed if the block fails."""
    with pytest.raises(Undo), transaction.atomic(using=alias):
        place(alias)
        item_id = store.enqueue("mail")
        assert store.get(item_id) is not None  # seen inside
        raise Undo
    assert store.get(item_id) is None
    assert not Order.objects.exists()


def test_an_inner_block_is_rolled_back_alone(alias: str, store: SkipLockedClaimOutboxStore) -> None:
    """An item belongs to the innermost block that it was enqueued in."""
    with transaction.atomic(using=alias):
        kept = store.enqueue("mail")
        with pytest.raises(Undo), transaction.atomic(using=alias):
            dropped = store.enqueue("mail")
            raise Undo
    assert store.get(kept) is not None
    assert store.get(dropped) is None


def test_a_refused_payload_leaves_the_block_usable(
    alias: str, store: SkipLockedClaimOutboxStore
) -> None:
    """What can't be stored is refused before the database hears of it."""
    with transaction.atomic(using=alias):
        with pytest.raises(PayloadError):
            store.enqueue("mail", {"x": float("nan")})
        place(alias)
    assert Order.objects.count() == 1


def test_a_duplicate_key_leaves_the_block_usable(
    alias: str, store: SkipLockedClaimOutboxStore
) -> None:
    """A taken idempotency key is no database error, which would doom the host's transaction."""
    first = store.enqueue("mail", idempotency_key="k")
    with transaction.atomic(using=alias):
        assert store.enqueue("mail", idempotency_key="k") == first
        place(alias)
    assert Order.objects.count() == 1


def test_without_a_block_an_item_is_there_at_once(
    alias: str, store: SkipLockedClaimOutboxStore
) -> None:
    """Outside ``atomic()`` we open a transaction, and close it."""
    item_id = store.enqueue("mail")
    assert not connections[alias].in_atomic_block
    seen: list[Any] = []
    other = threading.Thread(target=lambda: seen.append(_get_and_close(store, item_id, alias)))
    other.start()
    other.join(10)
    assert seen[0].id == item_id


def _get_and_close(store: SkipLockedClaimOutboxStore, item_id: str, alias: str) -> Any:
    try:
        return store.get(item_id)
    finally:
        connections[alias].close()


def test_a_block_of_another_database_is_none_of_ours(
    postgresql: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is sent beside it stays after its rollback, and the log says so, once."""
    store = SkipLockedClaimOutboxStore()
    with transaction.atomic(using=postgresql):
        store.enqueue("inside")
    assert not logged(caplog, "automate_django")
    sent = []
    with pytest.raises(Undo), transaction.atomic(using="default"):
        sent += [store.enqueue("beside"), store.enqueue("beside")]
        raise Undo
    assert all(store.get(item_id) for item_id in sent)
    (told,) = logged(caplog, "automate_django")
    assert "database 'default'" in told
    assert "atomic(using='postgresql')" in told


def test_with_autocommit_off_the_host_commits(
    alias: str, store: SkipLockedClaimOutboxStore
) -> None:
    """A host that manages its transactions by hand does so for our rows too."""
    transaction.set_autocommit(False, using=alias)
    try:
        item_id = store.enqueue("mail")
        transaction.rollback(using=alias)
    finally:
        transaction.set_autocommit(True, using=alias)
    assert store.get(item_id) is None


def test_an_acknowledgement_that_is_rolled_back_can_be_repeated(
    alias: str, store: SkipLockedClaimOutboxStore
) -> None:
    """The lease is forgotten with the commit and not before."""
    item_id = store.enqueue("mail")
    store.claim_batch("w")
    with pytest.raises(Undo), transaction.atomic(using=alias):
        place(alias)
        store.mark_success(item_id, "w")
        raise Undo
    with transaction.atomic(using=alias):
        store.mark_retry(item_id, "w", 0, "AGAIN")
    item = store.get(item_id)
    assert item is not None
    assert item.status is ItemStatus.RETRY
    with pytest.raises(LeaseLostError):
        store.mark_success(item_id, "w")


def test_a_handlers_transaction_is_the_connection(
    alias: str, store: SkipLockedClaimOutboxStore
) -> None:
    """What a transactional handler gets is taken wherever a transaction is asked for."""
    with pytest.raises(Undo), store.transaction() as handle:
        assert handle is connections[alias]
        item_id = store.enqueue("mail", transaction=handle)
        place(alias)
        raise Undo
    assert store.get(item_id) is None
    assert not Order.objects.exists()


def test_what_the_handler_raises_is_not_ours(alias: str) -> None:
    """An error of the host's own query keeps its type."""
    place(alias)
    with pytest.raises(IntegrityError), DjangoStorage().begin():
        place(alias)


@pytest.mark.parametrize(
    ("transaction_", "words"),
    [(object(), "leave it out"), (connection, "no transaction is open")],
    ids=["nonsense", "closed"],
)
def test_what_is_no_transaction_is_refused(sqlite: str, transaction_: Any, words: str) -> None:
    """An item that would commit by itself, or nowhere, is an error."""
    with pytest.raises(StorageError, match=words):
        SkipLockedClaimOutboxStore().enqueue("mail", transaction=transaction_)


def test_a_missing_table_says_what_to_run(sqlite: str) -> None:
    """The commonest failure of all comes with its remedy."""
    with (
        pytest.raises(StorageError, match=r"manage\.py migrate automate_django") as caught,
        DjangoStorage().begin() as rows,
    ):
        rows.native.cursor().execute("ALTER TABLE automate_outbox RENAME TO away")
        rows.select("automate_outbox")
    assert isinstance(caught.value.__cause__, DatabaseError)


def test_a_lost_connection_is_replaced(
    postgresql: str,
) -> None:
    """A worker's thread outlives a restart of the server: one error, then it works again."""
    store = SkipLockedClaimOutboxStore()
    store.enqueue("mail")
    with connections[postgresql].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
    killer = connections[postgresql].copy()
    with killer.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
    killer.close()
    with pytest.raises(StorageError) as caught:
        store.stats()
    assert caught.value.retryable
    assert store.stats().total("PENDING") == 1


def test_naive_times_are_refused(postgresql: str) -> None:
    """Without USE_TZ Django would hand us local times."""
    with override_settings(USE_TZ=False), pytest.raises(ConfigError, match="USE_TZ"):
        SkipLockedClaimOutboxStore().stats()


def test_it_listens_on_postgresql_alone(alias: str) -> None:
    """A commit in one connection wakes another; where that can't be there is nothing to wait for."""
    wakeup = SkipLockedClaimOutboxStore().wakeup()
    if connections[alias].vendor == "sqlite":
        assert wakeup is None
        return
    assert wakeup is not None
    wakeup.expect()
    assert not wakeup.wait(0)
    SkipLockedClaimOutboxStore().enqueue("mail")
    assert wakeup.wait(10)
    wakeup.close()
    assert SkipLockedClaimOutboxStore(DjangoStorage(listen=False)).wakeup() is None


def test_a_block_wakes_workers_after_its_commit(postgresql: str) -> None:
    """A notice in the transaction would hold up every other commit; what is undone wakes nobody."""
    store = SkipLockedClaimOutboxStore()
    wakeup = store.wakeup()
    assert wakeup is not None
    wakeup.expect()
    with pytest.raises(Undo), transaction.atomic(using=postgresql):
        store.enqueue("mail")
        raise Undo
    with transaction.atomic(using=postgresql):
        with pytest.raises(Undo), transaction.atomic(using=postgresql):
            store.enqueue("mail")
            raise Undo
        place(postgresql)
    store.storage.close()
    assert not wakeup.wait(0)
    with CaptureQueriesContext(connections[postgresql]) as queries:
        with transaction.atomic(using=postgresql):
            with transaction.atomic(using=postgresql):
                store.enqueue_many([NewItem("mail"), NewItem("mail")])
            assert not wakeup.wait(0)
        assert wakeup.wait(60)
    assert not [each for each in queries if "notify" in each["sql"].lower()]
    wakeup.close()
    store.storage.close()


def test_asynchronous_code_enqueues(sqlite: str) -> None:
    """``await aenqueue`` works in a running loop, where Django refuses synchronous queries."""
    store = SkipLockedClaimOutboxStore()

    async def view() -> str:
        return await store.aenqueue("mail", {"n": 1}, delay=5)

    item = store.get(asyncio.run(view()))
    assert item is not None
    assert item.waiting_for == "time"


def test_writers_on_sqlite_wait_for_each_other(sqlite: str) -> None:
    """Several threads that enqueue and claim never see "database is locked"."""
    store, errors = SkipLockedClaimOutboxStore(), []

    def work(worker: str) -> None:
        try:
            for _ in range(20):
                store.enqueue("mail")
                for item in store.claim_batch(worker, 5):
                    store.mark_success(item.id, worker)
        except Exception as error:
            errors.append(error)
        finally:
            connections[sqlite].close()

    at_once(*(partial(work, f"w{n}") for n in range(4)))
    assert not errors
    assert store.stats().total("COMPLETED") == 80


def test_an_enqueue_is_one_statement(alias: str, store: SkipLockedClaimOutboxStore) -> None:
    """In the host's transaction an event costs one round trip, and no savepoint."""
    with transaction.atomic(using=alias), CaptureQueriesContext(connections[alias]) as queries:
        store.enqueue("mail")
    assert len(queries) == 1


def test_whoever_watches_statements_sees_ours(
    alias: str, store: SkipLockedClaimOutboxStore
) -> None:
    """They go through Django's cursor then, and values are the same."""
    seen: list[str] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    item_id = store.enqueue("mail.send", {"to": "a@example.org", "n": 1.5})
    alone = store.get(item_id)
    with connections[alias].execute_wrapper(watch):
        assert store.get(item_id) == alone
    assert any("automate_outbox" in sql for sql in seen)


def test_create_tables_runs_the_migrations(sqlite: str) -> None:
    """A script without ``manage.py`` can make the tables."""
    DjangoStorage().create_tables()
    with DjangoStorage().begin() as rows:
        assert _count(rows) == 0


def _count(rows: Rows) -> int:
    return int(rows.count("automate_outbox")[0]["n"])


def test_a_failure_that_the_host_catches_is_told_at_its_commit(postgresql: str) -> None:
    """PostgreSQL keeps nothing of such a block: its end must not look like a success."""
    store, told = SkipLockedClaimOutboxStore(), []
    with connections[postgresql].cursor() as cursor:
        cursor.execute(
            "ALTER TABLE automate_outbox ADD CONSTRAINT refuses"
            " CHECK (payload::text NOT LIKE '%refused%')"
        )
    try:
        with (
            pytest.raises(StorageError, match="nothing of this transaction was kept"),
            transaction.atomic(using=postgresql),
        ):
            transaction.on_commit(lambda: told.append("committed"), using=postgresql)
            place(postgresql)
            with pytest.raises(StorageError, match="refuses"):
                store.enqueue("k", "refused")
        assert Order.objects.count() == 0
        assert told == []
        with transaction.atomic(using=postgresql):
            place(postgresql)
            with pytest.raises(StorageError), transaction.atomic(using=postgresql):
                store.enqueue("k", "refused")
        assert Order.objects.count() == 1
    finally:
        with connections[postgresql].cursor() as cursor:
            cursor.execute("ALTER TABLE automate_outbox DROP CONSTRAINT refuses")
