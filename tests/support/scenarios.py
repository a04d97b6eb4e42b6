"""Scenarios of simulations: applications that use much of the kernel at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import OutboxItem
from automate_kernel.workflows.code import WorkflowContext
from automate_testing.simulation import Scenario, World


class Shop(Scenario):
    """Orders by events: plain and asynchronous steps, retries, a signal, a sub-workflow, a list."""

    orders = 3

    def set_up(self, kernel: Kernel, world: World) -> None:
        @kernel.action("shop.reserve")
        def reserve(id: int) -> dict[str, int]:
            world.work(world.random.choice((0.0, 0.01, 0.3, 6.0)))
            return {"id": id}

        @kernel.action("shop.charge")
        async def charge(id: int) -> str:
            await asyncio.sleep(world.random.choice((0.0, 0.02, 1.0, 4.0)))
            if world.random.random() < 0.2:
                raise AutomateError(ErrorCodes.UNAVAILABLE, "the bank is closed")
            return "paid"

        @kernel.action("shop.pack")
        def pack(item: str) -> str:
            world.work(0.02)
            return item

        kernel.add_workflow(
            {
                "name": "pack",
                "trigger": {"type": "manual"},
                "steps": [
                    {
                        "id": "each",
                        "for_each": ["a", "b", "c"],
                        "concurrency": 2,
                        "action": "shop.pack",
                        "input": {"item": "{{ item }}"},
                    }
                ],
            }
        )
        order = {"id": "{{ event.payload.id }}"}
        kernel.add_workflow(
            {
                "name": "order",
                "trigger": {"type": "event", "event": "order.placed"},
                "steps": [
                    {"id": "reserve", "action": "shop.reserve", "input": order},
                    {
                        "id": "charge", "action": "shop.charge", "input": order,
                        "retry": {"attempts": 9, "delay": "1s", "max_delay": "3s"},
                    },
                    {"id": "approved", "wait_for": {"signal": "approved"}},
                    {"id": "pack", "workflow": "pack"},
                    {"id": "rest", "needs": ["charge"], "sleep": "2s"},
                ],
            }
        )  # fmt: skip

    def act(self, world: World) -> None:
        for number in range(self.orders):
            world.emit("order.placed", {"id": number})
            world.work(world.random.random() * 2)
        sent = set[str]()
        while len(sent) < self.orders:
            for execution in world.insist(lambda: world.kernel.executions.find(workflow="order")):
                if execution.id not in sent and not execution.status.finished:
                    sent.add(execution.id)
                    world.signal(execution.id, "approved", execution.id)
            world.work(world.random.random())

    def check(self, world: World) -> None:
        taken = {
            name.split("/")[0]: output["payload"].replace("-", "")
            for name, output in world.outputs.items()
            if "/approved/" in name
        }
        assert len(taken) == self.orders, f"{len(taken)} approvals were taken"
        assert all(execution_id == payload for execution_id, payload in taken.items()), taken


class Lines(Scenario):
    """Items of the outbox with ordering keys, and with concurrency keys."""

    def __init__(self) -> None:
        self.begun: dict[str, list[int]] = defaultdict(list)
        self.inside: dict[str, int] = defaultdict(int)

    def set_up(self, kernel: Kernel, world: World) -> None:
        @kernel.handler("line.next")
        def step(item: OutboxItem) -> None:
            key, number = item.payload
            self.begun[key].append(number)
            world.work(world.random.choice((0.0, 0.05, 3.0)))

        @kernel.handler("place.take")
        async def take(item: OutboxItem) -> None:
            await asyncio.sleep(world.random.choice((0.0, 0.2, 3.0)))

    def act(self, world: World) -> None:
        for number in range(5):
            for key in ("a", "b"):
                self._enqueue(world, "line.next", (key, number), ordering_key=key)
            self._enqueue(world, "place.take", None, concurrency_key="p", concurrency_limit=2)
            world.work(world.random.random())

    def _enqueue(self, world: World, kind: str, payload: Any, **options: Any) -> None:
        key = f"{kind} {payload} {world.now}"
        world.insist(
            lambda: world.kernel.outbox.enqueue(kind, payload, idempotency_key=key, **options)
        )

    def check(self, world: World) -> None:
        for key, numbers in self.begun.items():
            first = list(dict.fromkeys(numbers))
            assert first == list(range(5)), f"{key} began in the order {numbers}"
            # An item that was begun again comes before those behind it.
            assert numbers == sorted(numbers), f"{key} went back: {numbers}"


class Chains(Scenario):
    """A workflow in code that is continued as new, and takes signals on its way."""

    signals = 4

    def __init__(self) -> None:
        self.sent: list[int] = []

    def set_up(self, kernel: Kernel, world: World) -> None:
        @kernel.action("book.page")
        def page(number: int) -> int:
            world.work(world.random.choice((0.0, 0.01, 2.0)))
            return number

        @kernel.workflow(name="pages")
        async def pages(ctx: WorkflowContext, given: dict[str, int]) -> list[int]:
            taken = given.get("taken", 0)
            signal = await ctx.wait_for(signal="go")
            await ctx.step(page, signal.payload)
            if taken + 1 < self.signals:
                ctx.continue_as_new({"taken": taken + 1})
            return [taken]

    def act(self, world: World) -> None:
        first = world.start("pages", {"taken": 0})
        for number in range(self.signals):
            world.signal(first, "go", number)
            world.work(world.random.choice((0.0, 0.5, 4.0)))

    def check(self, world: World) -> None:
        numbers = [output for name, output in world.outputs.items() if "/page" in name]
        assert sorted(numbers) == list(range(self.signals)), f"taken: {sorted(numbers)}"
