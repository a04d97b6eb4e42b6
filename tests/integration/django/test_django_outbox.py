"""The outbox in a project: stores and the reaper by their names of the specification, and the ORM."""

from __future__ import annotations

import io
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
from automate_kernel.base.errors import ConfigError
from automate_testing.memory_relay import MemoryRelay, MemoryTopic
from django.core.management import call_command
from django.db import connections, transaction
from django.db.models import F
from django.test import override_settings
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


def test_events_go_out_by_the_relays_of_the_settings(sqlite: str) -> None:
    """What an open transaction emits goes out once it commits, and never if it rolls back."""
    topic = MemoryTopic()
    relays = {"orders": {"to": MemoryRelay(topic), "events": ["order.*"]}}
    with override_settings(AUTOMATE_RELAYS=relays):
        with transaction.atomic():
            emit("order.paid", {"n": 1}, ordering_key="7")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                emit("order.paid", {"n": 2})
                raise ZeroDivisionError
        get_kernel().run_until_idle()
        out = io.StringIO()
        call_command("automate_doctor", stdout=out)
        assert "orders: nothing keeps events" in out.getvalue()
    assert [(event.data, event.partition_key) for event in topic.events] == [({"n": 1}, "7")]
    with (
        override_settings(AUTOMATE_RELAYS={"orders": {"events": ["x"]}}),
        pytest.raises(ConfigError, match="doesn't say where its events go"),
    ):
        get_kernel()


def test_the_emit_function_is_made_by_the_command(postgresql: str) -> None:
    """On tables that Django's migrations have made."""
    call_command("automate", "db", "migrate", "--emit-function", stdout=io.StringIO())
    with connections[postgresql].cursor() as cursor:
        cursor.execute("SELECT automate_emit('order.paid', '{\"n\": 1}', ordering_key => '7')")
        (event_id,) = cursor.fetchone()
    item = get_kernel().outbox.get(str(event_id))
    assert item is not None
    assert (item.payload["payload"], item.ordering_key) == ({"n": 1}, "7")
