"""Starts of workflows: once per key, later, so many at once, so many in a time, the last of many."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from workers import handle
from waiting import PATIENCE, at_once, until
from automate_kernel import signals
from automate_kernel.base.errors import AutomateError, ErrorCodes, LeaseLostError, StorageError
from automate_kernel.kernel import Kernel
from automate_kernel.operations.context import current_call
from automate_kernel.outbox import ItemStatus
from automate_kernel.storage import MemoryStorage, Where
from automate_kernel.storage.tables import DEBOUNCE, OUTBOX, SLOT
from automate_testing.clock import FakeClock
from automate_kernel.workflows.decide.admission import SkippedError
from automate_kernel.workflows.execution import Execution, ExecutionStatus
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from defined import define, see

pytestmark = pytest.mark.any_storage

Open = Callable[..., Kernel]
FINISHED = ("COMPLETED", "FAILED", "CANCELLED")
CUSTOMER = "{{ event.payload.customer }}"


@pytest.fixture
def open_kernel(clocked_storage: Any) -> Iterator[Open]:
    """Opens kernels on the same data, each as a process of its own has it."""
    opened: list[Kernel] = []

    def open_kernel(action: Callable[..., Any] = lambda: None, **workflow: Any) -> Kernel:
        kernel = Kernel(clocked_storage, discover=False, secrets={}, lease_seconds=10)
        opened.append(kernel)
        kernel.action("do.it")(action)
        step = {"id": "a", "action": "do.it", **workflow.pop("step", {})}
        kernel.add_workflow(
            {"name": "w", "trigger": {"type": "event", "event": "go"}, "steps": [step], **workflow}
        )
        return kernel

    yield open_kernel
    for kernel in opened:
        kernel.close()


def statuses(kernel: Kernel) -> Counter[str]:
    return Counter(each.status.value for each in kernel.executions.find())


def claim(kernel: Kernel, limit: int = 50) -> list[str]:
    """The executions whose wake-ups a worker gets now."""
    items = kernel.outbox.claim_batch("worker", limit)
    return [item.payload["execution_id"] for item in items]


def held(kernel: Kernel) -> int:
    with kernel.storage.begin(atomic=False) as rows:
        return sum(row["n"] for row in rows.count(SLOT))


# -- options of a start ----------------------------------------------------------------------------


def test_a_second_start_with_the_same_key_is_the_first(open_kernel: Open) -> None:
    """It returns the first's id and starts nothing, per workflow and tenant."""
    kernel = open_kernel()
    first = kernel.start("w", {"n": 1}, idempotency_key="order-7")
    assert kernel.start("w", {"n": 2}, idempotency_key="order-7") == first
    others = {
        kernel.start("w", idempotency_key="order-8"),
        kernel.start("w", idempotency_key="order-7", tenant_id="acme"),
        kernel.start("w"),
    }
    assert len(others | {first}) == 4
    kernel.run_until_idle()
    assert kernel.start("w", idempotency_key="order-7") == first
    assert statuses(kernel) == {"COMPLETED": 4}
    assert see(kernel, first).event.payload == {"n": 1}


@pytest.mark.every_storage
def test_two_starts_with_one_key_at_once(open_kernel: Open) -> None:
    """Of two that start together one begins it, and both have its id."""
    kernels = [open_kernel() for _ in range(3)]
    ids = together(
        *[lambda kernel=kernel: kernel.start("w", idempotency_key="k") for kernel in kernels]
    )
    assert len(set(ids)) == 1
    assert statuses(kernels[0]) == {"PENDING": 1}


def together(*work: Callable[[], Any]) -> list[Any]:
    """What these functions return, each on a thread of its own."""
    barrier, results = threading.Barrier(len(work)), list[Any]()

    def run(function: Callable[[], Any]) -> None:
        barrier.wait(20)
        try:
            results.append(function())
        except AutomateError as error:
            results.append(error)

    at_once(*(partial(run, each) for each in work))
    assert len(results) == len(work)
    assert [each for each in results if isinstance(each, StorageError)] == []
    return results


def test_a_delayed_start_waits_for_its_time(open_kernel: Open, clock: FakeClock) -> None:
    """By seconds or until an instant; its own timeout counts from its beginning."""
    kernel = open_kernel(timeout="1m")
    kernel.start("w", delay=3600)
    kernel.start("w", delay=timedelta(hours=2))
    kernel.start("w", run_at=clock() + timedelta(hours=3))
    for hour in range(4):
        kernel.run_until_idle()
        assert statuses(kernel) == Counter(
            {name: n for name, n in (("COMPLETED", hour), ("PENDING", 3 - hour)) if n}
        )
        clock.advance(3600)


def test_a_higher_priority_goes_first(open_kernel: Open) -> None:
    """A point is worth an hour of waiting."""
    order: list[int] = []

    def note(n: int) -> None:
        order.append(n)

    kernel = open_kernel(note, step={"input": {"n": "{{ event.payload.n }}"}})
    for n in (0, 2, 1):
        kernel.start("w", {"n": n}, priority=n)
    kernel.run_until_idle()
    assert order == [2, 1, 0]


# -- concurrency -----------------------------------------------------------------------------------


def test_starts_queue_for_their_key(open_kernel: Open) -> None:
    """One per customer goes on; the next begins when it has ended, the oldest first."""
    kernel = open_kernel(concurrency={"key": CUSTOMER, "limit": 1})
    ids = [kernel.start("w", {"customer": n % 2}) for n in range(6)]
    for start in (0, 2, 4):
        items = kernel.outbox.claim_batch("worker", 50)
        assert sorted(item.payload["execution_id"] for item in items) == sorted(ids[start:][:2])
        for item in items:
            kernel.outbox.mark_success(item.id, "worker")
    assert held(kernel) == 0


def test_an_execution_that_waits_keeps_its_place(open_kernel: Open, clock: FakeClock) -> None:
    """It waits for a retry, holds no thread, and nobody takes its place until it has ended."""
    calls: list[int] = []

    def fail(n: int) -> None:
        calls.append(n)
        if n == 0 and len(calls) == 1:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "away")

    retry = {"attempts": 2, "delay": "1h", "max_delay": "1h", "jitter": False}
    kernel = open_kernel(
        fail, concurrency=1, step={"retry": retry, "input": {"n": "{{ event.payload.n }}"}}
    )
    first, second = (kernel.start("w", {"n": n}) for n in (0, 1))
    kernel.run_until_idle()
    assert calls == [0]
    assert held(kernel) == 1
    assert wake_up(kernel, first).waiting_for == "time"
    for _ in range(3):  # nor does mending take it for one that is gone
        kernel.outbox.reap()
        kernel.run_until_idle()
    assert (calls, wake_up(kernel, second).waiting_for) == ([0], "key")
    clock.advance(3600)
    kernel.run_until_idle()
    assert (calls, held(kernel)) == ([0, 0, 1], 0)


