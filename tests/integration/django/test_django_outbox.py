"""The outbox in a project: stores and the reaper by their names of the specification, and the ORM."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from automate_django import emit, get_kernel
from automate_django.models import OutboxItem, WorkflowExecution
from automate_django.outbox import (
    OptimisticClaimOutboxStore,
    OutboxReaper,
    SkipLockedClaimOutboxStore,
)
from django.core.management import call_command
from django.db.models import F
from workers import handle


def age(seconds: float) -> None:
    """Let time pass for every lease."""
    OutboxItem.objects.update(lease_expires_at=F("lease_expires_at") - timedelta(seconds=seconds))


def test_stuck_items_are_recovered(alias: str) -> None:
    """The reaper counts from the last renewal, and never rescues what is held still."""
    store = OptimisticClaimOutboxStore(lease_seconds=300)
    item_id = store.enqueue("work", "stuck")
    store.claim_batch("worker-1")
    age(500)  # 200 seconds over the lease, 500 since it was renewed
    assert OutboxReaper(stale_threshold_seconds=600).reap_stale_items() == 0
    age(200)
    assert OutboxReaper(stale_threshold_seconds=600).reap_stale_items() == 1
    assert OutboxItem.objects.get(id=item_id).status == "RETRY"


def test_an_execution_fails_with_its_item(sqlite: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An item whose worker died for the last time takes its execution with it."""
    emit("order.created", {"lines": [], "channel_id": "C1"})
    handle(get_kernel(), get_kernel().outbox.claim_batch("worker-1")[0])
    OutboxItem.objects.filter(kind="automate.advance").update(max_attempts=1)
    get_kernel().outbox.claim_batch("worker-1")
    age(700)
    call_command("automate", "outbox", "requeue", "--stale")
    assert capsys.readouterr().out == "1 item recovered\n"
    execution = WorkflowExecution.objects.get()
    assert (execution.workflow, execution.status) == ("order-notify", "FAILED")


@pytest.mark.parametrize("store_class", [SkipLockedClaimOutboxStore, OptimisticClaimOutboxStore])
def test_a_store_by_itself_ends_executions(sqlite: str, store_class: Any) -> None:
    """What a store of the specification's name cancels, fails and requeues, its execution is."""
    emit("order.created", {"lines": [], "channel_id": "C1"})
    handle(get_kernel(), get_kernel().outbox.claim_batch("worker")[0])
    store, item = store_class(), OutboxItem.objects.get(kind="automate.advance")
    assert store.cancel([str(item.pk)]) == 1
    assert WorkflowExecution.objects.get().status == "CANCELLED"
    assert store.requeue([str(item.pk)]) == 1
    assert WorkflowExecution.objects.get().status == "PENDING"
    store.claim_batch("worker")
    store.mark_failed(str(item.pk), "worker", "BAD")
    assert WorkflowExecution.objects.get().status == "FAILED"


def test_the_orm_reads_what_the_store_wrote(alias: str) -> None:
    """Values keep their meaning on the way through the model."""
    store = SkipLockedClaimOutboxStore()
    run_at = datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc)
    payload = {"a": [1, 2.5, None, True, "ü"], "b": {"c": "$secret:X"}}
    item_id = store.enqueue("work", payload, run_at=run_at, headers={"traceparent": "00-1"})
    row = OutboxItem.objects.get(id=item_id)
    assert row.payload == payload
    assert row.headers == {"traceparent": "00-1"}
    assert row.next_attempt_at == run_at
    assert (
        OutboxItem.objects.filter(payload__b__c="$secret:X", next_attempt_at__gt=run_at).count()
        == 0
    )
    assert OutboxItem.objects.filter(payload__b__c="$secret:X", next_attempt_at=run_at).count() == 1
    assert store.get(str(row.pk)) is not None
