"""
Everything that an application waits for, while every purge comes between any two transactions.

A process dies now and then. What is noted in the end is what was sent, each once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
from workers import call_due_polls
from automate_kernel import Connector, Kernel
from automate_kernel.plugins.connectors import PolledEvent, PollResult, TriggerSpec, poll
from automate_kernel.base.errors import AutomateError, ErrorCodes, StorageError
from automate_kernel.operations.context import current_call
from automate_kernel.storage import Storage
from automate_kernel.storage.output_store import OutputStore
from automate_testing.clock import FakeClock
from automate_kernel.triggers.webhooks import HmacSignature
from automate_kernel.workflows.store.large_outputs import ROW_BYTES
from automate_kernel.workflows.execution import Execution
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from mortal_storage import Death, Mortal

LEASE_SECONDS = 30.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
LARGE = ROW_BYTES + 10
_MOST_DEATHS = 3
_SIGNATURE = HmacSignature("HOOK", header="X-Signature")
_LINK = "{{ event.payload.n % 3 != 2 }}"


class Outputs(OutputStore):
    """An output store in memory, which knows the age of what it has."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.kept: dict[str, tuple[bytes, Any]] = {}

    def put(self, key: str, data: bytes) -> None:
        self.kept[key] = data, self.clock()

    def get(self, key: str) -> bytes:
        if key not in self.kept:
            raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no {key}")
        return self.kept[key][0]

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)

    def keys(self, *, older_than_seconds: float) -> Iterator[str]:
        now = self.clock()
        return iter(
            [key for key, (_, at) in self.kept.items()
             if (now - at).total_seconds() >= older_than_seconds]
        )  # fmt: skip


class Purged(Mortal):
    """A storage as a process sees it, between whose transactions somebody purges."""

    every = 0
    passed = 0
    purge: Callable[[], None]

    def _pass(self, *, acts: bool = False) -> None:
        super()._pass(acts=acts)
        if acts and self.every:
            self.passed += 1
            if self.passed % self.every == 0:
                self.purge()


def _chain(name: str, waited: dict[str, Any]) -> dict[str, Any]:
    """A chain that takes one after the other; of three links one waits for nothing."""
    what = {"about": name, "what": "{{ steps.take.output.payload }}"}
    return {
        "name": name, "trigger": {"type": "manual"}, "steps": [
            {"id": "take", "wait_for": waited, "if": _LINK},
            {"id": "note", "action": "note", "input": what, "if": _LINK},
            {"id": "next", "continue_as_new": {"n": "{{ event.payload.n + 1 }}"}},
        ],
    }  # fmt: skip


def _noting(about: str, *steps: dict[str, Any], what: str, **more: Any) -> dict[str, Any]:
    """A workflow that makes *steps*, and then notes *what*."""
    note = {"id": "note", "action": "note", "input": {"about": about, "what": what}}
    more.setdefault("trigger", {"type": "manual"})
    return {"name": about, "steps": [*steps, note], **more}


_PAYLOAD, _N = "{{ event.payload }}", "{{ event.payload.n }}"
WORKFLOWS = [
    _chain("signals", {"signal": "go"}),
    _chain("events", {"event": "paid", "match": {"order": 1}}),
    _noting(
        "pair",
        {"id": "make", "action": "large"},
        {"id": "a", "wait_for": {"signal": "a"}},
        {"id": "nap", "sleep": "2h"},
        {"id": "fragile", "action": "fragile"},
        {"id": "b", "wait_for": {"signal": "b"}},
        what="{{ [event.payload.n, steps.a.output.payload, steps.b.output.payload,"
        " steps.make.output | length] }}",
    ),
    _noting("sleeper", {"id": "nap", "sleep": "3d"}, what=_N),
    _noting(
        "asked",
        {"id": "ask", "approval": {"title": "Shall we?", "by": ["ann"]}},
        what="{{ [event.payload.n, steps.ask.output.approved] }}",
    ),
    _noting("burst", what="{{ event.payload.n }}", debounce={"for": "30s"},
            trigger={"type": "event", "event": "burst"}),
    _noting("lane", {"id": "nap", "sleep": "1m"}, what=_N, concurrency=1),
    _noting("slow", what=_N, rate_limit={"limit": 1, "per": "1h"}),
    _noting(
        "parent",
        {"id": "sub", "workflow": "child", "input": {"n": _N, "link": 0}},
        what="{{ [event.payload.n, steps.sub.output | length] }}",
    ),
    {
        "name": "child", "trigger": {"type": "manual"}, "steps": [
            {"id": "go", "wait_for": {"signal": "go"}},
            {"id": "next", "continue_as_new": {"n": _N, "link": 1},
             "if": "{{ event.payload.link == 0 }}"},
            {"id": "make", "action": "large", "needs": ["go"],
             "if": "{{ event.payload.link == 1 }}"},
        ],
        "output": "{{ steps.make.output if event.payload.link == 1 else none }}",
    },
    {
        "name": "late", "trigger": {"type": "manual"}, "steps": [
            {"id": "go", "wait_for": {"signal": "go"}, "if": "{{ event.payload.link < 3 }}"},
            {"id": "late", "wait_for": {"signal": "late"}, "if": "{{ event.payload.link == 3 }}"},
            {"id": "note", "action": "note", "if": "{{ event.payload.link == 3 }}",
             "input": {"about": "late", "what": "{{ steps.late.output.payload }}"}},
            {"id": "next", "if": "{{ event.payload.link < 3 }}",
             "continue_as_new": {"link": "{{ event.payload.link + 1 }}"}},
        ],
    },
    _noting("row", what=_PAYLOAD, trigger={"type": "event", "event": "sheet.new_row"}),
    _noting("hook", what=_N, trigger={"type": "webhook", "connector": "hub", "trigger": "push"}),
]  # fmt: skip


