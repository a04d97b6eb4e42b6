"""The seven signals as a Django project knows them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import django
import pytest
from automate_django import emit, get_kernel, signals
from automate_django.signals import step_failed, workflow_completed
from automate_kernel import signals as kernel_signals
from automate_kernel.errors import ConfigError
from automate_kernel.kernel import Kernel
from django.db import transaction
from django.dispatch import receiver

ORDER = {"lines": [{"price": 3, "quantity": 4}], "channel_id": "C1"}
sent: list[Any] = []


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """No receivers but the test's own."""
    sent.clear()
    yield
    for name in signals.__all__:
        signal = getattr(signals, name)
        signal.receivers.clear()
        signal.sender_receivers_cache.clear()


def send_notification(owner: Any, text: str) -> None:
    sent.append((owner, text))


def log_to_sentry(error: Exception, extra: dict[str, Any]) -> None:
    sent.append((error, extra))


def test_the_specifications_sample(sqlite: str) -> None:
    """Verbatim, but for the import path."""

    # Connect handler
    @receiver(workflow_completed)
    def on_workflow_complete(sender, execution, **kwargs):  # type: ignore[no-untyped-def]
        send_notification(execution.owner, f"Workflow {execution.name} completed")

    @receiver(step_failed)
    def on_step_failure(sender, step, error, **kwargs):  # type: ignore[no-untyped-def]
        log_to_sentry(error, extra={"step_id": step.id})

    emit("order.created", ORDER, tenant_id="acme")
    get_kernel().run_until_idle()
    assert sent == [("acme", "Workflow order-notify completed")]

    sent.clear()
    emit("order.created", {"lines": [{"price": "x"}], "channel_id": "C1"})
    get_kernel().run_until_idle()
    assert [(type(error).__name__, extra) for error, extra in sent] == [
        ("AutomateError", {"step_id": "calculate"})
    ]


def test_all_seven_arrive_in_order(sqlite: str) -> None:
    """Each kernel signal has its counterpart, with the kernel's class as sender."""
    for name in signals.__all__:

        def note(sender: Any, name: str = name, **kwargs: Any) -> None:
            sent.append(name)

        getattr(signals, name).connect(note, sender=Kernel, weak=False)
    emit("order.created", ORDER)
    get_kernel().run_until_idle()
    assert [name for name in sent if name.startswith(("event", "workflow"))] == [
        "event_received",
        "workflow_started",
        "workflow_completed",
    ]
    assert sent.count("step_started") == sent.count("step_completed") == 2


def test_dispatch_uid_keeps_a_receiver_single(sqlite: str) -> None:
    """A module that is imported twice connects once."""
    for _ in range(2):

        @receiver(workflow_completed, dispatch_uid="note", weak=False)
        def note(sender: Any, **kwargs: Any) -> None:
            sent.append(sender)

    emit("order.created", ORDER)
    get_kernel().run_until_idle()
    assert sent == [Kernel]


def test_a_failing_receiver_changes_nothing(sqlite: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, the next one is called, and the execution is as it was."""

    @receiver(workflow_completed)
    def broken(sender: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken receiver")

    @receiver(workflow_completed)
    def works(sender: Any, execution: Any, **kwargs: Any) -> None:
        sent.append(execution.status)

    emit("order.created", ORDER)
    with caplog.at_level(logging.ERROR, "django.dispatch"):
        get_kernel().run_until_idle()
    assert sent == ["COMPLETED"]
    assert "broken receiver" in caplog.text


def test_in_a_block_receivers_wait_for_the_commit(alias: str) -> None:
    """What is rolled back was never announced."""

    @receiver(workflow_completed)
    def note(sender: Any, execution: Any, **kwargs: Any) -> None:
        sent.append(execution)

    class Undo(Exception):
        pass

    def announce(execution: str) -> None:
        kernel_signals.emit(kernel_signals.workflow_completed, get_kernel(), execution=execution)

    with pytest.raises(Undo), transaction.atomic(using=alias):
        announce("phantom")
        raise Undo
    with transaction.atomic(using=alias):
        announce("real")
        assert not sent
    assert sent == ["real"]


def test_in_a_running_loop_receivers_may_use_the_database(sqlite: str) -> None:
    """A plain receiver is taken off the loop, where Django refuses queries."""
    from shop.models import Message

    @receiver(workflow_completed)
    def note(sender: Any, **kwargs: Any) -> None:
        Message.objects.create(channel="C1", text="done")
        sent.append("written")

    async def host() -> None:
        kernel_signals.emit(kernel_signals.workflow_completed, get_kernel(), execution=None)
        for _ in range(500):
            if sent:
                return
            await asyncio.sleep(0.01)

    get_kernel()
    asyncio.run(host())
    assert sent == ["written"]


async def asynchronous(sender: Any, **kwargs: Any) -> None:
    """An async receiver."""
    sent.append(sender)


def test_an_async_receiver_runs_or_is_refused(sqlite: str) -> None:
    """Django 4.2 would connect it and never run it."""
    if django.VERSION < (5, 0):
        with pytest.raises(ConfigError, match="async def"):
            workflow_completed.connect(asynchronous)
        return
    workflow_completed.connect(asynchronous)
    emit("order.created", ORDER)
    get_kernel().run_until_idle()
    assert sent == [Kernel]
