"""What a type checker knows of workflows in code: mypy reads this file, nobody runs it."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

from automate_kernel import (
    ApprovalAnswer,
    Automation,
    Call,
    Event,
    Execution,
    Kernel,
    Step,
    SyncWorkflowContext,
    Workflow,
    WorkflowContext,
)
from automate_testing import WorkflowTest
from automate_kernel.workflows import (
    Approval,
    Compensation,
    Debounce,
    RetryPolicy,
    ScheduleTrigger,
    StartRate,
    WaitFor,
)
from typing_extensions import assert_type


class Order:
    """A type of the host."""


def price(order: Order, factor: int = 1) -> float:
    """Stand in for a plain step."""
    return 1.0


async def send(order: Order) -> bytes:
    """Stand in for an asynchronous step."""
    return b""


def sell(order: Order, call: Call) -> int:
    """Stand in for a step that takes the call too."""
    return 1


async def ship(call: Call) -> str:
    """Stand in for one that takes it alone."""
    return ""


kernel, automation = Kernel(), Automation()


@kernel.workflow(on="order.created")
async def fulfil(ctx: WorkflowContext, order: Order) -> str:
    """Use everything once."""
    assert_type(await ctx.step(price, order), float)
    assert_type(await ctx.step(price, order, 2, retry=3, timeout="5s"), float)
    assert_type(await ctx.step(price, order, timeout=timedelta(seconds=5)), float)
    assert_type(await ctx.step(send, order), bytes)
    assert_type(await ctx.step(sell, order), int)
    assert_type(await ctx.step(ship), str)
    await ctx.step(sell, "no order")  # type: ignore[arg-type]
    with ctx.compensate(sell, order, timeout=timedelta(seconds=5)):
        assert_type(await ctx.approve("Go on?", timeout=timedelta(days=1)), ApprovalAnswer)
    assert_type(await ctx.call("shop.pay", total=1), Any)
    assert_type(await ctx.step(partial(price, factor=2), order), float)
    assert_type(
        await ctx.gather(ctx.step(price, order), ctx.step(send, order)), tuple[float, bytes]
    )
    assert_type(await ctx.gather(*[ctx.step(price, order)]), tuple[float, ...])
    one, two, three = ctx.step(price, order), ctx.step(send, order), ctx.step(sell, order)
    four, five, six = ctx.step(ship), ctx.sleep(1), ctx.wait_for("paid")
    assert_type(
        await ctx.gather(one, two, three, four, five),
        tuple[float, bytes, int, str, None],
    )
    assert_type(
        await ctx.gather(one, two, three, four, five, six, ctx.child(alone), ctx.child(either)),
        tuple[float, bytes, int, str, None, Event, None, int],
    )
    assert_type(await ctx.wait_for("paid", timeout="2d"), Event)
    assert_type(await ctx.wait_for("paid", timeout="2d", on_timeout="continue"), Event | None)
    assert_type(await ctx.child(fulfil, order), str)
    assert_type(await ctx.start(fulfil, order), str)
    await ctx.child(fulfil, 3)  # type: ignore[arg-type]
    await ctx.child(fulfil)  # type: ignore[arg-type]
    await ctx.start(fulfil, "no order")  # type: ignore[arg-type]
    assert_type(await ctx.child(plainly, order, retry=3, timeout="5s"), int)
    assert_type(await ctx.child("named", {"id": 1}, name="it"), Any)
    assert_type(await ctx.child(alone), None)
    await ctx.child(alone, 5)  # type: ignore[arg-type]
    await ctx.start(alone, 5)  # type: ignore[arg-type]
    assert_type(await ctx.start(alone), str)
    assert_type(await ctx.child(either), int)
    assert_type(await ctx.child(either, order), int)
    assert_type(await ctx.start("named", 3, name="it"), str)
    with ctx.compensate(price, order):
        await ctx.sleep("3d")
    await ctx.step(price, "no order")  # type: ignore[arg-type]
    await ctx.step(send)  # type: ignore[call-arg, arg-type]
    ctx.compensate(price, "no order")  # type: ignore[arg-type]
    return ""


@automation.workflow
def plainly(ctx: SyncWorkflowContext, order: Order) -> int:
    """Use the plain context."""
    assert_type(ctx.step(price, order), float)
    assert_type(ctx.step(send, order), bytes)
    assert_type(ctx.step(sell, order), int)
    assert_type(ctx.gather(ctx.later(sell, order), ctx.later(ship)), tuple[int, str])
    assert_type(ctx.gather(ctx.later(price, order), ctx.later(send, order)), tuple[float, bytes])
    one, two, three = ctx.later(price, order), ctx.later(send, order), ctx.later(sell, order)
    four, five, six = ctx.later(ship), ctx.later(price, order), ctx.later(send, order)
    assert_type(
        ctx.gather(one, two, three, four, five, six),
        tuple[float, bytes, int, str, float, bytes],
    )
    assert_type(ctx.wait_for("paid"), Event)
    assert_type(ctx.wait_for("paid", on_timeout="continue"), Event | None)
    assert_type(ctx.approve("Go on?"), ApprovalAnswer)
    assert_type(ctx.call("shop.pay", total=1), Any)
    assert_type(ctx.start(alone), str)
    ctx.child(alone, 5)  # type: ignore[arg-type]
    ctx.start(alone, 5)  # type: ignore[arg-type]
    assert_type(ctx.child(fulfil, order), str)
    assert_type(ctx.child(either), int)
    ctx.child(fulfil, 3)  # type: ignore[arg-type]
    ctx.start(fulfil, 3)  # type: ignore[arg-type]
    assert_type(ctx.child("named", {}), Any)
    ctx.step(price, "no order")  # type: ignore[arg-type]
    return 1


@kernel.workflow
def alone(ctx: SyncWorkflowContext) -> None:
    """Take no payload."""


@kernel.workflow
def either(ctx: SyncWorkflowContext, order: Order | None = None) -> int:
    """Take a payload, or none."""
    return 1


assert_type(kernel.run(fulfil, Order()), Execution)
assert_type(kernel.run(plainly, Order(), patience=5), Execution)
assert_type(kernel.run(alone), Execution)
assert_type(kernel.run("named", {"any": "payload"}), Execution)
assert_type(kernel.start(fulfil, Order(), priority=1, labels={"order": 7}), str)
assert_type(kernel.start(alone, delay=5), str)
assert_type(kernel.start("named"), str)
kernel.run(alone, 5)  # type: ignore[arg-type]
kernel.start(alone, 5)  # type: ignore[arg-type]
kernel.run(fulfil, "no order")  # type: ignore[arg-type]
kernel.run(fulfil)  # type: ignore[arg-type]
kernel.start(fulfil, "no order")  # type: ignore[arg-type]
kernel.start(alone, delays=5)  # type: ignore[call-overload]

# Fields of models take durations as people write them, and have seconds.
retry = RetryPolicy(attempts=2, delay="1s", max_delay=60)
step = Step(id="one", action="shop.pay", timeout="30s", heartbeat=5, retry=retry)
assert_type(step.timeout, float | None)
assert_type(retry.delay, float)
Workflow(
    name="timed",
    trigger=[ScheduleTrigger(every="5m", jitter="1m"), ScheduleTrigger(every=60)],
    steps=[
        step,
        Step(id="wait", wait_for=WaitFor(event="paid", timeout="1d")),
        Step(id="ask", approval=Approval(title="Refund?", timeout="2d")),
        Step(
            id="undone",
            action="shop.pay",
            compensate=Compensation(action="shop.refund", timeout="30s", heartbeat="5s"),
        ),
    ],
    timeout="1h",
    concurrency=3,
    rate_limit=StartRate(limit=10, per="1m"),
)
Debounce(for_="30s", at_most="5m")
Step(id="one", action="shop.pay", timeout=[30])  # type: ignore[arg-type]

with WorkflowTest(kernel) as test:
    assert_type(test.run(fulfil, Order()), Execution)
    assert_type(test.run(alone), Execution)
    test.run(alone, 5)  # type: ignore[arg-type]
    test.start(alone, 5)  # type: ignore[arg-type]
    test.start(fulfil, "no order", tenant_id="acme")  # type: ignore[arg-type]
    assert_type(test.finish(test.start(alone)), Execution)
    assert_type(test.finish(test.start("named", 3).id), Execution)

from automate_kernel import WorkflowContxt as Misspelt  # type: ignore[attr-defined]  # noqa: E402, F401
