"""The seven signals as a Django project knows them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import django
import pytest
from automate_django import emit, get_kernel, signals
from automate_django.signals import workflow_completed
from automate_kernel import signals as kernel_signals
from automate_kernel.base.errors import ConfigError
from automate_kernel.kernel import Kernel
from asgiref.sync import sync_to_async
from django.db import connections, transaction
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
    emit("order.created", {"lines": 7, "channel_id": "C1"})
    get_kernel().run_until_idle()
    assert sent[-3:] == ["step_started", "step_failed", "workflow_failed"]


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
        for _ in range(2000):
            if sent:
                return
            await asyncio.sleep(0.01)

    get_kernel()
    asyncio.run(host())
    assert sent == ["written"]


def test_receivers_see_what_is_committed(alias: str) -> None:
    """The execution is as the signal says, for whoever looks with another connection too."""
    from automate_django.models import WorkflowExecution

    def look(sender: Any, execution: Any, **kwargs: Any) -> None:
        assert not connections[alias].in_atomic_block
        other = connections[alias].copy()
        try:
            with other.cursor() as cursor:
                table = WorkflowExecution._meta.db_table
                cursor.execute(f"SELECT status FROM {table}")
                sent.extend(cursor.fetchall())
        finally:
            other.close()

    workflow_completed.connect(look)
    emit("order.created", ORDER)
    get_kernel().run_until_idle()
    assert sent == [("COMPLETED",)]


def test_a_receivers_database_error_poisons_nothing(alias: str) -> None:
    """One that breaks a constraint has its own transaction to lose, and the next one works."""
    from shop.models import Message, Order

    def breaks(sender: Any, **kwargs: Any) -> None:
        Order.objects.create(number="1", total=1)
        Order.objects.create(number="1", total=1)

    def works(sender: Any, **kwargs: Any) -> None:
        Message.objects.create(channel="C1", text="told")

    for receiver in (breaks, works):
        workflow_completed.connect(receiver)
    emit("order.created", ORDER)
    with transaction.atomic(using=alias):
        kernel_signals.emit(kernel_signals.workflow_completed, get_kernel(), execution=None)
        Message.objects.create(channel="C1", text="ours")
    get_kernel().run_until_idle()
    assert sorted(
        Message.objects.filter(text__in=["ours", "told"]).values_list("text", flat=True)
    ) == [
        "ours",
        "told",
        "told",
    ]
    assert get_kernel().executions.find()[0].status == "COMPLETED"


def test_a_receiver_for_another_sender_hears_nothing(sqlite: str) -> None:
    """The sender is the kernel's class."""

    class Other(Kernel):
        pass

    workflow_completed.connect(note_sender, sender=Other)
    workflow_completed.connect(note_sender, sender=Kernel, dispatch_uid="second")
    emit("order.created", ORDER)
    get_kernel().run_until_idle()
    assert sent == [Kernel]


def note_sender(sender: Any, **kwargs: Any) -> None:
    """A plain receiver."""
    sent.append(sender)


async def asynchronous(sender: Any, **kwargs: Any) -> None:
    """An async receiver."""
    sent.append(sender)


async def asynchronous_and_broken(sender: Any, **kwargs: Any) -> None:
    """An async receiver that raises."""
    raise RuntimeError("broken async receiver")


class Asynchronous:
    """Receivers that are async in other ways."""

    async def method(self, sender: Any, **kwargs: Any) -> None:
        sent.append(sender)

    async def __call__(self, sender: Any, **kwargs: Any) -> None:
        sent.append(sender)


@pytest.mark.parametrize(
    "receiver",
    [
        asynchronous,
        partial(asynchronous),
        Asynchronous().method,
        sync_to_async(note_sender),
        Asynchronous(),
    ],
    ids=["function", "partial", "method", "marked", "callable"],
)
def test_an_async_receiver_runs_or_is_refused(sqlite: str, receiver: Any) -> None:
    """Django 4.2 would connect it and never run it, and no Django awaits what an object gives."""
    if django.VERSION < (5, 0) or type(receiver) is Asynchronous:
        with pytest.raises(ConfigError, match="async def"):
            workflow_completed.connect(receiver)
        assert not workflow_completed.receivers
        return
    workflow_completed.connect(receiver, weak=False)
    emit("order.created", ORDER)
    get_kernel().run_until_idle()
    assert sent == [Kernel]


@pytest.mark.skipif(django.VERSION < (5, 0), reason="Django 4.2 has no async receivers")
def test_a_failing_async_receiver_changes_nothing(
    sqlite: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside plain and async ones, which hear of it all the same."""
    for receiver in (asynchronous_and_broken, asynchronous, note_sender):
        workflow_completed.connect(receiver)
    emit("order.created", ORDER)
    with caplog.at_level(logging.ERROR, "django.dispatch"):
        get_kernel().run_until_idle()
    assert sent == [Kernel, Kernel]
    assert "broken async receiver" in caplog.text
    assert get_kernel().executions.find()[0].status == "COMPLETED"