def wake_up(kernel: Kernel, execution_id: str) -> Any:
    item = kernel.outbox.get(see(kernel, execution_id).item_id or "")
    assert item is not None
    return item


@pytest.mark.parametrize("how", ["execution", "item"])
def test_a_cancelled_one_leaves_its_place(open_kernel: Open, clock: FakeClock, how: str) -> None:
    """One that waits for its time and is cancelled lets the next one begin."""

    def fail() -> None:
        raise AutomateError(ErrorCodes.UNAVAILABLE, "away")

    retry = {"attempts": 2, "delay": "1h", "max_delay": "1h", "jitter": False}
    kernel = open_kernel(fail, concurrency=1, step={"retry": retry})
    first, second = kernel.start("w"), kernel.start("w")
    kernel.run_until_idle()
    if how == "execution":
        assert kernel.executions.cancel(first)
    else:
        assert kernel.outbox.cancel([wake_up(kernel, first).id]) == 1
    assert see(kernel, first).status is ExecutionStatus.CANCELLED
    assert (held(kernel), claim(kernel), held(kernel)) == (0, [second], 1)


def test_a_resumed_one_queues_again(open_kernel: Open) -> None:
    """A failed execution has left its place; resumed, it waits for one like any other."""
    kernel = open_kernel(lambda: 1 / 0, concurrency=1)
    first = kernel.start("w")
    kernel.run_until_idle()
    assert (see(kernel, first).status, held(kernel)) == (ExecutionStatus.FAILED, 0)
    second = kernel.start("w")
    assert claim(kernel) == [second]
    assert kernel.executions.resume(first)
    assert claim(kernel) == []
    kernel.outbox.mark_success(wake_up(kernel, second).id, "worker")
    assert claim(kernel) == [first]


def test_a_copy_with_another_payload_queues_for_its_own_key(open_kernel: Open) -> None:
    """It goes on beside no other of that key, and is in nobody's way whose key it had."""
    nap = {"id": "nap", "sleep": "1h"}
    kernel = open_kernel(concurrency={"key": CUSTOMER}, steps=[nap])
    first, second = (kernel.start("w", {"customer": each}) for each in "ab")
    kernel.run_until_idle()
    same = kernel.executions.fork(first, "nap")
    copy = kernel.executions.fork(first, "nap", payload={"customer": "b"})
    kernel.executions.cancel(first)
    kernel.run_until_idle()
    assert (see(kernel, same).status, see(kernel, copy).status) == ("RUNNING", "PENDING")
    kernel.executions.cancel(second)
    kernel.run_until_idle()
    assert see(kernel, copy).status is ExecutionStatus.RUNNING


def test_a_place_of_an_item_that_is_gone_is_mended(open_kernel: Open) -> None:
    """Somebody deletes the item by hand: the reaper frees its place."""
    kernel = open_kernel(concurrency=1)
    first, second = kernel.start("w"), kernel.start("w")
    assert claim(kernel) == [first]
    with kernel.storage.begin() as rows:
        rows.delete("automate_outbox", [Where("id", "eq", see(kernel, first).item_id)])
    assert claim(kernel) == []
    kernel.outbox.reap()
    assert claim(kernel) == [second]


@pytest.mark.parametrize("limit", [1, 2])
def test_skip_starts_nothing_while_enough_go_on(open_kernel: Open, limit: int) -> None:
    """A start raises with the running one's id; events end well, and a signal says so."""
    kernel = open_kernel(concurrency={"limit": limit, "key": CUSTOMER, "when_full": "skip"})
    running = [kernel.start("w", {"customer": 1}) for _ in range(limit)]
    with pytest.raises(SkippedError) as raised:
        kernel.start("w", {"customer": 1})
    assert raised.value.code is ErrorCodes.FAILED_PRECONDITION
    assert raised.value.running in running
    skipped: list[tuple[str, str]] = []

    def note(_: Kernel, workflow: Any, event: Any, execution_id: str) -> None:
        skipped.append((workflow.name, execution_id))

    with signals.workflow_skipped.connected_to(note):
        ids = [kernel.emit("go", {"customer": 1}) for _ in range(3)]
        kernel.start("w", {"customer": 2})
        items = kernel.outbox.claim_batch("worker", 50, kinds=["automate.event"])
        for item in items:
            handle(kernel, item)
    assert [name for name, _ in skipped] == ["w"] * 3
    assert {running for _, running in skipped} <= set(running)
    assert {kernel.outbox.get(each).status for each in ids} == {ItemStatus.COMPLETED}  # type: ignore[union-attr]
    assert statuses(kernel) == {"PENDING": limit + 1}
    kernel.run_until_idle()
    assert kernel.start("w", {"customer": 1}) not in running


def test_equal_numbers_are_one_key(open_kernel: Open) -> None:
    """Services write 7 and 7.0 for the same customer."""
    kernel = open_kernel(concurrency={"key": CUSTOMER, "when_full": "skip"})
    first = kernel.start("w", {"customer": 7})
    with pytest.raises(SkippedError) as caught:
        kernel.start("w", {"customer": 7.0})
    assert caught.value.running == first
    others = {kernel.start("w", {"customer": other}) for other in ("7", True, [7])}
    assert len(others - {first}) == 3


@pytest.mark.every_storage
def test_two_starts_at_once_do_not_both_pass(open_kernel: Open) -> None:
    """Whichever database, one of those that start together begins, and the others are skipped."""
    concurrency = {"when_full": "skip", "key": CUSTOMER}
    kernels = [open_kernel(concurrency=concurrency) for _ in range(4)]
    # Again with a key whose start lock is there, and with new ones.
    for customer in (0, 0, 1, 2, 3, 4, 5):
        starts = [
            lambda kernel=kernel: kernel.start("w", {"customer": customer})  # noqa: B023
            for kernel in kernels
        ]
        found = together(*starts)
        assert [type(each) for each in found].count(str) == 1
        assert sum(isinstance(each, SkippedError) for each in found) == 3
        kernels[0].run_until_idle()


