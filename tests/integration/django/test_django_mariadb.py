"""A project on MariaDB: migrations, an event in the host's transaction, tasks, purging."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from automate_django import emit, get_kernel
from automate_django.checks import check_database
from automate_django.models import AuditEntry, OutboxItem, WorkflowDocument, WorkflowExecution
from automate_django.models import TaskResult as Record
from automate_django.tasks.versions import TaskResultStatus
from django.db import connections, transaction
from django.utils import timezone
from shop import tasks as test_tasks
from shop.models import Message, Order

ORDER = {"lines": [{"price": 3, "quantity": 4}], "channel_id": "C1"}


def test_an_event_commits_with_the_hosts_rows(mariadb: str) -> None:
    """Or is rolled back with them; its workflow runs through."""
    with transaction.atomic(using=mariadb):
        Order.objects.create(number="1", total=12)
        emit("order.created", ORDER)
    with pytest.raises(RuntimeError), transaction.atomic(using=mariadb):
        Order.objects.create(number="2", total=12)
        emit("order.created", ORDER)
        raise RuntimeError
    assert Order.objects.count() == OutboxItem.objects.count() == 1
    get_kernel().run_until_idle()
    execution = WorkflowExecution.objects.get()
    assert (execution.status, execution.steps.count()) == ("COMPLETED", 2)
    assert Message.objects.get().text == "Order total: 12"


def test_names_that_differ_in_case_alone_differ(mariadb: str) -> None:
    """As on every other database, also in what a later migration added."""
    outbox = get_kernel().outbox
    first = outbox.enqueue("job", idempotency_key="a")
    assert outbox.enqueue("job", idempotency_key="A") != first
    outbox.pause("JOB")
    outbox.limit("JOB", concurrency=1)
    assert [item.id for item in outbox.claim_batch("w", limit=1, kinds=["job"])] == [first]


def test_tenants_that_differ_in_case_alone_differ(mariadb: str) -> None:
    """Also in what only the pages have: nobody sees the workflows and audit of another tenant."""
    now = timezone.now()
    WorkflowDocument.objects.create(
        key="a", name="w", tenant_id="acme", created_at=now, updated_at=now
    )
    AuditEntry.objects.create(tenant_id="acme", action="change", model="m", actor="Ann")
    for model in (WorkflowDocument, AuditEntry):
        assert model.objects.filter(tenant_id="acme").count() == 1
        assert model.objects.filter(tenant_id="ACME").count() == 0


def test_a_charset_that_loses_characters_is_told(mariadb: str) -> None:
    """By ``manage.py check``, with what to set; payloads keep theirs with the right one."""
    assert check_database() == []
    options = connections[mariadb].settings_dict["OPTIONS"]
    with patch.dict(options, {"charset": "utf8"}):
        (message,) = check_database()
    assert message.id == "automate.E009"
    assert "utf8mb4" in message.hint
    item_id = get_kernel().outbox.enqueue("job", {"text": "\U0001f40e"})
    assert OutboxItem.objects.get(pk=item_id).payload == {"text": "\U0001f40e"}


def test_the_token_of_each_claim_has_a_place(mariadb: str) -> None:
    """The type UUID of MariaDB refuses some values that are none of a known version."""
    outbox = get_kernel().outbox
    for octet in range(0x80, 0xC0):
        token = f"01a21a82-82fd-79a4-{octet:02x}49-70cece97d790"
        with patch("automate_kernel.outbox.rows_store.new_id", return_value=token):
            outbox.enqueue("job")
            (item,) = outbox.claim_ahead("w")
            outbox.mark_success(item.id, "w")


def test_tasks_with_retries_and_results(mariadb: str) -> None:
    """What they return and what they raise is kept, until it is purged."""
    good, bad = test_tasks.third_time.enqueue(), test_tasks.failing_task_value_error.enqueue()
    get_kernel().run_until_idle()
    good.refresh()
    bad.refresh()
    assert (good.status, good.return_value, good.attempts) == (TaskResultStatus.SUCCESSFUL, 3, 3)
    assert (bad.status, bad.errors[0].exception_class) == (TaskResultStatus.FAILED, ValueError)
    assert get_kernel().purge(older_than_seconds=0) >= 2
    assert not OutboxItem.objects.exists()
    assert not Record.objects.exists()
