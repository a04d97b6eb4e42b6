"""Executions are steered while they run, wait or are over: cancelled, paused, repaired, copied."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE, Gate, until
from workers import working
from automate_kernel import Kernel, signals
from automate_kernel.base.errors import AutomateError, ErrorCodes, WorkflowError
from automate_kernel.outbox import ItemStatus
from automate_kernel.storage import MemoryStorage
from automate_testing.clock import FakeClock
from automate_kernel.worker.handler import cancelling
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.drive.driver import ActiveExecution
from automate_kernel.workflows.drive.engine import Engine
from automate_kernel.workflows.execution import Execution, ExecutionStatus

PENDING, RUNNING, PAUSED, CANCELLING = (
    ExecutionStatus.PENDING,
    ExecutionStatus.RUNNING,
    ExecutionStatus.PAUSED,
    ExecutionStatus.CANCELLING,
)
COMPLETED, FAILED, CANCELLED = (
    ExecutionStatus.COMPLETED,
    ExecutionStatus.FAILED,
    ExecutionStatus.CANCELLED,
)
RETRY = {"attempts": 5, "delay": 3600, "max_delay": 3600, "jitter": False}
CLEANERS = {
    "on_failure": [{"id": "mend", "action": "note", "input": {"what": "mend"}}],
    "on_cancel": [{"id": "tell", "action": "note", "input": {"what": "tell"}}],
    "finally": [{"id": "close", "action": "note", "input": {"what": "close"}}],
}


class Shop:
    """A kernel whose actions note what they do, and fail as long as they are told to."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.done: list[str] = []
        self.broken: dict[str, AutomateError] = {}
        self.cancelled: list[str] = []
        kernel.action("note")(self.note)
        signals.workflow_cancelled.connect(self.hear, sender=kernel)

    def note(self, what: str) -> str:
        if (error := self.broken.get(what)) is not None:
            raise error
        self.done.append(what)
        return f"{what} done"

    def hear(self, sender: Any, execution: Execution) -> None:
        self.cancelled.append(execution.id)

    def add(self, *steps: dict[str, Any], name: str = "w", **more: Any) -> Workflow:
        more = {"trigger": {"type": "manual"}, **more}
        (added,) = self.kernel.add_workflow({"name": name, "steps": list(steps), **more})
        return added

    def fails(self, what: str, code: ErrorCodes = ErrorCodes.NOT_FOUND) -> None:
        self.broken[what] = AutomateError(code, "it broke")

    def get(self, execution_id: str) -> Execution:
        found = self.kernel.executions.get(execution_id)
        assert found is not None
        return found

    def status(self, execution_id: str) -> ExecutionStatus:
        return self.get(execution_id).status

    def begun(self, payload: Any = None, *, name: str = "w", **options: Any) -> str:
        """Start an execution and let it come as far as it comes."""
        execution_id = self.kernel.start(name, payload, **options)
        self.kernel.run_until_idle()
        return execution_id


def step(what: str, **options: Any) -> dict[str, Any]:
    return {"id": what, "action": "note", "input": {"what": what}, **options}


def undoable(what: str, **options: Any) -> dict[str, Any]:
    undo = {"action": "note", "input": {"what": f"undo {what}"}}
    return step(what, compensate=undo, **options)


@pytest.fixture
def shop(clock: FakeClock) -> Iterator[Shop]:
    with Kernel(MemoryStorage(clock), discover=False, secrets={}) as kernel:
        yield Shop(kernel)


@pytest.fixture
def live_shop() -> Iterator[Shop]:
    with Kernel(discover=False, secrets={}) as kernel:
        yield Shop(kernel)


# -- cancelling --------------------------------------------------------------------------------------


def test_cancelling_what_waits(shop: Shop) -> None:
    """An execution that waits for a retry is undone, and CANCELLED after that, with one signal."""
    shop.add(undoable("a"), step("b", retry=RETRY), **CLEANERS)
    shop.fails("b", ErrorCodes.UNAVAILABLE)
    one = shop.begun()
    assert shop.kernel.executions.cancel(one)
    assert (shop.status(one), shop.cancelled) == (CANCELLING, [])
    shop.kernel.run_until_idle()
    assert shop.status(one) is CANCELLED
    assert shop.done == ["a", "undo a", "tell", "close"]
    assert shop.cancelled == [one]
    assert not shop.kernel.executions.cancel(one)
    item = shop.kernel.outbox.get(shop.get(one).item_id or "")
    assert item is not None
    assert item.status is ItemStatus.COMPLETED


def test_cancelling_where_nothing_is_to_clean_up(shop: Shop) -> None:
    """It is CANCELLED at once, and its signal is sent by who cancelled it."""
    shop.add(step("b", retry=RETRY))
    shop.fails("b", ErrorCodes.UNAVAILABLE)
    one = shop.begun()
    assert shop.kernel.executions.cancel(one)
    assert (shop.status(one), shop.cancelled) == (CANCELLED, [one])
    shop.kernel.run_until_idle()
    assert shop.cancelled == [one]


@pytest.mark.parametrize("force", [True, False])
def test_cancelling_twice_or_with_force(shop: Shop, force: bool) -> None:
    """It is CANCELLED at once: nothing cleans up any more, and the signal is sent once."""
    shop.add(undoable("a"), step("b", retry=RETRY), **CLEANERS)
    shop.fails("b", ErrorCodes.UNAVAILABLE)
    one = shop.begun()
    assert force or shop.kernel.executions.cancel(one)
    assert shop.kernel.executions.cancel(one, force=force)
    assert (shop.status(one), shop.cancelled) == (CANCELLED, [one])
    shop.kernel.run_until_idle()
    assert (shop.done, shop.cancelled) == (["a"], [one])


