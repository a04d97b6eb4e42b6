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


class Trips(Scenario):
    """Executions with a concurrency key, compensations and a child, under operators' commands."""

    trips = 4
    commands = 3
    seconds = 3600.0

    def __init__(self) -> None:
        self.paid: list[int] = []

    def set_up(self, kernel: Kernel, world: World) -> None:
        @kernel.action("trip.book")
        def book(n: int) -> int:
            world.work(world.random.choice((0.0, 0.1, 3.0)))
            return n

        @kernel.action("trip.release")
        async def release(n: int) -> int:
            await asyncio.sleep(world.random.choice((0.0, 0.1, 2.0)))
            return n

        @kernel.action("trip.visa")
        async def visa(n: int) -> int:
            await asyncio.sleep(world.random.choice((0.0, 0.1, 5.0)))
            if world.random.random() < 0.15:
                raise AutomateError(ErrorCodes.FAILED_PRECONDITION, "no visa")
            return n

        undo = {"action": "trip.release", "input": {"n": "{{ output }}"}, "retry": {"attempts": 9}}
        number = {"n": "{{ event.payload.n }}"}
        kernel.add_workflow(
            {
                "name": "visa",
                "trigger": {"type": "manual"},
                "steps": [
                    {"id": "ask", "action": "trip.visa", "input": number},
                    {"id": "rest", "sleep": "1s"},
                ],
            }
        )
        kernel.add_workflow(
            {
                "name": "trip",
                "trigger": {"type": "event", "event": "trip.booked"},
                "concurrency": {"key": "{{ event.payload.n % 2 }}", "when_full": "queue"},
                "steps": [
                    {"id": "flight", "action": "trip.book", "input": number, "compensate": undo},
                    {
                        "id": "hotels",
                        "for_each": [1, 2],
                        "action": "trip.book",
                        "input": {"n": "{{ item }}"},
                        "compensate": undo,
                    },
                    {
                        "id": "paid",
                        "wait_for": {
                            "event": "trip.paid", "match": {"n": "{{ event.payload.n }}"},
                            "timeout": "30m", "on_timeout": "continue",
                        },
                    },
                    {"id": "visa", "workflow": "visa", "input": number},
                    {"id": "last", "action": "trip.book", "input": number},
                ],
            }
        )  # fmt: skip

    def act(self, world: World) -> None:
        for number in range(self.trips):
            world.emit("trip.booked", {"n": number})
            world.work(world.random.random() * 3)
            world.emit("trip.paid", {"n": number})
        for _ in range(world.random.randint(0, self.commands)):
            world.work(world.random.random() * 8)
            self._command(world)

    def _command(self, world: World) -> None:
        found = sorted(
            world.insist(lambda: world.kernel.executions.find(workflow="trip")),
            key=lambda one: one.event.payload["n"],
        )
        if not found:
            return
        its, store = world.random.choice(found), world.kernel.executions
        what = world.random.choice(("cancel", "pause", "resume", "cancel"))
        world.tell(f"{what} of trip {its.event.payload['n']}, {its.id[-6:]}", "operator")
        try:
            if what == "cancel":
                world.insist(lambda: store.cancel(its.id))
            elif what == "resume":
                world.insist(lambda: store.resume(its.id))
            elif world.insist(lambda: store.pause(its.id)):
                world.work(world.random.random() * 5)
                world.insist(lambda: store.unpause(its.id))
        except AutomateError as error:
            world.tell(f"{what}: {error}", "operator")

    def changed(self, world: World, entry: Any) -> None:
        if entry.what == "execution" and entry.new == "RUNNING":
            busy = world.storage.read(
                "SELECT concurrency_key, count(*) FROM automate_execution WHERE concurrency_key"
                " IS NOT NULL AND status = 'RUNNING' GROUP BY concurrency_key HAVING count(*) > 1"
            )
            assert not busy, f"more than one go on at once: {busy}"

    def check(self, world: World) -> None:
        for (kind, id_), status in world.finished.items():
            if kind != "execution":
                continue
            outputs = {
                name.split("/", 1)[1]: output
                for name, output in world.outputs.items()
                if name.startswith(f"{id_}/")
            }
            if "paid/-1" in outputs:
                assert outputs["paid/-1"] is not None, f"the payment of {id_} was lost"
            if status == "COMPLETED" and "last/-1" in outputs:
                assert len(outputs) >= 6, outputs


class Quiet(Scenario):
    """Bursts of events to a debounced workflow, and to a limited one."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        self.seen: dict[str, list[int]] = defaultdict(list)

    def expected(self, workflow: str) -> bool:
        return workflow == "index"

    def over(self, world: World) -> bool:
        return world.is_quiet() and not world.storage.read(
            "SELECT 1 FROM automate_execution WHERE status IN ('PENDING', 'RUNNING')"
        )

    def set_up(self, kernel: Kernel, world: World) -> None:
        @kernel.action("doc.index")
        def index(doc: str, version: int) -> None:
            world.work(world.random.choice((0.0, 0.1, 2.0)))
            self.seen[doc].append(version)

        given = {"doc": "{{ event.payload.doc }}", "version": "{{ event.payload.version }}"}
        kernel.add_workflow(
            {
                "name": "index",
                "trigger": {"type": "event", "event": "doc.saved"},
                "debounce": {"key": "{{ event.payload.doc }}", "for": "2s", "at_most": "10s"},
                "steps": [{"id": "index", "action": "doc.index", "input": given}],
            }
        )
        kernel.add_workflow(
            {
                "name": "mail",
                "trigger": {"type": "event", "event": "doc.saved"},
                "concurrency": {"limit": 2},
                "steps": [
                    {"id": "nap", "sleep": "1s"},
                    {"id": "index", "action": "doc.index", "input": {**given, "doc": "m"}},
                ],
            }
        )

    def act(self, world: World) -> None:
        for version in range(6):
            doc = world.random.choice("ab")
            world.emit("doc.saved", {"doc": doc, "version": version})
            self.last[doc] = version
            world.work(world.random.choice((0.0, 0.5, 1.9, 3.0)))

    def check(self, world: World) -> None:
        for doc, version in self.last.items():
            assert version in self.seen[doc], f"the last version of {doc} was lost: {self.seen}"
        assert set(self.seen["m"]) == set(range(6)), self.seen["m"]
