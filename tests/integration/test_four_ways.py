"""One workflow in YAML, in JSON, in Python's model and in code: the same steps and outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from automate_kernel import (
    AutomateError,
    ErrorCodes,
    Execution,
    Kernel,
    Step,
    Workflow,
    WorkflowContext,
)
from automate_kernel.workflows import EventTrigger, RetryPolicy, loads
from automate_kernel.workflows.definition.waits import WaitFor
from pydantic import BaseModel

YAML = """\
name: fulfil
trigger: {type: event, event: order.created}
steps:
  - id: reserve
    action: reserve
    input: {lines: "{{ event.payload.lines }}"}
  - id: price
    action: price
    needs: []
    input: {lines: "{{ event.payload.lines }}"}
  - id: paid
    wait_for: {event: order.paid, match: {order: "{{ event.payload.id }}"}, timeout: 2d}
    needs: [reserve, price]
  - id: send
    action: send
    input:
      order: "{{ event.payload.id }}"
      reserved: "{{ steps.reserve.output }}"
      amount: "{{ steps.paid.output.payload.amount }}"
    retry: {attempts: 3, backoff: fixed, delay: 0, jitter: false}
output: {sent: "{{ steps.send.output }}", price: "{{ steps.price.output }}"}
"""
AGAIN = RetryPolicy(attempts=3, backoff="fixed", delay=0, jitter=False)
PAYLOAD = {"id": 7, "lines": ["a", "b"]}


class Order(BaseModel):
    """The order of the event."""

    id: int
    lines: list[str]


class Shop:
    """The actions, and the calls of them."""

    def __init__(self, kernel: Kernel, failures: int) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.failures = failures
        kernel.action(self.reserve)
        kernel.action(self.price)
        kernel.action(self.send)

    def reserve(self, lines: list[str]) -> str:
        self.calls.append(("reserve", lines))
        return "-".join(lines)

    def price(self, lines: list[str]) -> float:
        self.calls.append(("price", lines))
        return 1.5 * len(lines)

    def send(self, order: int, reserved: str, amount: int) -> dict[str, Any]:
        self.calls.append(("send", (order, reserved, amount)))
        if len([name for name, _ in self.calls if name == "send"]) <= self.failures:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "the post is closed")
        return {"order": order, "reserved": reserved, "amount": amount}


def in_yaml(kernel: Kernel, shop: Shop) -> None:
    kernel.add_workflow(loads(YAML))


def in_json(kernel: Kernel, shop: Shop) -> None:
    text = json.dumps(loads(YAML).to_dict())
    kernel.add_workflow(loads(text, "json"))


def in_the_model(kernel: Kernel, shop: Shop) -> None:
    kernel.add_workflow(
        Workflow(
            name="fulfil",
            trigger=EventTrigger(event="order.created"),
            steps=[
                Step(id="reserve", action="reserve", input={"lines": "{{ event.payload.lines }}"}),
                Step(
                    id="price", action="price", needs=[],
                    input={"lines": "{{ event.payload.lines }}"},
                ),
                Step(
                    id="paid", needs=["reserve", "price"],
                    wait_for=WaitFor(
                        event="order.paid", match={"order": "{{ event.payload.id }}"},
                        timeout=172_800.0,
                    ),
                ),
                Step(
                    id="send", action="send", retry=AGAIN,
                    input={
                        "order": "{{ event.payload.id }}",
                        "reserved": "{{ steps.reserve.output }}",
                        "amount": "{{ steps.paid.output.payload.amount }}",
                    },
                ),
            ],
            output={"sent": "{{ steps.send.output }}", "price": "{{ steps.price.output }}"},
        )
    )  # fmt: skip


def in_code(kernel: Kernel, shop: Shop) -> None:
    @kernel.workflow(on="order.created")
    async def fulfil(ctx: WorkflowContext, order: Order) -> dict[str, Any]:
        reserved, price = await ctx.gather(
            ctx.step(shop.reserve, order.lines), ctx.step(shop.price, order.lines)
        )
        paid = await ctx.wait_for(
            "order.paid", match={"order": order.id}, timeout="2d", name="paid"
        )
        sent = await ctx.step(shop.send, order.id, reserved, paid.payload["amount"], retry=AGAIN)
        return {"sent": sent, "price": price}


def told(execution: Execution) -> dict[str, Any]:
    """Return all that must be the same."""
    steps = {}
    for run in execution.steps:
        output = run.output["payload"] if run.step_id == "paid" and run.output else run.output
        steps[run.step_id] = (
            run.status, run.attempts, output, run.error_code, run.error, run.error_group,
        )  # fmt: skip
    return {
        "status": execution.status, "output": execution.output, "steps": steps,
        "error": (execution.error_code, execution.error, execution.error_group),
    }  # fmt: skip


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_a_workflow_is_the_same_in_all_four(failures: int) -> None:
    """Its steps, attempts, outputs, errors and the calls with their inputs."""
    found: dict[str, Any] = {}
    ways: list[Callable[[Kernel, Shop], None]] = [in_yaml, in_json, in_the_model, in_code]
    for way in ways:
        with Kernel(discover=False, secrets={}) as kernel:
            shop = Shop(kernel, failures)
            way(kernel, shop)
            kernel.emit("order.created", PAYLOAD)
            kernel.run_until_idle(patience=5)
            kernel.emit("order.paid", {"order": 8, "amount": 1})
            kernel.emit("order.paid", {"order": 7, "amount": 3})
            kernel.run_until_idle(patience=5)
            (execution,) = kernel.executions.find()
            attempts = [
                (each.step_id, each.attempt, each.error)
                for each in kernel.executions.failed_attempts(execution.id)
            ]
            calls = [*sorted(shop.calls[:2], key=str), *shop.calls[2:]]
            found[way.__name__] = {**told(execution), "calls": calls, "attempts": attempts}
    for name, one in found.items():
        assert one == found["in_yaml"], name
    sent = {"order": 7, "reserved": "a-b", "amount": 3}
    assert found["in_code"]["output"] == ({"sent": sent, "price": 3.0} if failures < 3 else None)