@pytest.mark.parametrize("cleaners", [CLEANERS, {}], ids=["cleans up", "does not"])
def test_cancelling_the_item(shop: Shop, cleaners: dict[str, Any]) -> None:
    """An operator who cancels the wake-up cancels the execution."""
    shop.add(step("b", retry=RETRY), **cleaners)
    shop.fails("b", ErrorCodes.UNAVAILABLE)
    one = shop.begun()
    assert shop.kernel.outbox.cancel([shop.get(one).item_id or ""]) == 1
    assert shop.status(one) is (CANCELLING if cleaners else CANCELLED)
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.cancelled) == (CANCELLED, [one])
    assert shop.done == (["tell", "close"] if cleaners else [])


def test_a_plain_step_that_runs_is_undone_once_it_has_ended(live_shop: Shop) -> None:
    """Its output is saved, nothing follows it, and then it is undone."""
    shop, begun, go_on = live_shop, threading.Event(), threading.Event()

    @shop.kernel.action("slow")
    def slow() -> str:
        begun.set()
        assert go_on.wait(PATIENCE)
        return "slow"

    undo = {"action": "note", "input": {"what": "undo {{ output }}"}}
    shop.add({"id": "a", "action": "slow", "compensate": undo}, step("b"), **CLEANERS)
    with working(shop.kernel):
        one = shop.kernel.start("w")
        assert begun.wait(PATIENCE)
        assert shop.kernel.executions.cancel(one)
        go_on.set()
        until(lambda: shop.status(one) is CANCELLED)
    assert shop.done == ["undo slow", "tell", "close"]
    assert shop.cancelled == [one]


def test_an_async_step_that_runs_is_cancelled(live_shop: Shop) -> None:
    """It is not undone, since it has not completed; its row says that it was CANCELLED."""
    shop, begun, stopped = live_shop, threading.Event(), threading.Event()

    @shop.kernel.action("sleep")
    async def sleep() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            stopped.set()

    undo = {"action": "note", "input": {"what": "undo sleep"}}
    shop.add(undoable("a"), {"id": "b", "action": "sleep", "compensate": undo}, **CLEANERS)
    with working(shop.kernel):
        one = shop.kernel.start("w")
        assert begun.wait(PATIENCE)
        until(lambda: shop.get(one).step("b"))  # it has a row by now
        assert shop.kernel.executions.cancel(one)
        until(lambda: shop.status(one) is CANCELLED)
        assert stopped.is_set()
    assert shop.done == ["a", "undo a", "tell", "close"]
    run = shop.get(one).step("b")
    assert run is not None
    assert run.status == "CANCELLED"


def dies(shop: Shop, step_id: str, times: int) -> None:
    """Have workers die over a step, so many times."""
    real, left = shop.kernel._runner.perform, [times]

    def perform(flow: Any, call: Any) -> Any:
        if call.step.id == step_id and left[0]:
            left[0] -= 1
            raise RuntimeError("died")
        return real(flow, call)

    shop.kernel._runner.perform = perform  # type: ignore[method-assign]


def run_through(shop: Shop, clock: FakeClock, execution_id: str) -> None:
    for _ in range(30):
        shop.kernel.run_until_idle()
        clock.advance(3600)
        if shop.status(execution_id).finished:
            return


def test_a_crash_in_the_middle_of_undoing(shop: Shop, clock: FakeClock) -> None:
    """What has been undone is not undone again."""
    shop.add(undoable("a"), undoable("b"), undoable("c"), step("d"), **CLEANERS)
    shop.fails("d")
    dies(shop, "b.compensate", 2)
    one = shop.begun()
    run_through(shop, clock, one)
    assert shop.status(one) is FAILED
    assert shop.done == ["a", "b", "c", "undo c", "undo b", "undo a", "mend", "close"]


def test_cancelling_in_the_middle_of_a_failure(shop: Shop, clock: FakeClock) -> None:
    """What has been undone stays so, and the rest is; on_cancel runs in place of on_failure."""
    shop.add(undoable("a"), undoable("b"), step("c"), **CLEANERS)
    shop.fails("c")
    dies(shop, "a.compensate", 1)
    one = shop.begun()
    assert shop.done == ["a", "b", "undo b"]
    shop.kernel.executions.cancel(one)
    run_through(shop, clock, one)
    assert shop.status(one) is CANCELLED
    assert shop.done == ["a", "b", "undo b", "undo a", "tell", "close"]


def test_what_kills_its_workers_is_undone(shop: Shop, clock: FakeClock) -> None:
    """An execution that is given up fails as by a step: what it did is undone first."""
    shop.add(undoable("a"), step("b"), **CLEANERS)
    dies(shop, "b", 100)
    failed: list[Any] = []

    def hear(sender: Any, **about: Any) -> None:
        failed.append(about)

    with signals.workflow_failed.connected_to(hear, sender=shop.kernel):
        one = shop.begun()
        run_through(shop, clock, one)
    assert shop.status(one) is FAILED
    assert shop.done == ["a", "undo a", "mend", "close"]
    assert "given up" in str(shop.get(one).error)
    assert len(failed) == 1


