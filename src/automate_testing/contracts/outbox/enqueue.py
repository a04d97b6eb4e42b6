"""Promises 1 and 10: an item exists exactly if the transaction committed, or an error."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from automate_kernel.base.errors import PayloadError
from automate_kernel.outbox import ItemStatus, NewItem, OutboxStore
from automate_testing.contracts.outbox.hooks import StoreHooks
from automate_testing.contracts.values import (
    KEPT,
    REFUSED,
    each_case,
    each_value,
    is_json,
    nested,
    same,
)

_PLAIN: list[Any] = [None, True, 0, -0.125, "", {}, []]
PAYLOADS: dict[str, Any] = {
    **{repr(value): value for value in _PLAIN},
    "big integer": 2**70,
    "unicode": "žluťoučký 🐎 \u202e \u0001",
    "markup": "%s ? $1 :name {0} \"quoted\" 'quoted' \\ \n\t",
    "an escaped NUL": "\\u0000",
    "nested": {"lines": [{"sku": "A", "price": 9.5}, None, [True, {"": "empty key"}]]},
    "NUL-like key": {"\\u0000": 1},
    "deep": {"a": [[[[[[[[[[[[[[[[[[[["twenty levels down"]]]]]]]]]]]]]]]]]]]]},
    **KEPT,
}

_CIRCULAR: list[Any] = []
_CIRCULAR.append(_CIRCULAR)
UNSTORABLE: dict[str, Any] = {
    "NUL": "a\x00b",
    "NUL in a key": {"a\x00": 1},
    "NUL after a backslash": "\\\x00",
    "lone surrogate": {"text": "\ud83d"},
    "lone surrogate in a key": {"\udc00": 1},
    "over-long": "x" * 1_100_000,
    "over-long once encoded": "\u20ac" * 400_000,
    "circular": _CIRCULAR,
    "too deep to write": nested(100_000),
    "too deep to read": nested(900),
    "an object": {"when": object()},
    "a date": [datetime(2026, 1, 1, tzinfo=timezone.utc)],
    **REFUSED,
}

# What each option can't be, alone and beside others.
_NO_OPTION: dict[str, list[Any]] = {
    "kind": ["", " ", 1, "mail ", "k" * 201, "a\x00"],
    "idempotency_key": ["", " \t", "key ", 7, "k" * 256, "\ud800"],
    "ordering_key": ["", "k" * 201],
    "tenant_id": ["", "\x00"],
    "headers": [{1: "a"}, ["a"], {"trace": b"00"}],
    "delay": [-1, "5", float("nan"), float("inf"), 1e15],
    "priority": ["1", True, 1_000_000],
    "max_attempts": [1.5, 0, 2**31],
    "run_at": [datetime(2026, 1, 1)],  # noqa: DTZ001 - the very thing
}
BAD_OPTIONS: list[dict[str, Any]] = [
    *({name: value} for name, values in _NO_OPTION.items() for value in values),
    {"concurrency_key": " ", "concurrency_limit": 1},
    {"idempotency_key": "k" * 250, "tenant_id": "too long beside the tenant"},
    {"run_at": datetime.max.replace(tzinfo=timezone.utc), "priority": -9},
    {"run_at": datetime.min.replace(tzinfo=timezone.utc), "priority": 9},
    {"run_at": datetime(2030, 1, 1, tzinfo=timezone.utc), "delay": 5},
]


class EnqueueContract(StoreHooks):
    """Tests of how items are enqueued, and of what is refused."""

    def payloads(self, store: OutboxStore) -> list[Any]:
        """Return the payloads of all items, the newest first."""
        return [item.payload for item in store.find(limit=1000)]

    def test_new_item_is_kept_as_given(self, store: OutboxStore) -> None:
        """All options come back, and the item waits with no attempt spent."""
        item_id = store.enqueue(
            "mail.send",
            {"to": "a@example.org"},
            priority=3,
            max_attempts=7,
            idempotency_key="order-1",
            tenant_id="acme",
            ordering_key="customer-1",
            headers={"traceparent": "00-ab-cd-01"},
        )
        item = self.see(store, item_id)
        assert (item.id, item.kind, item.payload) == (item_id, "mail.send", {"to": "a@example.org"})
        assert (item.priority, item.max_attempts, item.attempt_count) == (3, 7, 0)
        assert (item.idempotency_key, item.tenant_id) == ("order-1", "acme")
        assert (item.ordering_key, item.headers) == ("customer-1", {"traceparent": "00-ab-cd-01"})
        assert item.status is ItemStatus.PENDING
        assert (item.lease_owner, item.lease_token, item.lease_expires_at) == (None, None, None)
        assert (item.last_error, item.completed_at) == (None, None)
        assert item.created_at.utcoffset() == timedelta(0)

    def test_any_json_comes_back_equal(self, store: OutboxStore) -> None:
        """A payload comes back the same to a reader and to a worker."""

        def check(payload: Any) -> None:
            item_id = store.enqueue("k", payload)
            assert same(self.see(store, item_id).payload, payload)
            assert same(self.claim_one(store).payload, payload)

        each_case(PAYLOADS, check)

    def test_every_value_comes_back_or_is_refused(self, store: OutboxStore) -> None:
        """JSON comes back equal and of the same types; all else is refused, and nothing written."""
        stored: set[str] = set()

        def check(value: Any) -> None:
            if is_json(value):
                stored.add(item_id := store.enqueue("k", value))
                assert same(self.see(store, item_id).payload, value)
                return
            with pytest.raises(PayloadError) as caught:
                store.enqueue("k", value)
            assert "payload" in str(caught.value)
            assert caught.value.hint

        each_value(check)
        assert {item.id for item in store.find(limit=1000)} == stored

    def test_values_come_back_from_a_batch(self, store: OutboxStore) -> None:
        """A batch, which may take another path, keeps each value."""
        values = [*PAYLOADS.values()] * 3
        ids = store.enqueue_many(NewItem("k", value) for value in values)
        found = {item.id: item.payload for item in store.find(limit=1000)}
        for item_id, value in zip(ids, values, strict=True):
            assert same(found[item_id], value)

    def test_many_come_back_in_order(self, store: OutboxStore) -> None:
        """The ids of many items are in the order of the items."""
        ids = store.enqueue_many(NewItem("k", number) for number in range(250))
        assert len(set(ids)) == 250
        found = [self.see(store, item_id).payload for item_id in ids[::50]]
        assert found == [0, 50, 100, 150, 200]

    def test_none_is_no_error(self, store: OutboxStore) -> None:
        """Enqueueing nothing does nothing."""
        assert store.enqueue_many([]) == []

    def test_commit_makes_the_item_exist(self, store: OutboxStore) -> None:
        """An item that is enqueued in the application's transaction is there after its commit."""
        self.need("transactions")
        with self.transaction(store) as transaction:
            item_id = store.enqueue("k", 1, transaction=transaction)
        assert self.see(store, item_id).payload == 1

    def test_rollback_leaves_no_item(self, store: OutboxStore) -> None:
        """An item of a transaction that rolls back never existed."""
        with self.rolled_back(store) as transaction:
            item_id = store.enqueue("k", 1, transaction=transaction, idempotency_key="key")
        assert store.get(item_id) is None
        assert store.claim_batch("worker") == []
        assert store.enqueue("k", 2, idempotency_key="key") != item_id

    def test_taken_idempotency_key_gives_the_first_item(self, store: OutboxStore) -> None:
        """The second item with a key is not added, and its caller gets the first one's id."""
        first = store.enqueue("k", "first", idempotency_key="key")
        assert store.enqueue("k", "second", idempotency_key="key") == first
        assert [item.payload for item in store.find()] == ["first"]

    def test_taken_idempotency_key_leaves_the_transaction_usable(self, store: OutboxStore) -> None:
        """A duplicate is no error of the application's transaction, which goes on."""
        self.need("transactions")
        first = store.enqueue("k", "first", idempotency_key="key")
        with self.transaction(store) as transaction:
            again = store.enqueue("k", "second", idempotency_key="key", transaction=transaction)
            other = store.enqueue("k", "other", transaction=transaction)
        assert again == first
        assert {item.id for item in store.find()} == {first, other}

    def test_idempotency_key_within_one_batch(self, store: OutboxStore) -> None:
        """If a batch has several items with one key, the first is added."""
        new = [NewItem("k", n, idempotency_key=key) for n, key in enumerate(["a", None, "a", "b"])]
        first, plain, again, other = store.enqueue_many(new)
        assert (again, len({first, plain, other})) == (first, 3)
        assert sorted(item.payload for item in store.find()) == [0, 1, 3]

    def test_idempotency_keys_are_compared_exactly(self, store: OutboxStore) -> None:
        """Keys that differ in case or accents are different."""
        keys = ["key", "KEY", "kéy"]
        ids = [store.enqueue("k", key, idempotency_key=key) for key in keys]
        assert [self.see(store, item_id).payload for item_id in ids] == keys

    def test_idempotency_key_outlives_the_work(self, store: OutboxStore) -> None:
        """A key stays taken while its item runs, and when it is finished or cancelled."""
        first = store.enqueue("k", idempotency_key="key")
        assert store.cancel([first]) == 1
        assert store.enqueue("k", idempotency_key="key") == first
        done = store.enqueue("k", idempotency_key="done")
        self.claim_one(store)
        assert store.enqueue("k", idempotency_key="done") == done
        store.mark_success(done, "worker")
        assert store.enqueue("k", idempotency_key="done") == done
        assert store.claim_batch("worker") == []

    def test_asynchronous_enqueue(self, store: OutboxStore) -> None:
        """`aenqueue` and `aenqueue_many` do what their synchronous twins do."""

        async def enqueue() -> list[str]:
            first = await store.aenqueue("k", 1, idempotency_key="key")
            return [first, *await store.aenqueue_many([NewItem("k", 2, idempotency_key="key")])]

        first, again = asyncio.run(enqueue())
        assert (first, self.see(store, first).payload) == (again, 1)

    def test_unstorable_payload_is_refused(self, store: OutboxStore) -> None:
        """An unstorable payload raises `PayloadError`, whose text doesn't repeat it."""

        def check(payload: Any) -> None:
            with pytest.raises(PayloadError) as caught:
                store.enqueue("k", payload)
            assert len(str(caught.value)) < 500

        each_case(UNSTORABLE, check)
        assert store.find() == []

    def test_refusal_leaves_the_transaction_usable(self, store: OutboxStore) -> None:
        """The caller's transaction goes on, and holds what else was written in it."""
        self.need("transactions")

        def check(payload: Any) -> None:
            there = self.payloads(store)
            with self.transaction(store) as transaction:
                store.enqueue("k", "before", transaction=transaction)
                with pytest.raises(PayloadError):
                    store.enqueue("k", payload, transaction=transaction)
                store.enqueue("k", "after", transaction=transaction)
            assert self.payloads(store) == ["after", "before", *there]

        each_case(UNSTORABLE, check)

    def test_bad_option_is_refused(self, store: OutboxStore) -> None:
        """An option that can't be stored raises `PayloadError`; the transaction goes on."""

        def check(bad: dict[str, Any]) -> None:
            there = self.payloads(store)
            options = {"kind": "k", **bad}
            with pytest.raises(PayloadError):
                store.enqueue(**options)
            if self.supports_transactions:
                with self.transaction(store) as transaction:
                    with pytest.raises(PayloadError):
                        store.enqueue(**options, transaction=transaction)
                    store.enqueue("k", "good", transaction=transaction)
                there.append("good")
            assert self.payloads(store) == there

        each_case(BAD_OPTIONS, check)

    def test_one_bad_item_refuses_the_batch(self, store: OutboxStore) -> None:
        """A batch is accepted as a whole or not at all."""
        with pytest.raises(PayloadError):
            store.enqueue_many([NewItem("k", 1), NewItem("k", float("nan")), NewItem("k", 2)])
        assert store.find() == []
