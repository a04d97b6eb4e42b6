"""A store without the operators' part: a queue for workers, and a clear error for the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from automate_cli.app import app
from automate_kernel import AutomateError, ErrorCodes, Kernel, OutboxItem, OutboxStore
from automate_kernel.base.errors import LeaseLostError
from automate_kernel.outbox import ItemStatus, NewItem, OutboxControls, RowsOutboxStore, controls_of
from automate_kernel.storage.memory import MemoryStorage
from automate_testing import FakeClock, OutboxStoreContract
from typer.testing import CliRunner


class QueueAlone(OutboxStore):
    """The abstract methods of a store, passed on to one of the kernel's own."""

    def __init__(self, storage: Any, *, lease_seconds: float = 300.0) -> None:
        self.storage, self.lease_seconds = storage, lease_seconds
        self._inner = RowsOutboxStore(storage, lease_seconds=lease_seconds)

    def enqueue_many(self, items: Iterable[NewItem], *, transaction: Any = None) -> list[str]:
        return self._inner.enqueue_many(self.entering(items), transaction=transaction)

    def claim_batch(
        self, worker_id: str, limit: int = 10, *, kinds: Sequence[str] | None = None
    ) -> list[OutboxItem]:
        return self._inner.claim_batch(worker_id, limit, kinds=kinds)

    def acknowledge(
        self, worker_id: str, outcomes: Sequence[Any], *, transaction: Any = None
    ) -> set[str]:
        return self._inner.acknowledge(worker_id, outcomes, transaction=transaction)

    def extend(self, item_ids: Sequence[str], worker_id: str) -> set[str]:
        return self._inner.extend(item_ids, worker_id)

    def reap(self, limit: int = 500, *, grace_seconds: float = 0.0) -> Any:
        return self._inner.reap(limit, grace_seconds=grace_seconds)

    def find(
        self, *, limit: int = 50, before_id: str | None = None, **matching: Any
    ) -> list[OutboxItem]:
        return self._inner.find(limit=limit, before_id=before_id, **matching)

    def stats(self) -> Any:
        return self._inner.stats()

    def cancel(self, item_ids: Sequence[str]) -> int:
        return self._inner.cancel(item_ids)

    def requeue(self, item_ids: Sequence[str]) -> int:
        return self._inner.requeue(item_ids)

    def pause(self, kind: str, reason: str = "") -> None:
        self._inner.pause(kind, reason)

    def resume(self, kind: str) -> None:
        self._inner.resume(kind)

    def purge(self, *, older_than_seconds: float, limit: int = 1000, **which: Any) -> int:
        return self._inner.purge(older_than_seconds=older_than_seconds, limit=limit, **which)


class TestQueueAlone(OutboxStoreContract):
    """Twelve methods are a whole queue."""

    supports_transactions = supports_reports = supports_retention = False
    supports_failures = supports_begins = False

    @pytest.fixture
    def store(self, clock: FakeClock) -> QueueAlone:
        """Make an empty store."""
        return QueueAlone(MemoryStorage(clock))

    def another(self, store: OutboxStore) -> OutboxStore:
        """Return a second store on the same data."""
        return QueueAlone(store.storage)  # type: ignore[attr-defined]


@pytest.fixture
def kernel(storage: MemoryStorage) -> Iterator[Kernel]:
    """A kernel whose outbox is a queue alone."""
    with Kernel(storage, outbox=QueueAlone(storage)) as kernel:
        yield kernel


def test_the_rows_store_has_both_parts() -> None:
    """What an operator asks for is written once, for our tables."""
    store = RowsOutboxStore(MemoryStorage())
    assert controls_of(store) is store
    assert OutboxControls.__abstractmethods__.isdisjoint(OutboxStore.__abstractmethods__)


def test_who_asks_for_the_operators_part_hears_what_the_store_lacks(kernel: Kernel) -> None:
    """The error names the store, and the remedy."""
    with pytest.raises(AutomateError, match="QueueAlone is a queue alone") as caught:
        controls_of(kernel.outbox)
    assert caught.value.code is ErrorCodes.UNIMPLEMENTED
    assert "OutboxControls" in (caught.value.hint or "")


@pytest.mark.parametrize("command", ["cancel", "requeue"])
def test_commands_by_id_need_no_more_than_a_queue(
    kernel: Kernel, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those by a filter do, and say so."""
    item_id = kernel.outbox.enqueue("note")
    if command == "requeue":
        kernel.outbox.cancel([item_id])
    monkeypatch.setitem(sys.modules, "queue_app", SimpleNamespace(kernel=kernel))  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "automate.toml").write_text('app = "queue_app:kernel"\n')

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["outbox", command, *arguments], prog_name="automate")

    by_id = run(item_id, "--yes")
    assert by_id.exit_code == 0, by_id.output
    found = kernel.outbox.get(item_id)
    assert found is not None and (found.status is ItemStatus.CANCELLED) is (command == "cancel")
    if command == "cancel":
        kernel.outbox.enqueue("note")
    else:
        kernel.outbox.cancel([item_id])
    by_filter = run("--all", "--yes", *(("--status", "CANCELLED") if command == "requeue" else ()))
    assert by_filter.exit_code != 0
    assert "QueueAlone is a queue alone" in by_filter.output


def test_a_worker_runs_its_items(kernel: Kernel) -> None:
    """A handler without a limit needs nothing of the operators' part."""
    done: list[Any] = []
    kernel.handler("note")(lambda item: done.append(item.payload))
    kernel.outbox.enqueue("note", 1)
    kernel.run_until_idle(kinds=["note"])
    assert done == [1]


def test_a_declared_limit_is_refused(kernel: Kernel) -> None:
    """A limit that nobody would keep is an error as the work begins."""
    kernel.handler("note", concurrency=1)(lambda item: None)
    kernel.outbox.enqueue("note")
    with pytest.raises(AutomateError, match="QueueAlone is a queue alone"):
        kernel.run_until_idle(kinds=["note"])


def test_a_lease_is_renewed_alone_and_not_in_a_transaction(kernel: Kernel) -> None:
    """Without transactions to share, nothing can be saved together with a lease."""
    store = kernel.outbox
    store.enqueue("note")
    (item,) = store.claim_batch("me")
    store.renew(item.id, "me")
    store.mark_success(item.id, "me")
    with pytest.raises(LeaseLostError):
        store.renew(item.id, "me")
    refused: list[Callable[[], Any]] = [
        lambda: store.renew(item.id, "me", transaction=object()),
        store.transaction,
    ]
    for call in refused:
        with pytest.raises(AutomateError, match="shares no transactions"):
            call()