def test_the_newest_takes_the_place_of_older_ones(open_kernel: Open) -> None:
    """What waits is cancelled at once; what runs is asked to stop, and holds its place until then."""
    kernel = open_kernel(concurrency={"when_full": "cancel_older"})
    first, second = kernel.start("w"), kernel.start("w")
    assert see(kernel, first).status is ExecutionStatus.CANCELLED
    assert claim(kernel) == [second]
    third = kernel.start("w")
    assert see(kernel, second).status is ExecutionStatus.CANCELLED
    assert claim(kernel) == []
    asked = kernel.outbox.stop_requests("worker")
    assert list(asked) == [wake_up(kernel, second).id]
    kernel.outbox.mark_retry(next(iter(asked)), "worker", 5)  # which makes it a cancelled one
    assert claim(kernel) == [third]


@pytest.mark.parametrize("seconds", [0, 1])
def test_cancel_older_of_many(open_kernel: Open, clock: FakeClock, seconds: int) -> None:
    """With a limit of two the oldest goes, whatever it waits for, also of those of one moment."""
    kernel = open_kernel(concurrency={"limit": 2, "when_full": "cancel_older"})
    ids = []
    for _ in range(5):
        ids.append(kernel.start("w", delay=3600))
        clock.advance(seconds)
    assert [see(kernel, each).status.value for each in ids] == ["CANCELLED"] * 3 + ["PENDING"] * 2


def test_the_key_is_of_one_tenant(open_kernel: Open) -> None:
    """Another tenant's executions are not in the way, and are not cancelled."""
    kernel = open_kernel(concurrency={"key": CUSTOMER, "when_full": "cancel_older"})
    ids = [kernel.start("w", {"customer": 1}, tenant_id=each) for each in ("a", "b")]
    assert {see(kernel, each).status for each in ids} == {ExecutionStatus.PENDING}


def test_the_key_is_of_one_workflow(open_kernel: Open) -> None:
    """Another one with an equal key is not in the way, though it is of the same customer."""
    limits: dict[str, Any] = {"concurrency": {"key": CUSTOMER, "when_full": "cancel_older"}}
    kernel = open_kernel(**limits)
    other = {"name": "v", "trigger": {"type": "manual"}, "steps": [{"id": "a", "action": "do.it"}]}
    kernel.add_workflow({**other, **limits})
    ids = [kernel.start(name, {"customer": 1}) for name in ("w", "v")]
    assert {see(kernel, each).status for each in ids} == {ExecutionStatus.PENDING}


def test_a_key_that_can_not_be_rendered(open_kernel: Open) -> None:
    """It fails the start, or the event's item, and nothing of it is begun."""
    kernel = open_kernel(concurrency={"key": CUSTOMER})
    with pytest.raises(AutomateError, match=r"concurrency\.key"):
        kernel.start("w", {})
    event = kernel.emit("go", {})
    kernel.run_until_idle()
    item = kernel.outbox.get(event)
    assert item is not None
    assert item.status is ItemStatus.FAILED
    assert statuses(kernel) == {}


@pytest.mark.parametrize(
    ("limit", "when_full"), [(1, "queue"), (1, "skip"), (1, "cancel_older"), (3, "queue")]
)
def test_a_sub_workflow_never_waits_for_those_that_wait_for_it(limit: int, when_full: str) -> None:
    """As deep as there are places it begins; then its step fails, and says why."""
    kernel = Kernel(discover=False, secrets={})
    define(kernel, {"id": "a", "workflow": "deep", "input": "{{ event.payload }}"}, name="between")
    kernel.add_workflow({
        "name": "deep", "trigger": {"type": "manual"},
        "concurrency": {"limit": limit, "key": "{{ event.payload.key }}", "when_full": when_full},
        "steps": [
            {"id": "down", "workflow": "between", "if": "{{ event.payload.n > 0 }}",
             "input": {"key": "{{ event.payload.key }}", "n": "{{ event.payload.n - 1 }}"}},
            {"id": "other", "workflow": "deep", "if": "{{ event.payload.n > 0 }}",
             "input": {"key": "other", "n": 0}},
        ],
    })  # fmt: skip
    fits = kernel.start("deep", {"key": "x", "n": limit - 1})
    kernel.run_until_idle()
    assert see(kernel, fits).status is ExecutionStatus.COMPLETED
    one = kernel.start("deep", {"key": "x", "n": limit})
    kernel.run_until_idle()
    failed = see(kernel, one)
    assert (failed.status, failed.error_code) == ("FAILED", "FAILED_PRECONDITION")
    assert "sub-workflow 'deep' would wait for ever" in str(failed.error)


def test_a_sub_workflow_that_nobody_waits_for_comes_to_its_turn() -> None:
    """Whoever started it holds its place no longer by then."""
    kernel = Kernel(discover=False, secrets={})
    kernel.add_workflow({
        "name": "deep", "trigger": {"type": "manual"}, "concurrency": 1,
        "steps": [
            {"id": "next", "workflow": "deep", "wait": False, "if": "{{ event.payload > 1 }}",
             "input": "{{ event.payload - 1 }}"},
        ],
    })  # fmt: skip
    define(kernel, {"id": "a", "workflow": "deep", "input": "{{ 3 }}"}, name="top")
    kernel.start("top")
    kernel.run_until_idle()
    assert statuses(kernel) == {"COMPLETED": 4}


def refused_for_its_lane(kernel: Kernel) -> Execution:
    """A sub-workflow that failed, since its own would have waited for the place of its parent."""
    lane = {"trigger": {"type": "manual"}, "concurrency": {"limit": 1}}
    leaf: dict[str, Any] = {"id": "leaf", "workflow": "top", "input": "{{ 0 }}"}
    kernel.add_workflow({"name": "middle", "trigger": {"type": "manual"}, "steps": [leaf]})
    top = {"id": "a", "workflow": "middle", "if": "{{ event.payload == 1 }}"}
    kernel.add_workflow({"name": "top", **lane, "steps": [top]})
    kernel.start("top", 1)
    kernel.run_until_idle()
    (middle,) = kernel.executions.find(workflow="middle")
    assert middle.status is ExecutionStatus.FAILED
    return middle


def test_a_copy_of_a_sub_workflow_has_nobody_who_waits_for_it() -> None:
    """So the places of those that waited for the original are free for its own sub-workflows."""
    kernel = Kernel(discover=False, secrets={})
    middle = refused_for_its_lane(kernel)
    copy = kernel.executions.fork(middle.id, "leaf")
    kernel.run_until_idle()
    assert see(kernel, copy).status is ExecutionStatus.COMPLETED