class Machine(RuleBasedStateMachine):
    """An application, its worker, and whoever purges."""

    open_storage: Callable[[FakeClock], Storage]

    @initialize(retention=st.sampled_from([0.0, None]))
    def begin(self, retention: float | None) -> None:
        self.clock, self.retention = FakeClock(), retention
        self.storage = type(self).open_storage(self.clock)
        self.outputs = Outputs(self.clock)
        self.noted: dict[str, tuple[str, Any]] = {}
        self.sent: dict[str, list[Any]] = {}
        self.keys: dict[str, tuple[str, Any, str]] = {}
        self.pairs: dict[str, dict[str, int]] = {}
        self.late: list[str] = []
        self.delivered: dict[int, float] = {}
        self.rows: list[str] = []
        self.number = self.deaths = 0
        self.broken = False
        self.age, self.elapsed = 0.0, 0.0
        self.kernels: list[Kernel] = []
        self.operator = self.new_kernel(self.storage)
        self.new_process()
        self.chains = {name: self.operator.start(name, {"n": 0}) for name in ("signals", "events")}
        self.process.run_until_idle()

    def teardown(self) -> None:
        if not hasattr(self, "process"):
            return
        try:
            self.drain()
            self.check()
        finally:
            for kernel in self.kernels:
                kernel.close()

    # -- the application ---------------------------------------------------------------------

    def new_kernel(self, storage: Any) -> Kernel:
        machine = self

        class Sheet(Connector):
            key = "sheet"
            display_name = "Sheet"

            @poll("new_row", every="1m")
            def new_row(self, cursor: int | None) -> PollResult:
                """Rows that were added, and the last ones of before."""
                first, rows = max(0, (cursor or 0) - 2), machine.rows
                found = [PolledEvent(row, row) for row in rows[first:]]
                return PollResult(found, len(rows))

        class Hub(Connector):
            key = "hub"
            display_name = "Hub"

            @classmethod
            def triggers(cls) -> list[TriggerSpec]:
                return [TriggerSpec("push", signature=_SIGNATURE)]

        kernel = Kernel(
            storage, plugins=[Sheet, Hub], discover=False, secrets={"HOOK": "s" * 32},
            lease_seconds=LEASE_SECONDS, retention_seconds=self.retention,
            output_store=self.outputs,
        )  # fmt: skip

        @kernel.action
        def note(about: str, what: Any) -> None:
            call = current_call()
            assert call is not None and call.idempotency_key is not None
            machine.noted[call.idempotency_key] = about, what

        @kernel.action
        def large() -> str:
            return "x" * LARGE

        @kernel.action
        def fragile() -> None:
            if machine.broken:
                raise AutomateError(ErrorCodes.NOT_FOUND, "it is broken")

        for workflow in WORKFLOWS:
            kernel.add_workflow(workflow)
        self.kernels.append(kernel)
        return kernel

    def new_process(self) -> None:
        self.mortal = Purged(self.storage)
        self.mortal.purge = self.purge
        self.process = self.new_kernel(self.mortal)

    def next(self) -> int:
        self.number += 1
        return self.number

    def expect(self, about: str, what: Any) -> None:
        self.sent.setdefault(about, []).append(what)

    # -- what happens ------------------------------------------------------------------------

    @rule(every=st.sampled_from([0, 1, 1, 2, 3, 7]), dies_at=st.just(0) | st.integers(1, 90))
    def run(self, every: int, dies_at: int) -> None:
        """Let the worker do what is due, and purge after so many of its transactions."""
        mortal = self.mortal
        mortal.every = every
        if self.deaths < _MOST_DEATHS and dies_at:
            mortal.dies_at = mortal.moment + dies_at
        with suppress(Death):
            self.process.run_until_idle()
        mortal.every = mortal.dies_at = 0
        if mortal.dead is not None:
            self.deaths += 1
            mortal.dead = StorageError  # which its last words survive
            self.new_process()
            self.pass_time(LEASE_SECONDS + 1)
            self.operator.outbox.reap()

    @rule(kinds=st.sampled_from([["automate.event"], ["automate.signal"], ["automate.advance"]]))
    def run_some(self, kinds: list[str]) -> None:
        """Leave the others for later."""
        self.process.run_until_idle(kinds=kinds)

    @rule(seconds=st.sampled_from([31.0, MINUTE, HOUR + 1, 2 * HOUR, 2 * DAY, 20 * DAY]))
    def pass_time(self, seconds: float) -> None:
        # What a service shows is known for thirty days after it was shown last.
        if seconds > DAY:
            call_due_polls(self.operator)
        self.clock.advance(seconds)
        self.elapsed += seconds

    @rule(age=st.sampled_from([0.0, 0.0, MINUTE, HOUR]))
    def choose_age(self, age: float) -> None:
        """Purges delete what is so old, from now on."""
        self.age = age
        self.purge()

    def purge(self) -> None:
        """All that workers and operators purge, but for executions that failed."""
        one, age = self.operator, self.age
        one.executions.signals.purge()
        one.executions.purge_start_locks()
        one.executions.purge_activity(older_than_seconds=age)
        one.executions.purge_outputs(older_than_seconds=age)
        one.outbox.purge_reports(older_than_seconds=age)
        one.outbox.purge(older_than_seconds=age)
        one.executions.purge(older_than_seconds=age, statuses=["COMPLETED", "CANCELLED"])
        one.purge_definitions(older_than_seconds=age)
        one.sweep(retention_seconds=age)

    @rule(again=st.booleans(), keyed=st.booleans())
    def signal_chain(self, again: bool, keyed: bool) -> None:
        """Send a signal to the chain, or what was sent to it already with its key."""
        first = self.chains["signals"]
        if again and self.keys:
            key, (_, what, sent) = list(self.keys.items())[self.number % len(self.keys)]
            assert self.operator.signal(first, "go", what, idempotency_key=key) == sent
            return
        number = self.next()
        key = f"key-{number}" if keyed else None
        sent = self.operator.signal(first, "go", number, idempotency_key=key)
        if key is not None:
            self.keys[key] = first, number, sent
        self.expect("signals", number)

    @rule()
    def emit_to_chain(self) -> None:
        number = self.next()
        self.operator.emit("paid", {"order": 1, "number": number})
        self.expect("events", {"order": 1, "number": number})

    @rule(name=st.sampled_from(["sleeper", "lane", "slow", "asked", "parent"]))
    def start(self, name: str) -> None:
        number = self.next()
        expected = {"asked": [number, True], "parent": [number, LARGE]}
        self.expect(name, expected.get(name, number))
        self.operator.start(name, {"n": number})

    @precondition(lambda self: len(self.late) < 2)
    @rule()
    def start_late(self) -> None:
        """Start a chain that takes only in the end what it was sent first."""
        number = self.next()
        self.late.append(self.operator.start("late", {"link": 0}))
        self.operator.signal(self.late[-1], "late", number)
        self.expect("late", number)

    @precondition(lambda self: len(self.pairs) < 3)
    @rule()
    def start_pair(self) -> None:
        number = self.next()
        one = self.operator.start("pair", {"n": number}, idempotency_key=f"pair-{number}")
        self.pairs[one] = {"n": number}
        self.expect("pair", [number, number, number, LARGE])

    @precondition(lambda self: self.pairs)
    @rule(name=st.sampled_from("ab"), which=st.integers(0, 2))
    def signal_pair(self, name: str, which: int) -> None:
        one = list(self.pairs)[which % len(self.pairs)]
        its = self.pairs[one]
        if name in its:
            return
        # It may have failed, and is there once it is resumed: then it can't be sent now.
        with suppress(AutomateError):
            self.operator.signal(one, name, its["n"], idempotency_key=name)
            its[name] = 1

    @precondition(lambda self: self.pairs)
    @rule(broken=st.booleans())
    def break_or_mend(self, broken: bool) -> None:
        self.broken = broken
        if not broken:
            for one in self.find(status="FAILED"):
                self.operator.executions.resume(one.id)

    @rule(number=st.integers(0, 9), paused=st.booleans())
    def pause_or_unpause(self, number: int, paused: bool) -> None:
        found = [one for one in self.find() if not one.status.finished]
        one = found[number % len(found)]
        steer = self.operator.executions.pause if paused else self.operator.executions.unpause
        steer(one.id)

    @rule()
    def decide(self) -> None:
        for one in self.operator.approvals.pending().approvals:
            self.operator.approvals.approve(one.execution_id, one.step_id, one.position, by="ann")

    @rule()
    def answer_children(self) -> None:
        for one in self.find(workflow="child"):
            with suppress(AutomateError):  # it has ended
                self.operator.signal(one.chain_id or one.id, "go", idempotency_key=one.id)

    @rule()
    def burst(self) -> None:
        number = self.next()
        self.operator.emit("burst", {"n": number})
        self.expect("burst", number)

    @rule(count=st.integers(1, 2))
    def rows_come(self, count: int) -> None:
        for _ in range(count):
            row = f"row-{self.next()}"
            self.rows.append(row)
            self.expect("row", row)

    @rule(again=st.booleans())
    def deliver(self, again: bool) -> None:
        """Let a service deliver a webhook, or the last one again, which it does for some days."""
        number = self.next()
        last = max(self.delivered, default=0)
        if again and last and self.elapsed - self.delivered[last] < 30 * DAY:
            number = last
        else:
            self.delivered[number] = self.elapsed
            self.expect("hook", number)
        body = f'{{"n": {number}}}'.encode()
        headers = _SIGNATURE.sign(body, "s" * 32)
        receipt = self.operator.receive_webhook("hub", "push", headers, body)
        assert receipt.duplicate == (number == last)

    def find(self, **options: Any) -> list[Execution]:
        return self.operator.executions.find(limit=1000, **options)

    # -- the end -----------------------------------------------------------------------------

    @invariant()
    def nothing_is_noted_that_was_not_sent(self) -> None:
        """Nor anything twice: each note of a step has a key of its own."""
        if not hasattr(self, "noted"):
            return
        for about, what in self.noted.values():
            assert what in self.sent.get(about, []), (about, what)
        failed = {one.name for one in self.find(status="FAILED")}
        assert failed <= {"pair"}, failed
        twice = [each for each, count in self.counted().items() if count > 1]
        assert not twice, f"noted twice: {twice}"

    def counted(self) -> Counter[tuple[str, str]]:
        return Counter((about, repr(what)) for about, what in self.noted.values())

    def drain(self) -> None:
        """Give everything what it waits for, and the time."""
        self.deaths = _MOST_DEATHS
        for _ in range(8):
            for one in self.find(status="PAUSED"):
                self.operator.executions.unpause(one.id)
            self.break_or_mend(False)
            for number in range(len(self.pairs)):
                for name in "ab":
                    self.signal_pair(name, number)
            self.decide()
            self.answer_children()
            # Chains go on, so that nothing that goes on is as old as what was sent first.
            self.emit_to_chain()
            self.signal_chain(False, True)
            self.signal_chain(True, True)
            for first in self.late:
                with suppress(AutomateError):  # it has ended
                    self.operator.signal(first, "go", idempotency_key=f"{self.number}")
            self.run(1, 0)
            self.purge()
            self.pass_time(20 * HOUR)

    def check(self) -> None:
        """What was sent is noted; of events that came together, the last."""
        noted = self.counted()
        for about, expected in self.sent.items():
            expected = expected[-1:] if about == "burst" else expected
            missing = [what for what in expected if not noted[about, repr(what)]]
            assert not missing, f"{about} lost {missing}: {self.find()}"
        self.nothing_is_noted_that_was_not_sent()
        left = [one for one in self.find() if one.name not in self.chains]
        assert all(one.status.finished for one in left), left