@pytest.mark.parametrize("by", ["execution", "item", "fork"])
def test_limited_executions_wait_for_the_clean_up(shop: Shop, by: str) -> None:
    """One of a key goes on at a time: also while it is undone, and where it is copied."""
    limit = {"key": "{{ event.payload }}", "limit": 1}
    shop.add(undoable("a"), step("b", retry=RETRY), concurrency=limit, **CLEANERS)
    shop.fails("b", ErrorCodes.UNAVAILABLE)
    first, second = shop.begun("k"), shop.begun("k")
    assert (shop.status(first), shop.status(second)) == (RUNNING, PENDING)
    store = shop.kernel.executions
    if by == "item":
        shop.kernel.outbox.cancel([shop.get(first).item_id or ""])
    elif by == "execution":
        store.cancel(first)
    else:
        copy = store.fork(first, "b")
        shop.kernel.run_until_idle()
        assert shop.status(copy) is PENDING
        store.cancel(copy)
        store.cancel(first)
    shop.kernel.run_until_idle()
    assert shop.status(first) is CANCELLED or by == "item"
    del shop.broken["b"]
    store.retry_step(second, "b")
    shop.kernel.run_until_idle()
    assert shop.status(second) is COMPLETED
    assert shop.status(first) is CANCELLED


# -- pausing -----------------------------------------------------------------------------------------


def test_a_paused_execution_waits(shop: Shop) -> None:
    """Nothing of it begins until it is let go, and its item waits for that."""
    shop.add(step("a"), step("b"))
    one, store = shop.kernel.start("w"), shop.kernel.executions
    assert store.pause(one)
    assert not store.pause(one)
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (PAUSED, [])
    item = shop.kernel.outbox.get(shop.get(one).item_id or "")
    assert item is not None
    assert (item.status, item.waiting_for, item.attempt_count) == (ItemStatus.PENDING, "resume", 0)
    assert store.unpause(one)
    assert (shop.status(one), store.unpause(one)) == (PENDING, False)
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (COMPLETED, ["a", "b"])


def test_a_pause_keeps_the_time_of_the_beginning(shop: Shop, clock: FakeClock) -> None:
    """One that begins later does so then, whether it was paused or a step of it tried by hand."""
    shop.add(step("a"))
    one, store = shop.kernel.start("w", delay=3600), shop.kernel.executions
    assert not store.retry_step(one, "a")
    shop.kernel.run_until_idle()
    assert store.pause(one)
    shop.kernel.run_until_idle()
    assert store.unpause(one)
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (PENDING, [])
    assert store.pause(one)
    clock.advance(3601)
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (PAUSED, [])
    assert store.unpause(one)
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (COMPLETED, ["a"])


def test_a_pause_keeps_the_times_of_retries(shop: Shop, clock: FakeClock) -> None:
    """A step that waits is not called earlier, and one that became due meanwhile at once."""
    shop.add(step("a"), step("b", retry=RETRY))
    shop.fails("b", ErrorCodes.UNAVAILABLE)
    one, store = shop.begun(), shop.kernel.executions
    del shop.broken["b"]
    assert store.pause(one)
    shop.kernel.run_until_idle()
    assert store.unpause(one)
    assert shop.status(one) is RUNNING
    shop.kernel.run_until_idle()
    assert shop.done == ["a"]
    assert store.pause(one)
    shop.kernel.run_until_idle()
    clock.advance(3601)
    shop.kernel.run_until_idle()
    assert shop.done == ["a"]
    store.unpause(one)
    shop.kernel.run_until_idle()
    assert (shop.done, shop.status(one)) == (["a", "b"], COMPLETED)


def test_what_runs_ends_before_the_pause(live_shop: Shop) -> None:
    """A step that runs is saved; the next one begins once the execution is let go."""
    shop, begun, go_on = live_shop, threading.Event(), threading.Event()

    @shop.kernel.action("slow")
    def slow() -> str:
        begun.set()
        assert go_on.wait(PATIENCE)
        assert not cancelling()
        return "slow"

    shop.add({"id": "a", "action": "slow"}, step("b"))
    with working(shop.kernel):
        one = shop.kernel.start("w")
        assert begun.wait(PATIENCE)
        assert shop.kernel.executions.pause(one)
        go_on.set()

        def is_parked() -> bool:
            item = shop.kernel.outbox.get(shop.get(one).item_id or "")
            return item is not None and item.waiting_for == "resume"

        until(is_parked)
        run = shop.get(one).step("a")
        assert run is not None
        assert (run.status, run.output, shop.done) == ("COMPLETED", "slow", [])
        assert shop.status(one) is PAUSED
        shop.kernel.executions.unpause(one)
        until(lambda: shop.status(one) is COMPLETED)
    assert shop.done == ["b"]


def test_an_execution_that_would_end_is_paused_all_the_same(live_shop: Shop) -> None:
    """The last step is saved, and the end is after the pause."""
    shop, begun, go_on = live_shop, threading.Event(), threading.Event()

    @shop.kernel.action("slow")
    def slow() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    shop.add({"id": "a", "action": "slow"}, output=7)
    with working(shop.kernel):
        one = shop.kernel.start("w")
        assert begun.wait(PATIENCE)
        shop.kernel.executions.pause(one)
        go_on.set()
        until(lambda: (run := shop.get(one).step("a")) and run.status == "COMPLETED")
        assert shop.status(one) is PAUSED
        shop.kernel.executions.unpause(one)
        until(lambda: shop.status(one) is COMPLETED)
    assert shop.get(one).output == 7


