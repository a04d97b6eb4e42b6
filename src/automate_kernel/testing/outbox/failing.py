"""What is known of failures, and how items are found by a host's own keys."""

from __future__ import annotations

import pytest

from automate_kernel.errors import PayloadError
from automate_kernel.outbox import ItemStatus, NewItem, OutboxStore, Outcome
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.outbox.hooks import LONG_SECONDS, StoreHooks

__all__ = ["FailureContract", "LabelContract"]

_CHARGE = "KeyError in shop.charge"
_SHIP = "KeyError in shop.ship"


class FailureContract(StoreHooks):
    """Errors of every attempt, and errors in groups."""

    @pytest.fixture(autouse=True)
    def _needs_failures(self) -> None:
        self.need("failures")

    def fail(
        self, store: OutboxStore, item_id: str, *, group: str = _CHARGE, **options: object
    ) -> None:
        """Claim the item and let its attempt fail; it waits for the next one."""
        (item,) = store.claim_batch("worker")
        assert item.id == item_id
        known = {"status": ItemStatus.RETRY, "error_code": "ERROR", "error": "broke", **options}
        outcome = Outcome(item_id, token=item.lease_token, group=group, **known)  # type: ignore[arg-type]
        assert store.acknowledge("worker", [outcome]) == set()

    def test_every_attempt_keeps_its_error(self, store: OutboxStore) -> None:
        """What failed first is known after the last attempt, and after it went well."""
        item_id = store.enqueue("k", max_attempts=3)
        self.fail(store, item_id, error="first", trace="File a")
        self.fail(store, item_id, error="second", group=_SHIP, error_code="UNAVAILABLE")
        first, second = store.failed_attempts(item_id)
        assert (first.attempt, first.error_code, first.error, first.trace, first.error_group) == (
            1, "ERROR", "first", "File a", _CHARGE,
        )  # fmt: skip
        assert (second.attempt, second.error_code, second.error, second.trace) == (
            2, "UNAVAILABLE", "second", None,
        )  # fmt: skip
        assert first.failed_at is not None
        assert self.see(store, item_id).last_error_group == _SHIP
        store.mark_success(self.claim_one(store).id, "worker")
        assert [each.error for each in store.failed_attempts(item_id)] == ["first", "second"]

    def test_an_attempt_told_twice_is_one(self, store: OutboxStore) -> None:
        """A caller who never heard that it was recorded tells it again."""
        item_id = store.enqueue("k")
        item = self.claim_one(store)
        outcome = Outcome(
            item_id, ItemStatus.RETRY, 60.0, "ERROR", "broke", item.lease_token, _CHARGE
        )
        for _ in range(2):
            assert store.acknowledge("worker", [outcome]) == set()
        assert len(store.failed_attempts(item_id)) == 1

    def test_attempts_are_bounded(self, store: OutboxStore) -> None:
        """Of an item that is tried for ever the first attempt is kept, and the latest."""
        item_id = store.enqueue("k", max_attempts=1000)
        for number in range(1, 31):
            self.fail(store, item_id, error=str(number))
        kept = [each.attempt for each in store.failed_attempts(item_id)]
        assert kept[0] == 1
        assert kept[1:] == list(range(31 - len(kept) + 1, 31))
        assert 5 <= len(kept) <= 20

    def test_attempts_of_before_a_requeue_stay(self, store: OutboxStore) -> None:
        """Put back to wait, an item counts from one again, and has not forgotten."""
        item_id = store.enqueue("k", max_attempts=1)
        for _ in range(2):
            self.fail(store, item_id)
            assert store.requeue([item_id]) == 1
        assert [each.attempt for each in store.failed_attempts(item_id)] == [1, 1]

    def test_a_lost_worker_is_an_attempt(self, store: OutboxStore, clock: FakeClock) -> None:
        """An item whose worker died has that as its error."""
        self.need("clock")
        item_id = store.enqueue("k")
        self.claim_one(store)
        self.expire(store, clock)
        (attempt,) = store.failed_attempts(item_id)
        assert (attempt.attempt, attempt.error_code, attempt.error_group) == (
            1, "LEASE_EXPIRED", "LEASE_EXPIRED",
        )  # fmt: skip

    def test_attempts_go_with_their_item(self, store: OutboxStore, clock: FakeClock) -> None:
        """Deleted by hand, purged, or deleted as soon as it is done."""
        self.need("control")
        discarded, done = store.enqueue("k", max_attempts=1), ""
        self.fail(store, discarded)
        assert store.discard([discarded]) == 1
        purged = store.enqueue("k", max_attempts=1)
        self.fail(store, purged)
        if self.supports_clock:
            clock.advance(LONG_SECONDS)
            assert store.purge(older_than_seconds=1) == 1
        if self.supports_retention:
            store = self.kept(store, 0)
            done = store.enqueue("k")
            self.fail(store, done)
            store.mark_success(self.claim_one(store).id, "worker")
        for item_id in filter(None, (discarded, self.supports_clock and purged, done)):
            assert store.failed_attempts(str(item_id)) == []

    def test_unknown_item_has_no_attempts(self, store: OutboxStore) -> None:
        """Whatever its id looks like."""
        for item_id in ("01890000-0000-7000-8000-000000000000", "no id at all", ""):
            assert store.failed_attempts(item_id) == []

    def test_failed_items_in_groups(self, store: OutboxStore) -> None:
        """By kind and place, the largest first, each with its newest item."""
        for number in range(3):
            self.fail(store, store.enqueue("k", max_attempts=1), error=f"charge {number}")
        latest = store.find()[0].id
        self.fail(store, store.enqueue("k", max_attempts=1), group=_SHIP)
        self.fail(store, store.enqueue("j", max_attempts=1, tenant_id="t"), group=_SHIP)
        groups = store.error_groups()
        assert [(each.kind, each.group, each.count) for each in groups] == [
            ("k", _CHARGE, 3), ("j", _SHIP, 1), ("k", _SHIP, 1),
        ]  # fmt: skip
        assert (groups[0].latest_id, groups[0].error) == (latest, "charge 2")
        assert [each.count for each in store.error_groups(kind="k", limit=1)] == [3]
        assert [each.kind for each in store.error_groups(tenant_id="t")] == ["j"]

    def test_an_error_without_a_place_has_its_code(self, store: OutboxStore) -> None:
        """What is marked as failed by hand is in a group too."""
        item_id = store.enqueue("k")
        self.claim_one(store)
        store.mark_failed(item_id, "worker", "REFUSED", "no")
        (group,) = store.error_groups()
        assert (group.group, group.error_code) == ("REFUSED", "REFUSED")

    def test_a_group_is_put_back_alone(self, store: OutboxStore) -> None:
        """Errors of one code and several places are retried, cancelled and discarded apart."""
        self.need("control")
        ids = {}
        for group in (_CHARGE, _SHIP):
            ids[group] = store.enqueue("k", max_attempts=1)
            self.fail(store, ids[group], group=group)
        assert store.requeue_matching(error_group=_CHARGE) == 1
        assert self.statuses(store, [ids[_CHARGE], ids[_SHIP]]) == [
            ItemStatus.PENDING, ItemStatus.FAILED,
        ]  # fmt: skip
        assert store.discard_matching(error_group=_SHIP) == 1
        assert store.get(ids[_SHIP]) is None
        assert store.cancel_matching(error_group=_CHARGE) == 1


