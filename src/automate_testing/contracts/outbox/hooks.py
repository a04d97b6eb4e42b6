"""The hooks of the contract: a subclass supplies or overrides them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, TypeVar

import pytest

from automate_kernel.base.errors import AutomateError, ErrorCodes, LeaseLostError
from automate_kernel.outbox import OutboxControls, OutboxItem, OutboxStore, Outcome, ReapResult
from automate_testing.clock import FakeClock

# Longer than any backoff that a store may give to an item whose worker died.
LONG_SECONDS = 86_400.0
UNKNOWN_ID = "01890000-0000-7000-8000-000000000000"


StoreT = TypeVar("StoreT", bound=OutboxStore)


class ControlledStore(OutboxStore, OutboxControls):
    """A store with the operators' part, as the tests of that part see it."""


class StoreHooks:
    """The hooks of the contract, and what its groups share."""

    supports_clock = True
    """True if the store reads the fixture `clock`, so that leases can end without waiting."""
    supports_transactions = True
    """True if items can be enqueued and finished in the application's transaction."""
    supports_waiting = True
    """True if competing calls wait for each other; else one may fail and be retryable."""
    supports_ordering_keys = True
    supports_reports = True
    """True if the store keeps the reports of workers."""
    supports_concurrency_keys = True
    supports_waiting_for_slots = True
    """True if calls that compete for a concurrency key wait, as with `supports_waiting`."""
    supports_controls = False
    """True if it has the operators' part: `OutboxControlsContract` says so."""
    supports_retention = True
    """True if it deletes finished items by itself after their time."""
    supports_failures = True
    """True if it keeps the error of every attempt, and groups errors."""
    supports_labels = True
    """True if items are found by labels."""
    supports_sharing = True
    """True if a claim is shared among kinds and tenants."""
    supports_ageing = True
    """True if an old item goes before a new one of higher priority in the end."""

    supports_begins = True
    """True if what is claimed ahead gets its attempt back unless it began."""

    _needs: ClassVar[tuple[str, ...]] = ()
    """The features that all tests of a part of the contract need, for it alone."""

    @pytest.fixture(autouse=True)
    def _skip_what_is_not_supported(self, request: pytest.FixtureRequest) -> None:
        for part in type(self).__mro__:
            if request.function.__name__ in vars(part):
                self.need(*vars(part).get("_needs", ()))

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Make the clock of the store."""
        return FakeClock()

    @pytest.fixture
    def time(self, clock: FakeClock) -> FakeClock:
        """Return the clock to a test that moves it, which is skipped unless the store reads it."""
        self.need("clock")
        return clock

    @pytest.fixture
    def store(self, clock: FakeClock) -> OutboxStore:
        """Make an empty store."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture 'store'")

    def kept(
        self, store: StoreT, seconds: float | None, failed_seconds: float | None = None
    ) -> StoreT:
        """Return a store on the same data that keeps finished items for *seconds*."""
        store.retention_seconds = seconds
        store.failed_retention_seconds = failed_seconds
        return store

    def another(self, store: OutboxStore) -> OutboxStore:
        """Return a second store on the same data, as another process would have it."""
        pytest.skip(f"{type(self).__name__} has no second store")

    def transaction(self, store: OutboxStore) -> AbstractContextManager[Any]:
        """Begin an application's transaction, which rolls back if the block raises."""
        return store.transaction()

    @contextmanager
    def rolled_back(self, store: OutboxStore) -> Iterator[Any]:
        """Begin an application's transaction that fails at its end."""
        self.need("transactions")
        with pytest.raises(ZeroDivisionError), self.transaction(store) as transaction:
            yield transaction
            raise ZeroDivisionError

    # -- shared by the groups ----------------------------------------------------------------

    def need(self, *features: str) -> None:
        """Skip the test unless all *features* are supported."""
        for feature in features:
            if not getattr(self, f"supports_{feature}"):
                pytest.skip(f"{type(self).__name__} doesn't support {feature}")

    def claimed(self, store: OutboxStore, worker_id: str = "worker", **options: Any) -> OutboxItem:
        """Enqueue an item, and claim it: no other is due."""
        store.enqueue("k", **options)
        return self.claim_one(store, worker_id)

    def claim_one(self, store: OutboxStore, worker_id: str = "worker") -> OutboxItem:
        """Claim the one item that is due."""
        (item,) = store.claim_batch(worker_id)
        return item

    def claim_ids(self, store: OutboxStore, worker: str = "worker", limit: int = 10) -> list[str]:
        """Claim items and return their ids, in order."""
        return [item.id for item in store.claim_batch(worker, limit)]

    def claim_all(self, store: OutboxStore, worker_id: str = "worker") -> list[str]:
        """Claim until there is nothing left to claim, and return the ids, in order."""
        ids: list[str] = []
        while claimed := self.claim_ids(store, worker_id):
            ids += claimed
        return ids

    def take_turns(self, store: OutboxStore, *item_ids: str) -> None:
        """Claim and finish the items one by one: in its turn, no other is due."""
        for item_id in item_ids:
            assert self.claim_all(store) == [item_id]
            store.mark_success(item_id, "worker")

    def lapse(self, store: OutboxStore, time: FakeClock) -> ReapResult:
        """End all leases, and recover their items."""
        time.advance(store.lease_seconds + 1)
        return store.reap()

    def expire(self, store: OutboxStore, time: FakeClock) -> None:
        """End all leases, recover their items and let them become due."""
        self.lapse(store, time)
        time.advance(LONG_SECONDS)

    def late_and_right(self, store: OutboxStore, time: FakeClock) -> list[Outcome]:
        """Claim an item, lose it and get it again; return the outcomes of both claims."""
        late = self.claim_one(store)
        self.expire(store, time)
        return self.successes([late, self.claim_one(store)])

    def successes(self, claimed: Iterable[OutboxItem]) -> list[Outcome]:
        """Return the outcomes by which the *claimed* items are finished."""
        return [Outcome(item.id, token=item.lease_token) for item in claimed]

    def invalid(self, call: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Require that the *call* is refused for its arguments."""
        with pytest.raises(AutomateError) as caught:
            call(*arguments, **options)
        assert caught.value.code == ErrorCodes.INVALID_ARGUMENT

    def loses(self, call: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Require that the *call* is refused, since the worker has not got the item."""
        with pytest.raises(LeaseLostError):
            call(*arguments, **options)

    def see(self, store: OutboxStore, item_id: str) -> OutboxItem:
        """Return the item with this id, which must exist."""
        item = store.get(item_id)
        assert item is not None
        return item

    def statuses(self, store: OutboxStore, item_ids: Iterable[str]) -> list[str]:
        """Return the states of these items."""
        return [str(self.see(store, item_id).status) for item_id in item_ids]