def test_a_failure_in_a_pause_is_kept(live_shop: Shop) -> None:
    """A step that fails while its execution is paused fails it, once it is let go."""
    shop, begun, go_on = live_shop, threading.Event(), threading.Event()

    @shop.kernel.action("slow")
    def slow() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        raise AutomateError(ErrorCodes.NOT_FOUND, "nothing there")

    shop.add(undoable("first"), {"id": "a", "action": "slow"}, step("b"))
    with working(shop.kernel):
        one = shop.kernel.start("w")
        assert begun.wait(PATIENCE)
        shop.kernel.executions.pause(one)
        go_on.set()
        until(lambda: (run := shop.get(one).step("a")) and run.status == "FAILED")
        assert (shop.status(one), shop.done) == (PAUSED, ["first"])
        shop.kernel.executions.unpause(one)
        until(lambda: shop.status(one) is FAILED)
    assert shop.done == ["first", "undo first"]


def test_cancelling_what_is_paused(shop: Shop) -> None:
    """It is undone without being let go first."""
    shop.add(undoable("a"), step("b", retry=RETRY), **CLEANERS)
    shop.fails("b", ErrorCodes.UNAVAILABLE)
    one, store = shop.begun(), shop.kernel.executions
    store.pause(one)
    shop.kernel.run_until_idle()
    assert store.cancel(one)
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (CANCELLED, ["a", "undo a", "tell", "close"])
    assert not store.pause(one)


def test_a_paused_workflow_holds_all_its_executions(shop: Shop) -> None:
    """Those that wait and new ones, of this workflow alone, until it is resumed."""
    trigger = {"type": "event", "event": "go"}
    shop.add(step("a"), step("b", retry=RETRY), trigger=trigger)
    shop.add(step("other"), name="other", trigger=trigger)
    shop.fails("b", ErrorCodes.UNAVAILABLE)
    first, workflows = shop.begun(), shop.kernel.workflows
    shop.done.clear()
    assert workflows.pause("w", "stock-taking")
    assert not workflows.pause("w")
    (paused,) = workflows.paused()
    assert (paused.workflow, paused.reason, paused.tenant_id) == ("w", "stock-taking", None)
    assert shop.kernel.outbox.stats().paused == ()
    shop.kernel.emit("go")
    second = shop.kernel.run("w", patience=0).id
    shop.kernel.executions.retry_step(first, "b")
    shop.kernel.run_until_idle()
    assert shop.done == ["other"]
    assert (shop.status(first), shop.status(second)) == (RUNNING, PENDING)
    del shop.broken["b"]
    assert workflows.resume("w")
    assert not workflows.resume("w")
    shop.kernel.run_until_idle()
    assert sorted(shop.done) == ["a", "a", "b", "b", "b", "other"]


def test_a_workflow_is_paused_for_one_tenant(shop: Shop) -> None:
    """The others go on; and an execution that is paused itself stays so."""
    shop.add(step("a"))
    workflows, store = shop.kernel.workflows, shop.kernel.executions
    workflows.pause("w", tenant_id="acme")
    held, free = shop.begun(tenant_id="acme"), shop.begun(tenant_id="other")
    assert (shop.status(held), shop.status(free)) == (PENDING, COMPLETED)
    assert [each.tenant_id for each in workflows.paused(tenant_id="acme")] == ["acme"]
    assert workflows.paused(tenant_id="other") == []
    store.pause(held)
    workflows.resume("w", tenant_id="acme")
    shop.kernel.run_until_idle()
    assert shop.status(held) is PAUSED


def test_a_cancellation_is_not_held_by_a_paused_workflow(shop: Shop) -> None:
    """Undoing goes on: who cancels wants it."""
    shop.add(undoable("a"), step("b", retry=RETRY), **CLEANERS)
    shop.fails("b", ErrorCodes.UNAVAILABLE)
    one = shop.begun()
    shop.kernel.workflows.pause("w")
    shop.kernel.executions.cancel(one)
    shop.kernel.run_until_idle()
    assert shop.status(one) is CANCELLED