@pytest.mark.parametrize("how", ["resume", "retry_step"])
def test_a_sub_workflow_that_goes_on_after_its_parents_has_nobody_who_waits(
    open_kernel: Open, how: str
) -> None:
    """It was refused the place of its parent, which has ended and left it."""
    kernel = open_kernel()
    middle = refused_for_its_lane(kernel)
    if how == "resume":
        assert kernel.executions.resume(middle.id)
    else:
        assert kernel.executions.retry_step(middle.id, "leaf")
    kernel.run_until_idle()
    assert see(kernel, middle.id).status is ExecutionStatus.COMPLETED


def test_a_plain_workflow_has_no_gates_and_no_slots(open_kernel: Open) -> None:
    """What isn't used costs nothing: its wake-up has no key."""
    kernel = open_kernel()
    kernel.emit("go")
    kernel.run("w")
    kernel.run_until_idle()
    assert held(kernel) == 0
    assert locks(kernel) == 0
    assert {item.concurrency_key for item in kernel.outbox.find()} == {None}


def locks(kernel: Kernel) -> int:
    with kernel.storage.begin(atomic=False) as rows:
        return sum(row["n"] for row in rows.count(DEBOUNCE))


class ConcurrencyMachine(RuleBasedStateMachine):
    """Workers, operators and crashes around executions of two keys, of which so many may go on."""

    @initialize(limit=st.integers(1, 3))
    def open(self, limit: int) -> None:
        self.clock = FakeClock()
        self.kernel = Kernel(MemoryStorage(self.clock), discover=False, lease_seconds=10)
        self.kernel.action("do.it")(lambda: None)
        self.kernel.add_workflow(
            {"name": "w", "trigger": {"type": "manual"}, "steps": [{"id": "a", "action": "do.it"}],
             "concurrency": {"key": CUSTOMER, "limit": limit}}
        )  # fmt: skip
        self.limit = limit
        self.key_of: dict[str, int] = {}
        self.claimed: set[str] = set()
        self.begun: dict[str, int] = {}

    def item_of(self, execution_id: str) -> Any:
        return wake_up(self.kernel, execution_id)

    def going_on(self) -> Counter[int]:
        """By key the wake-ups that were claimed once, and have not ended."""
        found = self.kernel.outbox.find(ids=list(self.begun), limit=1000) if self.begun else []
        ended = {item.id for item in found if item.status.value in FINISHED}
        self.claimed -= ended
        self.begun = {each: key for each, key in self.begun.items() if each not in ended}
        return Counter(self.begun.values())

    @rule(customer=st.integers(0, 1))
    def start(self, customer: int) -> None:
        self.key_of[self.kernel.start("w", {"customer": customer})] = customer

    @rule(most=st.integers(1, 5))
    def claim(self, most: int) -> None:
        for item in self.kernel.outbox.claim_batch("worker", most):
            self.begun[item.id] = self.key_of[item.payload["execution_id"]]
            self.claimed.add(item.id)

    # A place instead of an id, which would be another one each time.
    @rule(
        place=st.integers(0, 30),
        how=st.sampled_from(["done", "failed", "snooze", "retry", "release"]),
    )
    def end(self, place: int, how: str) -> None:
        if not self.claimed:
            return
        item_id = sorted(self.claimed)[place % len(self.claimed)]
        self.claimed.discard(item_id)
        outbox = self.kernel.outbox
        with suppress(LeaseLostError):
            if how == "done":
                outbox.mark_success(item_id, "worker")
            elif how == "failed":
                outbox.mark_failed(item_id, "worker")
            elif how == "snooze":
                outbox.snooze(item_id, "worker", 7)
            elif how == "retry":
                outbox.mark_retry(item_id, "worker", 7)
            else:
                outbox.release([item_id], "worker")

    @rule(place=st.integers(0, 30), by_item=st.booleans(), resume=st.booleans())
    def operate(self, place: int, by_item: bool, resume: bool) -> None:
        if not self.key_of:
            return
        execution_id = list(self.key_of)[place % len(self.key_of)]
        if resume and by_item:
            self.kernel.outbox.requeue([self.item_of(execution_id).id])
        elif resume:
            self.kernel.executions.resume(execution_id)
        elif by_item:
            self.kernel.outbox.cancel([self.item_of(execution_id).id])
        else:
            self.kernel.executions.cancel(execution_id)

    @rule(seconds=st.sampled_from([1, 7, 11, 1000]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)
        for item in self.kernel.outbox.reap().retried:
            self.claimed.discard(item.id)

    @invariant()
    def never_more_than_the_limit(self) -> None:
        if not hasattr(self, "kernel"):
            return
        going_on = self.going_on()
        assert all(count <= self.limit for count in going_on.values())
        assert held(self.kernel) == sum(going_on.values())

    def teardown(self) -> None:
        if not hasattr(self, "kernel"):
            return
        for _ in range(100):
            self.clock.advance(1000)
            self.kernel.outbox.reap()
            for item in self.kernel.outbox.claim_batch("last", 50):
                self.kernel.outbox.mark_success(item.id, "last")
            left = {item.status.value for item in self.kernel.outbox.find(limit=1000)}
            if left <= set(FINISHED):
                break
        assert left <= set(FINISHED)
        assert held(self.kernel) == 0
        self.kernel.close()


TestConcurrencyMachine = ConcurrencyMachine.TestCase
TestConcurrencyMachine.settings = settings(max_examples=examples(60, 15), stateful_step_count=40)


# -- rate limit ------------------------------------------------------------------------------------


def due_times(kernel: Kernel) -> list[datetime]:
    return sorted(
        item.next_attempt_at for item in kernel.outbox.find(kind="automate.advance", limit=500)
    )


def test_a_rate_spreads_the_beginnings(open_kernel: Open, clock: FakeClock) -> None:
    """Ten may begin at once, and then one every six seconds; none is dropped."""
    kernel = open_kernel(rate_limit={"limit": 10, "per": "1m"})
    begin = clock()
    for _ in range(15):
        kernel.emit("go")
    kernel.run_until_idle()
    times = [round((each - begin).total_seconds()) for each in due_times(kernel)]
    assert times == [0] * 10 + [6, 12, 18, 24, 30]
    assert statuses(kernel) == {"COMPLETED": 10, "PENDING": 5}
    clock.advance(13)
    kernel.run_until_idle()
    assert statuses(kernel)["COMPLETED"] == 12
    clock.advance(3600)  # a lull fills the bucket again, and no more
    for _ in range(11):
        kernel.start("w")
    kernel.run_until_idle()
    assert statuses(kernel) == {"COMPLETED": 25, "PENDING": 1}


def test_a_clock_that_is_put_back_holds_no_start_for_longer(
    open_kernel: Open, clock: FakeClock
) -> None:
    """The next place of a rate is as far away as it was."""
    kernel = open_kernel(rate_limit={"limit": 1, "per": "1m"})
    clock.advance(7200)
    for _ in range(3):
        kernel.start("w")
    begin = clock.advance(-7200)
    kernel.start("w")
    kernel.start("w")
    times = [round((each - begin).total_seconds()) for each in due_times(kernel)]
    assert times == [180, 240, 7200, 7260, 7320]


@pytest.mark.every_storage
def test_a_rate_per_key_under_many_kernels(open_kernel: Open, clock: FakeClock) -> None:
    """Starts on several threads never share a place, and each customer has its own rate."""
    rate = {"limit": 1, "per": "10s", "burst": 1, "key": CUSTOMER}
    kernels, begin = [open_kernel(rate_limit=rate) for _ in range(3)], clock()

    def start(kernel: Kernel) -> Callable[[], Any]:
        return lambda: [kernel.start("w", {"customer": n % 2}) for n in range(6)]

    together(*map(start, kernels))
    times = [round((each - begin).total_seconds()) for each in due_times(kernels[0])]
    assert times == sorted(10 * (n // 2) for n in range(18))


def test_a_delay_and_a_rate(open_kernel: Open, clock: FakeClock) -> None:
    """The later of both counts."""
    kernel, begin = open_kernel(rate_limit={"limit": 1, "per": "1m"}), clock()
    for delay in (0, 10, 300):
        kernel.start("w", delay=delay)
    times = [round((each - begin).total_seconds()) for each in due_times(kernel)]
    assert times == [0, 60, 300]


@pytest.mark.every_storage
def test_a_burst_begins_at_once(open_kernel: Open, clock: FakeClock) -> None:
    """After a lull so many begin together, more than the limit or fewer; the rest by the rate."""
    for burst, expected in ((1, [0, 30, 60, 90]), (3, [0, 0, 0, 30])):
        rate = {"limit": 2, "per": "1m", "burst": burst}
        kernel, begin = open_kernel(rate_limit={**rate, "key": CUSTOMER}), clock()
        for _ in range(4):
            kernel.start("w", {"customer": burst})
        found = kernel.executions.find()
        mine = {one.item_id for one in found if one.event.payload["customer"] == burst}
        items = [kernel.outbox.get(each or "") for each in mine]
        due = sorted(item.next_attempt_at for item in items if item is not None)
        assert [round((each - begin).total_seconds()) for each in due] == expected


@pytest.mark.parametrize("begun", [False, True])
def test_one_that_is_paused_in_the_queue_lets_others_go_first(
    open_kernel: Open, begun: bool
) -> None:
    """It takes no place before it begins; one that has begun keeps its own."""
    kernel = open_kernel(concurrency=1, step={"wait_for": {"signal": "go"}, "action": None})
    first, second, third = (kernel.start("w", {"n": n}) for n in range(3))
    kernel.run_until_idle()
    assert kernel.executions.pause(second)
    if begun:
        assert kernel.executions.pause(first)
    else:
        kernel.signal(first, "go")
    for _ in range(2):
        kernel.run_until_idle()
    status = [see(kernel, each).status.value for each in (first, second, third)]
    assert status == (
        ["PAUSED", "PAUSED", "PENDING"] if begun else ["COMPLETED", "PAUSED", "RUNNING"]
    )
    assert kernel.executions.unpause(second)
    kernel.run_until_idle()
    assert (see(kernel, second).status.value, held(kernel)) == ("PENDING", 1)
    going = first if begun else third
    kernel.executions.unpause(first)
    for each in (going, second, third):
        kernel.signal(each, "go") if not see(kernel, each).status.finished else None
        kernel.run_until_idle()
    assert (statuses(kernel), held(kernel)) == ({"COMPLETED": 3}, 0)


@pytest.mark.parametrize("when", ["before it died", "after it died"])
def test_one_that_is_paused_as_its_worker_dies_keeps_its_place(
    open_kernel: Open, clock: FakeClock, when: str
) -> None:
    """Its first step may have been called, though nothing of it is saved: half of it is done."""
    kernel = open_kernel(concurrency=1)
    first, second = kernel.start("w"), kernel.start("w")
    assert claim(kernel) == [first]
    if when == "before it died":
        assert kernel.executions.pause(first)
    clock.advance(11)
    assert len(kernel.outbox.reap()) == 1
    if when == "after it died":
        assert kernel.executions.pause(first)
    for _ in range(3):
        clock.advance(3600)
        kernel.outbox.reap()
        kernel.run_until_idle()
        assert see(kernel, second).status is ExecutionStatus.PENDING
    assert (see(kernel, first).status, held(kernel)) == (ExecutionStatus.PAUSED, 1)
    assert kernel.executions.unpause(first)
    kernel.run_until_idle()
    assert (statuses(kernel), held(kernel)) == ({"COMPLETED": 2}, 0)


@pytest.mark.parametrize(
    ("condition", "ends_at_once"),
    [
        ({"concurrency": 1}, False),
        ({"rate_limit": {"limit": 1, "per": "30d"}}, True),
        ({"debounce": {"for": "30d"}}, True),
        ({}, True),
    ],
)
def test_what_is_cancelled_before_it_begins_cleans_up(
    open_kernel: Open, condition: dict[str, Any], ends_at_once: bool
) -> None:
    """At once; with a concurrency once it has a place, or is cancelled a second time."""
    called: list[str] = []
    kernel = open_kernel(
        **condition,
        action=lambda: called.append("clean"),
        step={"wait_for": {"signal": "go"}, "action": None},
        **{"finally": [{"id": "clean", "action": "do.it"}]},
    )
    first = kernel.start("w", delay=86_400.0) if not condition else kernel.start("w")
    kernel.run_until_idle()
    second = first if "debounce" in condition or not condition else kernel.start("w")
    kernel.run_until_idle()
    assert see(kernel, second).status is ExecutionStatus.PENDING
    assert kernel.executions.cancel(second)
    for _ in range(3):
        kernel.run_until_idle()
    if ends_at_once:
        assert (see(kernel, second).status, called) == (ExecutionStatus.CANCELLED, ["clean"])
        return
    assert (see(kernel, second).status, called) == (ExecutionStatus.CANCELLING, [])
    third = kernel.start("w")
    assert kernel.executions.cancel(second)
    assert (see(kernel, second).status, called) == (ExecutionStatus.CANCELLED, [])
    assert kernel.executions.cancel(third)
    kernel.signal(first, "go")
    kernel.run_until_idle()
    assert see(kernel, third).status is ExecutionStatus.CANCELLED
    assert (called, held(kernel)) == (["clean"] * 2, 0)


# -- debounce --------------------------------------------------------------------------------------

DEBOUNCED = {"key": CUSTOMER, "for": "30s", "at_most": "70s"}


def test_the_last_of_many_events_starts_one_execution(open_kernel: Open, clock: FakeClock) -> None:
    """Once it has been quiet; each customer for itself."""
    kernel = open_kernel(debounce=DEBOUNCED)
    for n in range(3):
        kernel.emit("go", {"customer": 1, "n": n}, labels={"n": n})
        kernel.emit("go", {"customer": 2, "n": n})
        kernel.run_until_idle()
        clock.advance(20)
    assert statuses(kernel) == {"PENDING": 2}
    clock.advance(9)
    kernel.run_until_idle()
    assert statuses(kernel) == {"PENDING": 2}
    clock.advance(1)
    kernel.run_until_idle()
    found = kernel.executions.find()
    assert [each.event.payload["n"] for each in found] == [2, 2]
    assert statuses(kernel) == {"COMPLETED": 2}
    assert [len(kernel.executions.labelled(f"n={n}")) for n in range(3)] == [0, 0, 1]


def test_a_debounce_has_a_bound(open_kernel: Open, clock: FakeClock) -> None:
    """However many events come, it begins at most so long after the first."""
    kernel = open_kernel(debounce=DEBOUNCED)
    for n in range(8):
        kernel.run_until_idle()
        kernel.emit("go", {"customer": 1, "n": n})
        kernel.run_until_idle()
        clock.advance(10)
    clock.advance(60)
    kernel.run_until_idle()
    assert sorted(each.event.payload["n"] for each in kernel.executions.find()) == [6, 7]


@pytest.mark.every_storage
def test_an_event_in_one_batch_with_others(open_kernel: Open, clock: FakeClock) -> None:
    """Ten events that a worker takes together start one execution, with the last."""
    kernel = open_kernel(debounce={"for": "5s"})
    for n in range(10):
        kernel.emit("go", {"n": n})
    kernel.run_until_idle()
    clock.advance(5)
    kernel.run_until_idle()
    assert [each.event.payload["n"] for each in kernel.executions.find()] == [9]


@pytest.mark.parametrize("how", ["claimed", "ended", "cancelled"])
def test_one_that_has_begun_is_left_alone(open_kernel: Open, clock: FakeClock, how: str) -> None:
    """The next event begins another one, and the first keeps its event."""
    kernel = open_kernel(debounce={"for": "5s"})
    first = kernel.start("w", {"n": 1})
    assert kernel.start("w", {"n": 2}) == first
    clock.advance(5)
    if how == "claimed":
        assert claim(kernel) == [first]
    elif how == "ended":
        kernel.run_until_idle()
    else:
        assert kernel.executions.cancel(first)
    second = kernel.start("w", {"n": 3})
    assert second != first
    assert [see(kernel, each).event.payload["n"] for each in (first, second)] == [2, 3]
    assert kernel.start("w", {"n": 4}) == second


@pytest.mark.parametrize("how", ["execution", "workflow"])
def test_one_that_is_paused_before_it_begins_takes_the_last_event(
    open_kernel: Open, clock: FakeClock, how: str
) -> None:
    """It begins once it may, with that; it is neither doubled nor left with an old one."""
    ran: list[int] = []

    def note(n: int) -> None:
        ran.append(n)

    options = {"debounce": {"for": "30s"}, "step": {"input": {"n": "{{ event.payload.n }}"}}}
    kernel = open_kernel(note, **options)
    first = kernel.start("w", {"n": 1})
    if how == "execution":
        assert kernel.executions.pause(first)
    else:
        assert kernel.workflows.pause("w")
    for n in (2, 3, 4):  # before and after a worker has put it back
        assert kernel.start("w", {"n": -n}) == first
        assert kernel.start("w", {"n": n}) == first
        clock.advance(31)
        kernel.run_until_idle()
    assert ran == []
    assert kernel.start("w", {"n": 5}) == first
    if how == "execution":
        assert kernel.executions.unpause(first)
    else:
        assert kernel.workflows.resume("w")
    assert kernel.start("w", {"n": 6}) == first
    clock.advance(31)
    kernel.run_until_idle()
    assert (ran, statuses(kernel)) == ([6], {"COMPLETED": 1})


def test_a_clock_that_is_put_back_stretches_no_debounce(
    open_kernel: Open, clock: FakeClock
) -> None:
    kernel = open_kernel(debounce=DEBOUNCED)
    clock.advance(7200)
    kernel.start("w", {"customer": 1})
    clock.advance(-7200)
    for _ in range(5):
        kernel.start("w", {"customer": 1})
        clock.advance(20)
    kernel.run_until_idle()
    assert statuses(kernel) == {"COMPLETED": 1}


def test_a_debounced_execution_keeps_the_headers_of_its_item(open_kernel: Open) -> None:
    """As its trace; they may be those of a hook of the application."""
    kernel = open_kernel(debounce={"for": "30s"}, concurrency={"limit": 1})
    item_id = see(kernel, kernel.start("w")).item_id or ""
    with kernel.storage.begin() as rows:
        (row,) = rows.select(OUTBOX, [Where("id", "eq", item_id)])
        headers = {**row["headers"], "traceparent": "of-the-first"}
        rows.update(OUTBOX, [Where("id", "eq", item_id)], {"headers": headers})
    kernel.start("w")
    item = kernel.outbox.get(item_id)
    assert item is not None
    assert item.headers == headers


def test_a_debounced_execution_begins_as_its_last_event_would(
    open_kernel: Open, clock: FakeClock
) -> None:
    """A deployment between two events: definition, labels and places are those of the second."""
    ran: list[str] = []

    def note(text: str) -> None:
        ran.append(text)

    def deployed(text: str, **more: Any) -> Kernel:
        quiet = {"for": "10s", "key": CUSTOMER}
        return open_kernel(note, debounce=quiet, step={"input": {"text": text}}, **more)

    old = deployed("{{ event.payload.a }}", concurrency=1, labels={"of": "old"})
    first = old.start("w", {"customer": 1, "a": "one"})
    assert old.workflows.pause("w")
    clock.advance(11)
    old.run_until_idle()
    assert held(old) == 1  # it was claimed, and put back
    new = deployed("{{ event.payload.b }}", concurrency={"key": CUSTOMER, "limit": 1})
    assert new.start("w", {"customer": 1, "b": "two"}) == first
    assert held(new) == 0
    assert see(new, first).labels == {} and new.executions.labelled("of=old") == []
    assert new.workflows.resume("w")
    clock.advance(11)
    new.run_until_idle()
    assert (ran, held(new), statuses(new)) == (["two"], 0, {"COMPLETED": 1})


@pytest.mark.parametrize("how", ["resume", "resume from", "retry_step", "paused"])
def test_one_that_goes_on_keeps_its_event(open_kernel: Open, clock: FakeClock, how: str) -> None:
    """What it has done was for its own event: the next one begins another execution."""
    broken = [True]

    def do(n: int) -> None:
        if broken:
            raise AutomateError(ErrorCodes.FAILED_PRECONDITION, "broken")

    kernel = open_kernel(do, debounce={"for": "5s"}, step={"input": {"n": "{{ event.payload.n }}"}})
    first = kernel.start("w", {"n": 1})
    clock.advance(5)
    kernel.run_until_idle()
    assert see(kernel, first).status is ExecutionStatus.FAILED
    broken.clear()
    if how == "retry_step":
        assert kernel.executions.retry_step(first, "a")
    else:
        assert kernel.executions.resume(first, step_id="a" if how == "resume from" else None)
    if how == "paused":
        assert kernel.executions.pause(first)
    second = kernel.start("w", {"n": 2})
    assert second != first
    kernel.executions.unpause(first)
    clock.advance(5)
    kernel.run_until_idle()
    ended = [see(kernel, each) for each in (first, second)]
    assert [each.status for each in ended] == [ExecutionStatus.COMPLETED] * 2
    assert [each.event.payload["n"] for each in ended] == [1, 2]


def test_the_event_that_was_sent_last_counts_whatever_comes_last(
    open_kernel: Open, clock: FakeClock
) -> None:
    """Two workers, or a priority, bring them in another order, and the older one took the place."""
    ran: list[int] = []

    def note(n: int) -> None:
        ran.append(n)

    number = {"input": {"n": "{{ event.payload.n }}"}}
    kernel = open_kernel(note, debounce={"for": "5s"}, step=number)
    for n in range(3):
        kernel.emit("go", {"n": n}, priority=n)
        clock.advance(1)
    kernel.run_until_idle()
    clock.advance(5)
    kernel.run_until_idle()
    assert ran == [2]


@pytest.mark.every_storage
def test_two_first_events_at_once(open_kernel: Open) -> None:
    """They meet at the start lock: one execution, whichever is the last."""
    kernels = [open_kernel(debounce={"for": "5s"}) for _ in range(4)]
    for _ in range(3):
        together(*[lambda kernel=kernel: kernel.start("w") for kernel in kernels])
    assert statuses(kernels[0]) == {"PENDING": 1}


@pytest.mark.every_storage
def test_no_event_is_lost_between_waiting_and_beginning(
    open_kernel: Open, clock: FakeClock
) -> None:
    """While executions begin, starts come: each is in an execution that ran with it or a later."""
    ran: dict[str, int] = {}

    def note(n: int) -> None:
        ran[current_call().execution_id or ""] = n

    options = {"debounce": {"for": "2s"}, "step": {"input": {"n": "{{ event.payload.n }}"}}}
    kernels = [open_kernel(note, **options) for _ in range(3)]
    started: list[tuple[int, str]] = []
    lock, over = threading.Lock(), threading.Event()

    def start(kernel: Kernel) -> None:
        for _ in range(40):
            with lock:  # so that the last one is known
                n = len(started)
                started.append((n, kernel.start("w", {"n": n})))

    def run() -> None:
        while not over.is_set():
            clock.advance(1)
            kernels[2].run_until_idle()

    runner = threading.Thread(target=run)
    runner.start()
    together(lambda: start(kernels[0]), lambda: start(kernels[1]))
    over.set()
    runner.join(60)
    clock.advance(5)
    kernels[2].run_until_idle()
    assert set(ran) == {execution_id for _, execution_id in started}
    assert [n for n, execution_id in started if ran[execution_id] < n] == []
    last = {execution_id: n for n, execution_id in started}
    assert ran == last


def test_a_debounced_execution_has_the_key_of_its_last_event(
    open_kernel: Open, clock: FakeClock
) -> None:
    """It waits for a place of that one, and for none of the first event's."""
    kernel = open_kernel(
        debounce={"for": "5s", "key": "{{ event.payload.document }}"},
        concurrency={"key": CUSTOMER, "limit": 1},
        step={"sleep": "1h", "action": None},
    )
    kernel.start("w", {"document": 1, "customer": "b"})
    kernel.run_until_idle()
    clock.advance(6)
    kernel.run_until_idle()
    kernel.start("w", {"document": 2, "customer": "a"})
    late = kernel.start("w", {"document": 2, "customer": "b"})
    kernel.start("w", {"document": 3, "customer": "a"})
    clock.advance(6)
    kernel.run_until_idle()
    assert statuses(kernel) == {"RUNNING": 2, "PENDING": 1}
    assert see(kernel, late).status is ExecutionStatus.PENDING
    clock.advance(3600)
    kernel.run_until_idle()
    assert see(kernel, late).status is ExecutionStatus.RUNNING


def test_a_debounced_start_takes_no_other_time(open_kernel: Open) -> None:
    """The workflow decides when it begins, and which starts are one."""
    kernel = open_kernel(debounce={"for": "5s"})
    for option in ({"delay": 5}, {"idempotency_key": "k"}):
        with pytest.raises(AutomateError, match="debounce"):
            kernel.start("w", **option)  # type: ignore[arg-type]


@settings(max_examples=examples(100))
@given(
    st.lists(st.tuples(st.integers(1, 25), st.integers(0, 1)), min_size=1, max_size=25),
    st.none() | st.integers(30, 60),
)
def test_debounced_events_end_as_a_plain_model_says(
    events: list[tuple[int, int]], at_most: int | None
) -> None:
    """Any events at any times: each execution begins when and with what the model has."""
    clock, ran = FakeClock(), list[tuple[int, int]]()
    bound = {} if at_most is None else {"at_most": f"{at_most}s"}
    with Kernel(MemoryStorage(clock), discover=False) as kernel:

        @kernel.action("note")
        def note(n: int) -> None:
            ran.append((n, round((clock() - begin).total_seconds())))

        step = {"id": "a", "action": "note", "input": {"n": "{{ event.payload.n }}"}}
        define(kernel, step, debounce={"for": "20s", "key": CUSTOMER, **bound})
        begin, time = clock(), 0
        pending: dict[int, tuple[int, int, int]] = {}
        wanted: list[tuple[int, int]] = []
        for n, (gap, customer) in enumerate([*events, (1000, 0)]):
            for _ in range(gap):
                time += 1
                clock.advance(1)
                over = [key for key, (due, _, _) in pending.items() if due <= time]
                wanted += [(pending.pop(key)[2], time) for key in over]
                if over:
                    kernel.run_until_idle()
            _, first, _ = pending.get(customer, (0, time, 0))
            due = time + 20 if at_most is None else min(time + 20, first + at_most)
            pending[customer] = (due, first, n)
            kernel.start("w", {"customer": customer, "n": n})
    assert sorted(ran) == sorted(wanted)


def test_old_gates_go(open_kernel: Open, clock: FakeClock) -> None:
    """Those that a day has passed, but not one behind which an execution waits."""
    kernel = open_kernel(debounce={"for": "3d", "key": CUSTOMER})
    waiting = kernel.start("w", {"customer": 1})
    kernel.executions.cancel(kernel.start("w", {"customer": 2}))
    assert (kernel.executions.purge_start_locks(), locks(kernel)) == (0, 2)
    clock.advance(2 * 86_400)
    assert (kernel.executions.purge_start_locks(), locks(kernel)) == (1, 1)
    assert kernel.start("w", {"customer": 1}) == waiting


@pytest.mark.every_storage
def test_many_keys_at_once_do_not_wait_in_a_circle(
    open_kernel: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of several keys, in different orders, are taken by three workers without a deadlock."""
    concurrency = {"key": CUSTOMER, "when_full": "cancel_older", "limit": 2}
    kernels = [open_kernel(concurrency=concurrency, rate_limit={"limit": 1000}) for _ in range(3)]
    for kernel in kernels:
        # They would put off what a paused thread holds up. The database finds a circle by itself.
        monkeypatch.setattr(kernel._runner._locked_starts, "wait_briefly", lambda *_: None)
    for n in range(60):
        kernels[0].emit("go", {"customer": (n * 7) % 5})

    def work(kernel: Kernel, number: int) -> None:
        while items := kernel.outbox.claim_batch(f"w{number}", 7, kinds=["automate.event"]):
            kernel._runner.begin_events(items)

    together(*[
        lambda kernel=kernel, number=number: work(kernel, number)
        for number, kernel in enumerate(kernels)
    ])  # fmt: skip
    found = kernels[0].executions.find(limit=100)
    assert len(found) == 60
    assert statuses_of(found) == {"CANCELLED": 50, "PENDING": 10}


def statuses_of(found: list[Execution]) -> Counter[str]:
    return Counter(each.status.value for each in found)


def test_an_older_one_cleans_up_before_the_newest_begins() -> None:
    """It is undone like any that is cancelled, and holds its place until then."""
    kernel = Kernel(discover=False, secrets={})
    called: list[str] = []

    @kernel.action("note")
    def note(what: str) -> None:
        called.append(what)

    def step(what: str) -> dict[str, Any]:
        return {"action": "note", "input": {"what": what}}

    kernel.add_workflow(
        {
            "name": "w", "trigger": {"type": "manual"},
            "concurrency": {"when_full": "cancel_older"},
            "steps": [
                {"id": "book", **step("book"), "compensate": step("unbook")},
                {"id": "wait", "wait_for": {"signal": "go"}},
            ],
            "finally": [{"id": "last", **step("last")}],
        }
    )  # fmt: skip
    first = kernel.start("w")
    kernel.run_until_idle()
    second = kernel.start("w")
    assert see(kernel, first).status is ExecutionStatus.CANCELLING
    # Another one leaves the first to its clean-up.
    third = kernel.start("w")
    kernel.run_until_idle()
    assert called == ["book", "unbook", "last", "last", "book"]
    assert see(kernel, first).status is ExecutionStatus.CANCELLED
    assert see(kernel, second).status is ExecutionStatus.CANCELLED
    assert see(kernel, third).status is ExecutionStatus.RUNNING


def test_a_crash_keeps_the_place(open_kernel: Open, clock: FakeClock) -> None:
    """The worker dies: nobody else begins before the execution has gone on and ended."""
    kernel = open_kernel(concurrency=1)
    first, second = kernel.start("w"), kernel.start("w")
    assert claim(kernel) == [first]
    clock.advance(11)
    assert len(kernel.outbox.reap()) == 1
    assert (held(kernel), claim(kernel)) == (1, [])
    clock.advance(3600)
    assert claim(kernel) == [first]
    # Handed back by a graceful stop, it keeps it too.
    kernel.outbox.release([wake_up(kernel, first).id], "worker")
    assert held(kernel) == 1
    kernel.run_until_idle()
    assert (statuses(kernel), held(kernel)) == ({"COMPLETED": 2}, 0)
    assert see(kernel, second).status is ExecutionStatus.COMPLETED


@pytest.mark.every_storage
def test_a_worker_keeps_the_limit(open_kernel: Open) -> None:
    """Under a real worker with threads no more than two run at a time, and all end."""
    lock, running, most = threading.Lock(), 0, 0
    two = threading.Event()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 2:
                two.set()
        two.wait(PATIENCE)
        threading.Event().wait(0.002)
        with lock:
            running -= 1

    kernel = open_kernel(work, concurrency=2)
    for _ in range(10):
        kernel.emit("go")
    worker = kernel.worker(poll_seconds=0.02)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    until(lambda: statuses(kernel) == {"COMPLETED": 10})
    worker.stop()
    thread.join(PATIENCE)
    assert (most, held(kernel)) == (2, 0)


@pytest.mark.every_storage
def test_a_running_step_is_cancelled_for_the_newest(open_kernel: Open) -> None:
    """Under a real worker the older one's coroutine is cancelled, and the newest one runs."""
    heard: list[str] = []

    async def wait(n: int) -> int:
        heard.append(f"begun {n}")
        try:
            await asyncio.sleep(0 if n else 60)
        finally:
            heard.append(f"ended {n}")
        return n

    kernel = open_kernel(
        wait,
        concurrency={"when_full": "cancel_older"},
        step={"input": {"n": "{{ event.payload.n }}"}},
    )
    worker = kernel.worker(poll_seconds=0.02)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    tick = threading.Event()
    first = kernel.start("w", {"n": 0})
    while not heard:
        tick.wait(0.01)
    second = kernel.start("w", {"n": 1})
    for _ in range(2000):
        if see(kernel, second).status.finished:
            break
        tick.wait(0.01)
    worker.stop()
    thread.join(20)
    assert heard == ["begun 0", "ended 0", "begun 1", "ended 1"]
    assert see(kernel, first).status is ExecutionStatus.CANCELLED
    assert see(kernel, second).status is ExecutionStatus.COMPLETED
    assert held(kernel) == 0
