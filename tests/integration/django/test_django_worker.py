"""A real project's ``manage.py``: migrate, emit, work, stop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import django
import pytest
from warm_forks import Forked
from leases import lapse
from automate_django import emit, get_kernel, signals
from automate_django.connections import freshen
from automate_django.models import OutboxItem, OutboxWorker, WorkflowExecution
from automate_kernel import signals as kernel_signals
from automate_kernel.outbox import NewItem
from automate_kernel.workflows.drive.signal_sender import SignalSender
from django.core.management import CommandError, call_command
from django.db import connections
from shop.models import Message, Order

pytestmark = pytest.mark.slow

ORDER = {"lines": [{"price": 3, "quantity": 4}], "channel_id": "C1"}
PATIENCE_SECONDS = 120.0


def completed() -> int:
    """How many executions are through."""
    return WorkflowExecution.objects.filter(status="COMPLETED").count()


def stopped(worker: Forked) -> str:
    """What a worker has printed that SIGTERM ends with 0."""
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=PATIENCE_SECONDS)
    assert worker.returncode == 0, output
    return output


def test_a_worker_runs_an_order_through_and_stops(
    alias: str, start: Callable[..., Forked], until: Callable[..., None]
) -> None:
    """What was emitted before and while it runs is done once; SIGTERM ends it with 0."""
    emit("order.created", ORDER)
    worker = start("automate_worker", "--concurrency", "4")
    until(lambda: completed() == 1, worker)
    emit("order.created", ORDER, tenant_id="acme")
    until(lambda: completed() == 2, worker)
    output = stopped(worker)
    assert "workflows: order-notify" in output
    assert list(Message.objects.values_list("channel", "text")) == [("C1", "Order total: 12")] * 2
    assert not OutboxItem.objects.exclude(status="COMPLETED").exists()
    assert "tok-51d0" not in output


def test_several_processes_share_the_work(
    alias: str,
    start: Callable[..., Forked],
    until: Callable[..., None],
    tmp_path: Path,
) -> None:
    """One that dies is replaced, what it held is done by another, and SIGTERM ends them all."""
    died = tmp_path / "died"
    get_kernel().outbox.enqueue("shop.die", {"path": str(died)})
    for _ in range(20):
        emit("order.created", ORDER)

    def all_done() -> bool:
        if not (died.exists() and (pid := died.read_text())):
            return False
        lapse(get_kernel(), int(pid))
        # The other one may be through with all of it before anybody sees that this one died.
        working = OutboxWorker.objects.filter(problem=None).exclude(pid=int(pid))
        left = OutboxItem.objects.exclude(status="COMPLETED")
        return working.count() == 2 and not left.exists()

    worker = start("automate_worker", "--processes", "2")
    until(all_done, worker)
    output = stopped(worker)
    assert "started again" in output
    assert completed() == WorkflowExecution.objects.count() == 20
    assert OutboxItem.objects.get(kind="shop.die").attempt_count == 2


@pytest.mark.skipif(django.VERSION < (5, 1), reason="Django has pools since 5.1")
def test_a_pool_as_django_makes_it_is_enough(
    postgresql: str,
    environment: dict[str, str],
    start: Callable[..., Forked],
    until: Callable[..., None],
) -> None:
    """It has four connections, and a worker a dozen threads: none of them keeps one to itself."""
    pytest.importorskip("psycopg_pool")
    environment["SHOP_POOL"] = "yes"
    for _ in range(100):
        emit("order.created", ORDER)
    get_kernel().outbox.enqueue_many(NewItem("shop.count") for _ in range(100))
    worker = start("automate_worker", "--concurrency", "20")
    until(lambda: not OutboxItem.objects.exclude(status="COMPLETED").exists(), worker)
    output = stopped(worker)
    assert "PoolTimeout" not in output
    assert completed() == 100


def test_until_idle_returns(alias: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For cron, tests and the first try: run what is due, and return."""
    emit("order.created", ORDER)
    call_command("automate_worker", "--until-idle")
    assert "completed=" in capsys.readouterr().out
    assert completed() == 1


def test_a_transactional_handler_is_all_or_nothing(alias: str) -> None:
    """What it wrote and that it is finished commit together."""
    outbox = get_kernel().outbox
    good = outbox.enqueue("shop.order", {"number": "good"})
    bad = outbox.enqueue("shop.order", {"number": "bad", "fail": True})
    get_kernel().run_until_idle()
    assert list(Order.objects.values_list("number", flat=True)) == ["good"]
    assert OutboxItem.objects.get(id=good).status == "COMPLETED"
    assert OutboxItem.objects.get(id=bad).status == "FAILED"


def test_wrong_numbers_are_refused(sqlite: str) -> None:
    """Before anything is started."""
    with pytest.raises(CommandError, match="at least 1"):
        call_command("automate_worker", "--processes", "0")


def test_receivers_of_a_worker_have_connections_that_work(postgresql: str) -> None:
    """Their thread lives as long as the worker: a server that restarts costs one signal at most."""
    seen: list[int] = []

    def look(event: str, **_: object) -> None:
        if event == "break":
            connections[postgresql].ensure_connection()
            connections[postgresql].connection.close()
        seen.append(Order.objects.count())
        connections.close_all()

    signals.event_received.connect(look)
    try:
        signal_sender = SignalSender()
        for event in ("break", "look"):
            signal_sender.send(kernel_signals.event_received, get_kernel(), event=event)
        signal_sender.stop(PATIENCE_SECONDS)
    finally:
        signals.event_received.disconnect(look)
    assert seen == [0]


def test_broken_connections_are_replaced_between_calls(postgresql: str) -> None:
    """A handler's own connection is looked after; one that works is kept."""
    connection = connections[postgresql]
    freshen()  # what was idle through the tests before this one is closed here
    connection.ensure_connection()
    kept = connection.connection
    freshen()
    assert connection.connection is kept
    kept.close()
    with pytest.raises(Exception, match="closed"):
        Order.objects.count()
    freshen()
    assert Order.objects.count() == 0