def test_a_paused_workflow_stops_running_executions(
    live_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a second or so, between two steps."""
    shop, begun, go_on = live_shop, threading.Event(), threading.Event()
    request_release, to_release = Engine._request_release, Gate()

    def note(engine: Engine, driven: ActiveExecution) -> None:
        request_release(engine, driven)
        to_release.set()

    @shop.kernel.action("slow")
    def slow() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    shop.add({"id": "a", "action": "slow"}, step("b"))
    monkeypatch.setattr(Engine, "_request_release", note)
    with working(shop.kernel):
        one = shop.kernel.start("w")
        assert begun.wait(PATIENCE)
        shop.kernel.workflows.pause("w")
        to_release.pass_()
        go_on.set()

        def is_parked() -> bool:
            item = shop.kernel.outbox.get(shop.get(one).item_id or "")
            return item is not None and item.waiting_for == "resume"

        until(is_parked)
        assert shop.done == []
        shop.kernel.workflows.resume("w")
        until(lambda: shop.status(one) is COMPLETED)
    assert shop.done == ["b"]


# -- repairing ---------------------------------------------------------------------------------------


def test_what_was_undone_runs_again(shop: Shop) -> None:
    """A resumed execution does again what was undone, and what followed from it; no more."""
    shop.add(
        step("free"), undoable("a"), step("b"), step("c", needs=["free"]),
        step("d", needs=["b", "c"]), **CLEANERS,
    )  # fmt: skip
    shop.fails("d")
    one = shop.begun()
    assert shop.done == ["free", "a", "c", "b", "undo a", "mend", "close"]
    shop.done.clear()
    shop.broken.clear()
    assert shop.kernel.executions.resume(one)
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (COMPLETED, ["a", "b", "d", "close"])


def test_elements_that_were_undone_run_again(shop: Shop) -> None:
    """And those that were not stay done."""
    undo = {"action": "note", "input": {"what": "undo {{ item }}"}}
    each = {"id": "a", "action": "note", "input": {"what": "{{ item }}"}, "for_each": ["x", "y"]}
    shop.add({**each, "compensate": undo}, step("b"))
    shop.fails("b")
    shop.fails("undo y")
    one = shop.begun()
    assert shop.done == ["x", "y", "undo x"]
    shop.done.clear()
    shop.broken.clear()
    shop.kernel.executions.resume(one)
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (COMPLETED, ["x", "b"])


def test_an_execution_that_goes_on_shows_no_end(shop: Shop) -> None:
    """Its output, its error and the time of its end are those of the end before."""
    shop.add(step("a"), step("b"), output="{{ steps.b.output }}")
    one = shop.begun()
    ended = shop.get(one)
    assert (ended.status, ended.output) == (COMPLETED, "b done")
    assert shop.kernel.executions.resume(one, step_id="b")
    found = shop.get(one)
    assert found.status is ExecutionStatus.PENDING
    assert (found.output, found.error, found.completed_at) == (None, None, None)
    shop.fails("b")
    shop.kernel.run_until_idle()
    assert shop.status(one) is FAILED
    assert shop.kernel.executions.resume(one)
    found = shop.get(one)
    assert (found.error, found.error_code, found.error_group) == (None, None, None)
    assert found.completed_at is None


def test_resuming_on_a_corrected_definition(shop: Shop) -> None:
    """Finished steps stay, the corrected ones run, and pages show the new definition."""
    shop.add(step("a"), step("b", input={"what": "{{ event.payload.wrong }}"}))
    one = shop.begun({"right": "yes"})
    assert shop.status(one) is FAILED
    corrected = Workflow.from_dict(
        {
            "name": "w",
            "trigger": {"type": "manual"},
            "steps": [
                step("before"),
                step("a", needs=[]),
                step("b", input={"what": "{{ event.payload.right }}"}),
            ],
        }
    )
    assert shop.kernel.executions.resume(one, definition=corrected)
    shop.kernel.run_until_idle()
    found = shop.get(one)
    assert (found.status, found.definition_id) == (COMPLETED, corrected.hash())
    assert shop.done == ["a", "before", "yes"]


@pytest.mark.parametrize("block", [False, True])
def test_a_list_that_has_become_shorter_than_what_was_done(shop: Shop, block: bool) -> None:
    """Its step fails, rather than to give outputs of elements that are not in it."""
    call = {"action": "note", "input": {"what": "{{ item }}"}}
    work = {"steps": [{"id": "in", **call}]} if block else call
    each = {"id": "a", "for_each": "{{ event.payload }}", **work}
    defined = shop.add(each, output="{{ steps.a.output }}").to_dict()
    shop.fails("x")
    one = shop.begun(["p", "q", "r", "x"])
    shop.broken.clear()
    shorter = {**each, "for_each": "{{ event.payload[:2] }}"}
    corrected = Workflow.from_dict({**defined, "steps": [shorter]})
    assert shop.kernel.executions.resume(one, definition=corrected)
    shop.kernel.run_until_idle()
    failed = shop.get(one)
    assert (failed.status, failed.error_code) == (FAILED, "FAILED_PRECONDITION")
    assert "its for_each gave 2 elements, and more before" in str(failed.error)
    assert shop.kernel.executions.resume(one, step_id="a")
    shop.kernel.run_until_idle()
    assert shop.get(one).output == ["p done", "q done"]


def test_a_definition_that_does_not_fit_is_refused(shop: Shop) -> None:
    """It must have the steps that have completed, and be of the same workflow."""
    shop.add(step("a"), step("b"))
    shop.fails("b")
    one, store = shop.begun(), shop.kernel.executions
    other = {"name": "w", "trigger": {"type": "manual"}, "steps": [step("b")]}
    with pytest.raises(AutomateError, match="step 'a' has completed") as caught:
        store.resume(one, definition=Workflow.from_dict(other))
    assert caught.value.code is ErrorCodes.FAILED_PRECONDITION
    with pytest.raises(AutomateError, match="not of 'v'"):
        store.resume(one, definition=Workflow.from_dict({**other, "name": "v"}))
    assert shop.status(one) is FAILED
    shop.broken.clear()
    # From the step on that is gone nothing is kept.
    steps = [step("b")]
    assert store.resume(one, step_id="b", definition=Workflow.from_dict({**other, "steps": [
        step("a"), *steps]}))  # fmt: skip


def test_events_that_a_corrected_definition_waits_for_count_from_the_resume_on(
    shop: Shop,
) -> None:
    """They may come before its step begins; no execution has waited for such a one before."""
    shop.add(step("a"))
    shop.fails("a")
    one = shop.begun()
    corrected = Workflow.from_dict(
        {
            "name": "w",
            "trigger": {"type": "manual"},
            "steps": [
                step("a", input={"what": "right"}),
                {"id": "packed", "wait_for": {"event": "order.packed"}},
            ],
            "output": "{{ steps.packed.output.payload.n }}",
        }
    )
    assert shop.kernel.executions.resume(one, definition=corrected)
    shop.kernel.emit("order.packed", {"n": 1})
    # The event is passed on before the execution has come to the step that waits.
    shop.kernel.run_until_idle(kinds=["automate.event"])
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.get(one).output) == (COMPLETED, 1)


def test_what_is_resumed_is_undone_as_the_corrected_definition_says(shop: Shop) -> None:
    """A step that had completed without a compensation has one now."""

    def undone(what: str) -> dict[str, Any]:
        return {"compensate": {"action": "note", "input": {"what": what}}}

    shop.add(step("free"), step("b", **undone("old")), step("c"))
    shop.fails("c")
    one = shop.begun()
    assert shop.done == ["free", "b", "old"]
    steps = [step("free", **undone("undo free")), step("b", **undone("new")), step("c")]
    corrected = {"name": "w", "trigger": {"type": "manual"}, "steps": steps}
    shop.done.clear()
    assert shop.kernel.executions.resume(one, definition=Workflow.from_dict(corrected))
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (FAILED, ["b", "new", "undo free"])


@pytest.mark.parametrize("given", ["right.yaml", {"name": "w"}, Path("right.yaml"), print])
def test_what_is_no_definition_is_refused(shop: Shop, given: Any) -> None:
    """A file's path, and what else a kernel takes a workflow from, is told how it is read."""
    shop.add(step("a"), step("b"))
    shop.fails("b")
    one, store = shop.begun(), shop.kernel.executions
    for call in (lambda: store.resume(one, definition=given),
                 lambda: store.fork(one, "b", definition=given)):  # fmt: skip
        with pytest.raises(AutomateError, match=r"load_workflow\(path\)") as caught:
            call()
        assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    assert shop.status(one) is FAILED


@pytest.mark.parametrize(
    ("was", "corrected", "says"),
    [
        ({"for_each": ["x"]}, {}, "for the elements of a list, and has no for_each"),
        ({}, {"for_each": ["x"]}, "once, and has for_each"),
        ({"for_each": []}, {}, "for the elements of a list, and has no for_each"),
        ({"until": "{{ true }}"}, {}, "in rounds, and has no while and no until"),
        ({}, {"until": "{{ true }}"}, "once, and has while or until"),
        ({"for_each": ["x"]}, {"until": "{{ true }}"}, "for the elements of a list, and has while"),
    ],
)
def test_a_completed_step_repeats_as_before(
    shop: Shop, was: dict[str, Any], corrected: dict[str, Any], says: str
) -> None:
    """Else its output would be of another kind than the definition says; and the remedy works."""
    shop.add(step("a", **was), step("b"))
    shop.fails("b")
    one, store = shop.begun(), shop.kernel.executions
    shop.broken.clear()
    new = Workflow.from_dict(
        {"name": "w", "trigger": {"type": "manual"}, "steps": [step("a", **corrected), step("b")]}
    )
    with pytest.raises(AutomateError, match=f"step 'a' has completed {says}") as refused:
        store.resume(one, definition=new)
    assert "go on from it, with step_id" in str(refused.value)
    with pytest.raises(AutomateError, match=says):
        store.fork(one, "b", definition=new)
    shop.done.clear()
    assert store.resume(one, definition=new, step_id="a")
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (COMPLETED, ["a", "b"])


def test_a_completed_step_that_is_gone_is_forgotten_with_what_it_followed(shop: Shop) -> None:
    """Or nothing but a new start would be left; the remedy names a step before it."""
    each = {"id": "each", "action": "note", "input": {"what": "{{ item }}"}, "for_each": ["x", "y"]}
    shop.add(step("a"), each, step("c"))
    shop.fails("y")
    one, store = shop.begun(), shop.kernel.executions
    new = Workflow.from_dict(
        {"name": "w", "trigger": {"type": "manual"}, "steps": [step("a"), step("d"), step("c")]}
    )
    with pytest.raises(AutomateError, match="element 0 of step 'each' has completed") as refused:
        store.resume(one, definition=new)
    assert "go on from a step before it, 'a' say" in str(refused.value)
    copy = store.fork(one, "a", definition=new)
    shop.done.clear()
    assert store.resume(one, definition=new, step_id="a")
    shop.kernel.run_until_idle()
    assert shop.done == ["a", "d", "c"] * 2
    for found in (shop.get(one), shop.get(copy)):
        assert [run.step_id for run in found.steps] == ["a", "d", "c"]


def test_a_fork_runs_from_a_step_with_another_payload(shop: Shop) -> None:
    """What came before is copied and not called; the original stays as it is."""
    shop.add(
        step("a"), step("b", input={"what": "{{ event.payload.n }} {{ steps.a.output }}"}),
        output="{{ steps.b.output }}",
    )  # fmt: skip
    one = shop.begun({"n": "1"}, labels={"order": 7})
    new = shop.kernel.executions.fork(one, "b", payload={"n": "2"})
    shop.kernel.run_until_idle()
    first, copy = shop.get(one), shop.get(new)
    assert shop.done == ["a", "1 a done", "2 a done"]
    assert (first.output, copy.output) == ("1 a done done", "2 a done done")
    assert copy.labels == {"order": "7", "forked_from": one}
    assert [found.id for found in shop.kernel.executions.labelled(f"forked_from={one}")] == [new]
    assert shop.kernel.executions.fork(one, "a") not in (one, new)
    with pytest.raises(WorkflowError):
        shop.kernel.executions.fork(one, "nothing")


def test_a_fork_does_again_what_was_undone(shop: Shop) -> None:
    """The copy can't build on what is no more."""
    shop.add(undoable("a"), step("b"))
    shop.fails("b")
    one = shop.begun()
    shop.done.clear()
    shop.broken.clear()
    shop.kernel.executions.fork(one, "b")
    shop.kernel.run_until_idle()
    assert shop.done == ["a", "b"]


def test_one_failed_step_is_retried(shop: Shop) -> None:
    """It runs again with what follows from it; another that failed and may stays so."""
    shop.add(
        step("a", on_failure="continue"),
        step("b", needs=[], on_failure="continue"),
        step("c", needs=["b"]),
    )
    shop.fails("a")
    shop.fails("b")
    one, store = shop.begun(), shop.kernel.executions
    assert (shop.status(one), shop.done) == (COMPLETED, ["c"])
    shop.broken.clear()
    assert not store.retry_step(one, "c")
    assert store.retry_step(one, "b")
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (COMPLETED, ["c", "b", "c"])
    with pytest.raises(WorkflowError):
        store.retry_step(one, "nothing")


def test_a_failed_step_is_retried_and_the_execution_goes_on(shop: Shop) -> None:
    """Of a list the elements that have failed run again."""
    each = {"id": "a", "action": "note", "input": {"what": "{{ item }}"}, "for_each": ["x", "y"]}
    shop.add(each, step("b"))
    shop.fails("y")
    one = shop.begun()
    shop.broken.clear()
    assert shop.kernel.executions.retry_step(one, "a", 1)
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (COMPLETED, ["x", "y", "b"])


def test_all_that_waits_for_its_retry_in_a_step_is_due_now(shop: Shop) -> None:
    """Its elements or its rounds, or what is inside it; a position means one of them."""
    call = {"action": "note", "input": {"what": "{{ item }}"}, "retry": RETRY}
    each = {"for_each": ["x", "y"], "concurrency": 2}
    rounds = {"id": "again", **call, "input": {"what": "z"}, "until": "{{ true }}"}
    shop.add(
        {"id": "a", **each, **call, "needs": []},
        {"id": "b", **each, "steps": [{"id": "in", **call}], "needs": []},
        {**rounds, "needs": []},
    )
    for what in "xyz":
        shop.fails(what, ErrorCodes.UNAVAILABLE)
    one, retry = shop.begun(), shop.kernel.executions.retry_step

    def attempts(step_id: str) -> list[int]:
        shop.kernel.run_until_idle()
        runs = [run for run in shop.get(one).steps if run.step_id.partition("[")[0] == step_id]
        return [run.attempts for run in runs if run.status == "RETRY"]

    assert not retry(one, "b", 2)
    assert [attempts(step_id) for step_id in ("a", "b", "again")] == [[1, 1], [1, 1], [1]]
    assert retry(one, "a")
    assert retry(one, "b", 0)
    assert retry(one, "again")
    assert [attempts(step_id) for step_id in ("a", "b", "again")] == [[2, 2], [2, 1], [2]]
    shop.broken.clear()
    assert retry(one, "b")
    assert retry(one, "a")
    assert retry(one, "again")
    shop.kernel.run_until_idle()
    assert shop.status(one) is COMPLETED


def test_a_compensation_that_waits_is_due_by_its_own_name(shop: Shop) -> None:
    """The step that it undoes has ended, and waits for nothing."""
    undo = {"action": "note", "input": {"what": "undo"}, "retry": RETRY}
    shop.add(step("a", compensate=undo), step("b"))
    shop.fails("b")
    shop.fails("undo", ErrorCodes.UNAVAILABLE)
    one = shop.begun()
    assert not shop.kernel.executions.retry_step(one, "a")
    shop.broken.clear()
    assert shop.kernel.executions.retry_step(one, "a.compensate")
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (FAILED, ["a", "undo"])


@pytest.mark.parametrize("cancels", [True, False])
def test_a_compensation_that_failed_is_retried(shop: Shop, cancels: bool) -> None:
    """What was undone stays so; the end is the same as before, without the complaint."""
    shop.add(undoable("a"), undoable("b"), step("c", retry=RETRY), **CLEANERS)
    shop.fails("c", ErrorCodes.UNAVAILABLE if cancels else ErrorCodes.NOT_FOUND)
    shop.fails("undo a")
    one = shop.begun()
    if cancels:
        shop.kernel.executions.cancel(one)
        shop.kernel.run_until_idle()
    end = shop.status(one)
    assert "not undone: 'a'" in str(shop.get(one).error)
    del shop.broken["undo a"]
    shop.done.clear()
    assert shop.kernel.executions.retry_step(one, "a.compensate")
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (end, ["undo a", "close"])
    assert shop.get(one).error == (None if cancels else "step 'c' failed: it broke")


def test_an_element_that_could_not_be_undone_is_retried(shop: Shop) -> None:
    """The others stay undone, and lists under finally run again at the end."""
    each = {"id": "a", "action": "note", "input": {"what": "{{ item }}"}, "for_each": ["x", "y"]}
    undo = {"action": "note", "input": {"what": "undo {{ item }}"}}
    last = {**each, "id": "last", "input": {"what": "last {{ item }}"}}
    shop.add({**each, "compensate": undo}, step("b"), **{"finally": [last]})
    shop.fails("b")
    shop.fails("undo y")
    one = shop.begun()
    shop.broken.clear()
    shop.done.clear()
    assert shop.kernel.executions.retry_step(one, "a.compensate", 1)
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (FAILED, ["undo y", "last x", "last y"])
    assert shop.get(one).error == "step 'b' failed: it broke"


def test_a_step_under_finally_is_retried(shop: Shop) -> None:
    """After a success it ends COMPLETED, and nothing is undone."""
    shop.add(undoable("a"), **CLEANERS)
    shop.fails("close")
    one = shop.begun()
    assert shop.status(one) is FAILED
    shop.broken.clear()
    assert shop.kernel.executions.retry_step(one, "close")
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done) == (COMPLETED, ["a", "close"])


