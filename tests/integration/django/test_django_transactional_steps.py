"""Transactional steps in Django: the ORM writes in the transaction that saves the step."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import PATIENCE, until
from automate_django import get_kernel
from automate_kernel.operations.context import Call
from automate_kernel.workflows.execution import ExecutionStatus
from django.db import IntegrityError, connections, transaction
from shop.models import Order

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def working(kernel: Any) -> Iterator[Any]:
    worker = kernel.worker(poll_seconds=0.02, grace_seconds=5.0)

    def work() -> None:
        try:
            worker.run()
        finally:
            connections.close_all()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def kernel(alias: str) -> Any:
    kernel = get_kernel()

    @kernel.action("shop.book", transactional=True)
    def book(number: str, call: Call) -> str:
        assert call.transaction.in_atomic_block
        Order.objects.create(number=number, total=1)
        if number == "bad":
            raise ValueError
        if number == "twice":
            with contextlib.suppress(IntegrityError), transaction.atomic(using=alias):
                Order.objects.create(number=number, total=1)
        return number

    kernel.add_workflow(
        {
            "name": "booking",
            "trigger": {"type": "manual"},
            "steps": [
                {
                    "id": "each",
                    "action": "shop.book",
                    "for_each": "{{ event.payload.numbers }}",
                    "concurrency": 3,
                    "input": {"number": "{{ item }}"},
                }
            ],
        }
    )
    return kernel


@pytest.mark.parametrize("how", ["inline", "worker"])
def test_orders_are_there_exactly_if_their_steps_are(kernel: Any, how: str) -> None:
    good = [*(f"n{n}" for n in range(9)), "twice"]
    started = [kernel.start("booking", {"numbers": numbers}) for numbers in (good, ["bad"])]
    if how == "inline":
        kernel.run_until_idle()
    else:
        with working(kernel):
            until(lambda: all(kernel.executions.get(one).status.finished for one in started))
    done, failed = (kernel.executions.get(one) for one in started)
    assert (done.status, failed.status) == (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED)
    assert sorted(Order.objects.values_list("number", flat=True)) == good
    assert [done.step("each", n).output for n in range(10)] == good


@pytest.mark.parametrize("how", ["inline", "worker"])
@pytest.mark.parametrize("cleans_up", [False, True])
def test_a_step_may_not_cancel_its_own_execution(alias: str, cleans_up: bool, how: str) -> None:
    """It joins the step's transaction, in which there is nothing left to save the step in."""
    kernel = get_kernel()

    @kernel.action("shop.stop", transactional=True)
    def stop(call: Call) -> None:
        Order.objects.create(number="stopped", total=1)
        assert kernel.executions.cancel(str(call.execution_id))

    @kernel.action("shop.tidy")
    def tidy() -> None:
        pass

    more = {"finally": [{"id": "tidy", "action": "shop.tidy"}]} if cleans_up else {}
    steps = [{"id": "stop", "action": "shop.stop"}]
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps, **more})
    if how == "inline":
        one = kernel.run("w").id
    else:
        with working(kernel):
            one = kernel.start("w")
            until(lambda: kernel.executions.get(one).status.finished)
    execution = kernel.executions.get(one)
    if cleans_up:
        # It is CANCELLED once it has cleaned up: the step is saved before that.
        assert execution.status is ExecutionStatus.CANCELLED
        assert Order.objects.count() == 1
    else:
        assert execution.status is ExecutionStatus.FAILED
        assert "ended its own execution" in execution.error
        assert Order.objects.count() == 0