class LabelContract(StoreHooks):
    """Keys of the host by which items are found."""

    @pytest.fixture(autouse=True)
    def _needs_labels(self) -> None:
        self.need("labels")

    def test_an_item_is_found_by_its_labels(self, store: OutboxStore) -> None:
        """By name and value, or by the value alone; nothing else is."""
        first = store.enqueue("k", labels={"order": 4711, "customer": "c-9"})
        second = store.enqueue("j", labels={"order": "4711"})
        store.enqueue("k", labels={"order": "471"})
        store.enqueue("k")
        assert [item.id for item in store.labelled("order=4711")] == [second, first]
        assert [item.id for item in store.labelled("4711")] == [second, first]
        assert [item.id for item in store.labelled("c-9")] == [first]
        assert store.labelled("customer=4711") == []
        assert store.labelled("") == []
        assert [item.id for item in store.labelled("4711", kind="k")] == [first]
        assert [item.id for item in store.labelled("4711", limit=1)] == [second]
        assert store.labelled("4711", status=ItemStatus.FAILED) == []
        assert self.see(store, first).labels == {"order": "4711", "customer": "c-9"}
        assert {item.labels.get("order") for item in store.claim_batch("w")} >= {"4711", "471"}

    def test_a_tenant_finds_its_own(self, store: OutboxStore) -> None:
        """The same key of another tenant is another thing."""
        mine = store.enqueue("k", labels={"order": 1}, tenant_id="a")
        store.enqueue("k", labels={"order": 1}, tenant_id="b")
        assert [item.id for item in store.labelled("order=1", tenant_id="a")] == [mine]
        assert len(store.labelled("order=1")) == 2

    def test_what_was_there_already_is_not_labelled_anew(self, store: OutboxStore) -> None:
        """A second item with the same idempotency key changes nothing."""
        first = store.enqueue("k", idempotency_key="x", labels={"order": 1})
        assert store.enqueue("k", idempotency_key="x", labels={"order": 2}) == first
        assert store.labelled("order=2") == []
        assert [item.id for item in store.labelled("order=1")] == [first]

    def test_labels_are_the_transactions(self, store: OutboxStore) -> None:
        """Rolled back, there is nothing to find."""
        self.need("transactions")

        def enqueue_and_fail() -> None:
            with self.transaction(store) as transaction:
                store.enqueue("k", labels={"order": 1}, transaction=transaction)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            enqueue_and_fail()
        assert store.labelled("order=1") == []

    def test_labels_go_with_their_item(self, store: OutboxStore, clock: FakeClock) -> None:
        """Deleted by hand, purged, or deleted as soon as it is done."""
        self.need("control", "clock", "retention")
        for _ in range(2):
            item_id = store.enqueue("k", labels={"order": 1})
            store.cancel([item_id])
        assert store.discard([item_id]) == 1
        clock.advance(LONG_SECONDS)
        assert store.purge(older_than_seconds=1) == 1
        store = self.kept(store, 0)
        for number in range(2):
            store.enqueue("k", number, labels={"order": 1})
        ids = self.claim_ids(store)
        assert store.acknowledge("worker", [Outcome(each) for each in ids]) == set()
        # Of what is new with the same label nothing old is left.
        again = store.enqueue("k", labels={"order": 1})
        assert [item.id for item in store.labelled("order=1", limit=1)] == [again]

    @pytest.mark.parametrize(
        "labels",
        [
            {"": "x"}, {"a b": "x"}, {"a=b": "x"}, {"x" * 65: "x"}, {"order": ""}, {"order": " "},
            {"order": " x"}, {"order": "x" * 201}, {"order": True}, {"order": 1.5},
            {"order": None}, {"order": "a\x00b"}, {"order": "\ud800"}, {1: "x"},
            {str(number): "x" for number in range(11)},
        ],
    )  # fmt: skip
    def test_what_is_no_label_is_refused(self, store: OutboxStore, labels: object) -> None:
        """Before anything is written."""
        with pytest.raises(PayloadError):
            store.enqueue_many([NewItem("k"), NewItem("k", labels=labels)])  # type: ignore[arg-type]
        assert store.find() == []