@pytest.mark.parametrize("cleaners", [CLEANERS, {"finally": CLEANERS["finally"]}])
def test_what_was_cancelled_while_it_closed_stays_so(
    shop: Shop, clock: FakeClock, cleaners: dict[str, Any]
) -> None:
    """Its own steps had come to their end by then, and a step under finally is retried."""
    (last,) = cleaners["finally"]
    shop.add(step("a"), **{**cleaners, "finally": [{**last, "retry": RETRY}]})
    shop.fails("close", ErrorCodes.UNAVAILABLE)
    one = shop.begun()
    assert shop.kernel.executions.cancel(one)
    shop.fails("close")
    clock.advance(3600)
    shop.kernel.run_until_idle()
    assert shop.status(one) is CANCELLED
    shop.broken.clear()
    assert shop.kernel.executions.retry_step(one, "close")
    shop.kernel.run_until_idle()
    assert (shop.status(one), shop.done[-1]) == (CANCELLED, "close")


@pytest.mark.parametrize("undoes", [True, False])
def test_what_was_undone_is_no_success(tmp_path: Path, undoes: bool) -> None:
    """Its steps have completed, but its output found no place: that it would now comes too late."""
    storage = MemoryStorage()
    with Kernel(storage, discover=False, secrets={}) as kernel:
        shop = Shop(kernel)
        workflow = shop.add(
            undoable("a") if undoes else step("a"),
            output=["{{ event.payload }}"] * 2,
            **({"finally": CLEANERS["finally"]} if undoes else CLEANERS),
        )
        shop.fails("close")
        one = shop.begun("x" * 600_000)
        assert (shop.status(one), shop.get(one).error_code) == (FAILED, "INVALID_ARGUMENT")
        assert shop.done == ["a", "undo a" if undoes else "mend"]
    with Kernel(storage, discover=False, secrets={}, output_store=tmp_path) as kernel:
        shop = Shop(kernel)
        kernel.add_workflow(workflow)
        assert kernel.run("w", "x" * 600_000).status is COMPLETED
        assert kernel.executions.retry_step(one, "close")
        kernel.run_until_idle()
        assert (shop.status(one), shop.done) == (FAILED, ["a", "close", "close"])


def test_elements_run_again_in_their_own_execution_alone(shop: Shop) -> None:
    """Another execution of the workflow keeps the elements that it has done."""
    undo = {"action": "note", "input": {"what": "undo {{ item }}"}}
    each = {"id": "a", "action": "note", "input": {"what": "{{ item }}"}, "for_each": ["x", "y"]}
    shop.add({**each, "compensate": undo}, step("b"))
    other = shop.begun()
    shop.fails("b")
    one = shop.begun()
    shop.broken.clear()
    assert shop.kernel.executions.resume(one)
    shop.kernel.run_until_idle()
    for execution_id in (other, one):
        statuses = [run.status.value for run in shop.get(execution_id).steps]
        assert statuses == ["COMPLETED"] * 4


def test_a_plain_step_can_see_that_its_execution_is_cancelled(live_shop: Shop) -> None:
    """``cancelling()`` is true in it, though its execution goes on to clean up."""
    shop, begun = live_shop, threading.Event()

    @shop.kernel.action("patient")
    def patient() -> None:
        begun.set()
        until(cancelling)

    shop.add({"id": "a", "action": "patient"}, step("b"), **CLEANERS)
    with working(shop.kernel):
        one = shop.kernel.start("w")
        assert begun.wait(PATIENCE)
        shop.kernel.executions.cancel(one)
        until(lambda: shop.status(one) is CANCELLED)
    assert shop.done == ["tell", "close"]


def test_a_step_that_waits_for_its_retry_is_due_now(shop: Shop) -> None:
    """The retry by hand is an attempt like any other."""
    shop.add(step("a", retry=RETRY))
    shop.fails("a", ErrorCodes.UNAVAILABLE)
    one = shop.begun()
    shop.broken.clear()
    assert shop.kernel.executions.retry_step(one, "a")
    shop.kernel.run_until_idle()
    run = shop.get(one).step("a")
    assert run is not None
    assert (shop.status(one), run.attempts) == (COMPLETED, 2)


def test_another_tenants_execution_is_not_there(shop: Shop) -> None:
    """It is neither cancelled nor paused, retried or copied."""
    shop.add(step("b", retry=RETRY), **CLEANERS)
    shop.fails("b", ErrorCodes.UNAVAILABLE)
    one, store = shop.begun(tenant_id="acme"), shop.kernel.executions
    assert not store.cancel(one, tenant_id="other")
    assert not store.pause(one, tenant_id="other")
    assert not store.retry_step(one, "b", tenant_id="other")
    with pytest.raises(AutomateError):
        store.fork(one, "b", tenant_id="other")
    assert store.pause(one, tenant_id="acme")
    assert not store.unpause(one, tenant_id="other")
    assert store.cancel(one, tenant_id="acme")
