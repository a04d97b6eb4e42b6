"""Polls: each event once, by one worker of many, whatever dies in between."""

from __future__ import annotations

import gc
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from machines import no_more_threads
from workers import call_due_polls, poll_due
from waiting import at_once, until
from automate_kernel import AutomateError, ConfigError, Connector, Kernel
from automate_kernel.plugins.connectors import PolledEvent, PollResult, TriggerSpec, poll
from automate_kernel.base.errors import LeaseLostError, PluginError
from automate_kernel.operations.context import current_call
from automate_kernel.triggers.polls import poller
from automate_kernel.triggers.polls.poller import _CLAIM_SECONDS
from automate_kernel.triggers.polls.spec import checked_result, polls_of
from automate_kernel.secrets import SecretsBackend
from automate_kernel.storage import MemoryStorage, Now, Where
from automate_kernel.storage.tables import OUTBOX, POLL
from automate_testing import FakeClock
from automate_sqlalchemy import SqlAlchemyStorage
from example_counts import examples
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from defined import define

pytestmark = pytest.mark.any_storage

Open = Callable[..., Kernel]


def do_it(row: Any) -> Any:
    return row


class Sheet:
    """The service: rows, and what it does to its callers."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.calls: list[tuple[Any, str | None]] = []
        self.error: Exception | None = None
        self.page = 100
        self.overlap = 0
        self.on_call: Callable[[], None] = lambda: None

    def connector(self, *, is_async: bool = False) -> type[Connector]:
        sheet = self

        class SheetConnector(Connector):
            key = "sheet"
            display_name = "Sheet"

            @poll("new_row", every="1m")
            def new_row(self, cursor: Any) -> PollResult:
                """Rows that were added."""
                return sheet.answer(cursor)

        class AsyncSheetConnector(SheetConnector):
            @poll("new_row", every="1m")
            async def new_row(self, cursor: Any) -> PollResult:
                return sheet.answer(cursor)

        return AsyncSheetConnector if is_async else SheetConnector

    def answer(self, cursor: Any) -> Any:
        call = current_call()
        self.calls.append((cursor, call.tenant_id if call else None))
        self.on_call()
        if self.error is not None:
            raise self.error
        begin = max(0, (cursor or {"at": 0})["at"] - self.overlap)
        end = min(begin + self.page, len(self.rows))
        events = [PolledEvent(f"row-{n}", self.rows[n]) for n in range(begin, end)]
        return PollResult(events, {"at": end}, more=end < len(self.rows))


@pytest.fixture
def sheet() -> Sheet:
    return Sheet()


@pytest.fixture
def open_kernel(clocked_storage: Any, sheet: Sheet) -> Iterator[Open]:
    """Opens kernels on the same data, each as a process of its own has it."""
    opened: list[Kernel] = []

    def open_kernel(event: str | None = "sheet.new_row", **options: Any) -> Kernel:
        opened.append(kernel_on(clocked_storage, sheet, event, **options))
        return opened[-1]

    yield open_kernel
    for kernel in opened:
        kernel.close()


def kernel_on(
    storage: Any, sheet: Sheet, event: str | None = "sheet.new_row", *, is_async: bool = False
) -> Kernel:
    connector = sheet.connector(is_async=is_async)
    kernel = Kernel(storage, plugins=[connector], discover=False, secrets={})
    kernel.action("do.it")(do_it)
    if event is not None:
        step = {"id": "a", "action": "do.it", "input": {"row": "{{ event.payload }}"}}
        trigger = {"type": "event", "event": event}
        kernel.add_workflow({"name": "w", "trigger": trigger, "steps": [step]})
    return kernel


def started(kernel: Kernel) -> list[Any]:
    """The payloads of the executions that there are."""
    kernel.run_until_idle()
    return sorted(one.event.payload for one in kernel.executions.find(limit=1_000))


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
def test_each_event_starts_a_workflow_once(
    open_kernel: Open, sheet: Sheet, clock: FakeClock, is_async: bool
) -> None:
    """The cursor comes back as it was given, and a poll waits for its time."""
    kernel = open_kernel(is_async=is_async)
    sheet.rows = ["a", "b"]
    assert started(kernel) == ["a", "b"]
    sheet.rows += ["c"]
    assert started(kernel) == ["a", "b"]
    clock.advance(60)
    assert started(kernel) == ["a", "b", "c"]
    assert sheet.calls == [(None, None), ({"at": 2}, None)]
    execution = kernel.executions.find()[0]
    assert (execution.event.name, execution.event.source) == ("sheet.new_row", "sheet")


def test_what_a_service_shows_for_months_is_known(
    open_kernel: Open, sheet: Sheet, clock: FakeClock
) -> None:
    """A feed has its last entries until others come, while deliveries are forgotten."""
    kernel = open_kernel()
    sheet.rows, sheet.overlap = ["a", "b"], 2
    started(kernel)
    for _ in range(8):
        clock.advance(10 * 86_400)
        kernel.purge(older_than_seconds=86_400)
        assert started(kernel) == []
    sheet.rows += ["c"]
    clock.advance(60)
    assert started(kernel) == ["c"]


def test_an_event_that_comes_again_is_known_by_its_id(
    open_kernel: Open, sheet: Sheet, clock: FakeClock
) -> None:
    """Services are asked for a little more than is new, since their clocks differ."""
    kernel = open_kernel()
    sheet.rows, sheet.overlap = ["a", "b"], 2
    started(kernel)
    sheet.rows += ["c"]
    clock.advance(60)
    assert started(kernel) == ["a", "b", "c"]
    assert kernel.polls.start_over("sheet.new_row") == 1
    assert started(kernel) == ["a", "b", "c"]
    assert sheet.calls[-1][0] is None


def test_a_poll_is_called_now(open_kernel: Open, sheet: Sheet) -> None:
    """Long before its time, also after a failure; one that is paused stays so."""
    kernel = open_kernel()
    sheet.error = OSError("away")
    assert started(kernel) == []
    sheet.rows, sheet.error = ["a"], None
    assert started(kernel) == []
    assert kernel.polls.call_now("sheet.new_row") == 1
    assert started(kernel) == ["a"]
    assert kernel.polls.pause("sheet.new_row") == 1
    assert kernel.polls.call_now("sheet.new_row") == 0


def test_pages_come_one_after_the_other(open_kernel: Open, sheet: Sheet, clock: FakeClock) -> None:
    """Without a wait in between, and each saved before the next."""
    kernel = open_kernel()
    sheet.rows, sheet.page = list(range(7)), 3
    kernel.run_until_idle()
    assert started(kernel) == list(range(7))
    assert [cursor for cursor, _ in sheet.calls] == [None, {"at": 3}, {"at": 6}]


def test_nothing_is_polled_that_nobody_listens_to(open_kernel: Open, sheet: Sheet) -> None:
    for event in (None, "other.event", "*", "sheet.other"):
        kernel = open_kernel(event)
        kernel.run_until_idle()
        assert kernel.polls.find() == []
    assert sheet.calls == []
    kernel = open_kernel("sheet.*")
    kernel.run_until_idle()
    assert len(sheet.calls) == 1
    (found,) = kernel.polls.find([("sheet.new_row", None)])
    assert found.state == "ok"
    assert kernel.polls.find([("sheet.*", None)]) == [found]
    assert kernel.polls.find([("sheet.*", "acme"), ("other.event", None)]) == []


@pytest.mark.every_storage
def test_of_many_workers_one_polls(open_kernel: Open, sheet: Sheet, clock: FakeClock) -> None:
    """However many see it due at the same moment."""
    kernels = [open_kernel() for _ in range(4)]
    sheet.rows = ["a"]
    barrier = threading.Barrier(4)

    def run(kernel: Kernel) -> None:
        barrier.wait(30)
        call_due_polls(kernel)

    at_once(*(partial(run, each) for each in kernels))
    assert len(sheet.calls) == 1
    assert started(kernels[0]) == ["a"]


@pytest.mark.every_storage
def test_a_worker_polls_beside_its_other_work(open_kernel: Open, sheet: Sheet) -> None:
    """On threads of its own: a service that is slow keeps nothing else from being done."""
    kernel = open_kernel()
    sheet.rows = ["a"]
    asked, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        asked.set()
        assert go_on.wait(30)

    sheet.on_call = wait
    assert poll_due(kernel) == 1
    assert asked.wait(30)
    assert poll_due(kernel) == 0
    go_on.set()
    until(lambda: kernel.polls.find()[0].state == "ok")
    assert started(kernel) == ["a"]


def test_a_worker_goes_on_to_poll_after_more_calls_than_it_has_threads(
    open_kernel: Open, sheet: Sheet, clock: FakeClock
) -> None:
    """One after the other, those that fail and those that overrun their claim among them."""
    kernel = open_kernel()

    def overrun() -> None:
        clock.advance(91)

    def done() -> bool:
        return len(sheet.calls) > number and not kernel._poller._busy

    for number in range(9):
        sheet.rows.append(f"{number}")
        sheet.error = ConnectionError("away") if number % 3 == 1 else None
        sheet.on_call = overrun if number % 3 == 2 else lambda: None
        assert poll_due(kernel) == 1
        until(done)
        clock.advance(4_000)
    sheet.error, sheet.on_call = None, lambda: None
    assert started(kernel) == sorted(sheet.rows)


@pytest.mark.every_storage
def test_four_threads_call_five_polls(clock: FakeClock) -> None:
    """The fifth once a thread is free; then all of them once more."""
    calls: list[str] = []
    begun, go_on = threading.Semaphore(0), threading.Event()

    def asked(name: str) -> Any:
        def call(self: Connector, cursor: Any) -> PollResult:
            """Ask for nothing."""
            calls.append(name)
            begun.release()
            assert go_on.wait(30)
            return PollResult([], 1)

        return poll(name, every="1m")(call)

    names = [f"p{number}" for number in range(5)]
    members = {"key": "many", "display_name": "Many", **{name: asked(name) for name in names}}
    connector = type("Many", (Connector,), members)
    with Kernel(MemoryStorage(clock), plugins=[connector], discover=False, secrets={}) as kernel:
        kernel.action("do.it")(do_it)
        steps = [{"id": "a", "action": "do.it", "input": {"row": 1}}]
        trigger = {"type": "event", "event": "many.*"}
        kernel.add_workflow({"name": "w", "trigger": trigger, "steps": steps})
        for number in range(1, 4):
            go_on.clear()
            assert poll_due(kernel) == 4
            for _ in range(4):
                assert begun.acquire(timeout=30)
            assert poll_due(kernel) == 0, "all threads have a call"
            go_on.set()
            until(lambda: not kernel._poller._busy)
            assert poll_due(kernel) == 1
            assert begun.acquire(timeout=30)
            until(lambda: not kernel._poller._busy)
            assert sorted(calls) == sorted(names * number)
            clock.advance(61)


def test_a_machine_without_threads_has_the_next_tick_call(sheet: Sheet, clock: FakeClock) -> None:
    """What was claimed is not left, and the worker goes on to poll."""
    sheet.rows = ["a"]
    with kernel_on(MemoryStorage(clock), sheet) as kernel:
        with no_more_threads("automate-poll"), pytest.raises(RuntimeError, match="thread"):
            poll_due(kernel)
        poll_due(kernel)
        until(lambda: started(kernel) == ["a"])


def test_a_claim_that_ran_out_saves_nothing(
    open_kernel: Open, sheet: Sheet, clock: FakeClock
) -> None:
    """A call that took too long comes back when another worker has gone on."""
    slow, quick = open_kernel(), open_kernel()
    sheet.rows = ["a"]

    def overtaken() -> None:
        sheet.on_call = lambda: None
        clock.advance(91)
        assert call_due_polls(quick) == 1
        sheet.rows.append("b")

    sheet.on_call = overtaken
    call_due_polls(slow)
    assert started(quick) == ["a"]
    clock.advance(60)
    assert started(quick) == ["a", "b"]


def test_the_poll_of_a_dead_worker_is_taken_over_within_half_a_minute(
    open_kernel: Open, sheet: Sheet, clock: FakeClock
) -> None:
    """However long its call might have taken: its claim is not renewed any more."""
    dead, other = open_kernel(), open_kernel()
    sheet.rows = ["a"]
    assert len(dead._poller._claim(1, seconds=_CLAIM_SECONDS)) == 1
    waited = 0
    while not poll_due(other):
        clock.advance(1)
        waited += 1
    assert _CLAIM_SECONDS <= waited <= 30
    until(lambda: started(other) == ["a"])


@pytest.mark.every_storage
@pytest.mark.parametrize("outage", [0, 3_600])
def test_a_call_that_goes_on_is_no_other_workers(
    open_kernel: Open, sheet: Sheet, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, outage: int
) -> None:
    """
    Its claim is renewed; after an hour without a database nobody is quicker to take it over.

    Nobody looks at what is due for the holder meanwhile: its worker stops, and lets it end.
    """
    monkeypatch.setattr(poller, "_RENEW_SECONDS", 0.005)
    holder, other = open_kernel(), open_kernel()
    go_on = threading.Event()

    def wait() -> None:
        assert go_on.wait(60)

    def is_renewed() -> bool:
        end = holder.polls.find()[0].claimed_until
        return end is not None and end - clock() >= timedelta(seconds=_CLAIM_SECONDS)

    sheet.rows, sheet.on_call = ["a"], wait
    assert poll_due(holder) == 1
    until(lambda: bool(sheet.calls))
    for _ in range(40):
        clock.advance(1)
        assert poll_due(other) == 0
        until(is_renewed)
    clock.advance(outage)
    for _ in range(40):
        assert poll_due(other) == 0
        until(is_renewed)
        clock.advance(1)
    go_on.set()
    until(lambda: started(other) == ["a"])
    assert len(sheet.calls) == 1


@pytest.mark.every_storage
def test_a_claim_that_was_taken_over_is_not_renewed_for_its_new_holder(
    open_kernel: Open, sheet: Sheet, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker that died after it would seem to go on, as long as the earlier one does."""
    monkeypatch.setattr(poller, "_RENEW_SECONDS", 0.005)
    holder, go_on = open_kernel(), threading.Event()
    sheet.rows, sheet.on_call = ["a"], lambda: go_on.wait(60) and None
    looks, look = [], holder._poller._to_renew
    monkeypatch.setattr(holder._poller, "_to_renew", lambda: looks.append(1) or look())
    assert poll_due(holder) == 1
    until(lambda: bool(sheet.calls))
    with holder.storage.begin() as rows:
        rows.update(POLL, [], {"claim_token": str(uuid.uuid4()), "claimed_until": Now(5)})
    seen = len(looks)
    until(lambda: len(looks) >= seen + 3)  # so it has renewed its own in between
    assert holder.polls.find()[0].claimed_until == clock() + timedelta(seconds=5)
    go_on.set()


@pytest.mark.every_storage
def test_a_call_that_hangs_is_another_workers_in_the_end(
    open_kernel: Open, sheet: Sheet, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing stops a function: past its time and a grace its claim is renewed no longer."""
    monkeypatch.setattr(poller, "_RENEW_SECONDS", 0.005)
    monkeypatch.setattr(poller, "_GRACE_SECONDS", -60.0)
    holder, other = open_kernel(), open_kernel()
    go_on, calls = threading.Event(), iter([lambda: go_on.wait(60)])
    sheet.rows, sheet.on_call = ["a"], lambda: next(calls, bool)() and None
    assert poll_due(holder) == 1
    until(lambda: bool(sheet.calls))
    for _ in range(30):
        clock.advance(1)
        if poll_due(other) or poll_due(holder):
            break
    until(lambda: started(other) == ["a"])
    go_on.set()


def test_a_connector_that_exits_is_a_failure(
    open_kernel: Open, sheet: Sheet, clock: FakeClock
) -> None:
    """It ends neither its host nor a worker's thread, which takes the next poll."""
    kernel = open_kernel()
    sheet.error = SystemExit("gone")
    kernel.run_until_idle()
    found = kernel.polls.find()[0]
    assert (found.state, found.error_code) == ("failing", "INTERNAL")
    for failures in (2, 3):
        clock.advance(3_600)
        assert poll_due(kernel) == 1
        until(lambda failures=failures: kernel.polls.find()[0].failures == failures)


def test_failures_are_shown_and_come_less_often(
    open_kernel: Open, sheet: Sheet, clock: FakeClock
) -> None:
    """With the wait that the service asks for; nothing is lost."""
    kernel = open_kernel()
    sheet.error = AutomateError("UNAVAILABLE", "the service is away", retry_after=600)
    kernel.run_until_idle()
    found = kernel.polls.find()[0]
    assert (found.state, found.failures, found.error_code) == ("failing", 1, "UNAVAILABLE")
    assert found.error == "the service is away"
    assert (found.next_at - clock()).total_seconds() == 600
    sheet.error = ValueError("boom")
    waits = []
    for _ in range(12):
        clock.advance(found.next_at - clock())
        kernel.run_until_idle()
        found = kernel.polls.find()[0]
        waits.append((found.next_at - clock()).total_seconds())
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (60, 3_600)
    sheet.error = None
    clock.advance(3_600)
    kernel.run_until_idle()
    found = kernel.polls.find()[0]
    assert (found.state, found.failures, found.error_code, found.error) == ("ok", 0, None, None)
    sheet.error = ValueError("boom")
    clock.advance(60)
    kernel.run_until_idle()
    assert kernel.polls.find()[0].state == "failing"
    assert kernel.polls.start_over("sheet.new_row") == 1
    again = kernel.polls.find()[0]
    assert (again.failures, again.error_code, again.error) == (0, None, None)
    sheet.error, sheet.rows = None, ["a"]
    clock.advance(3_600)
    assert started(kernel) == ["a"]
    found = kernel.polls.find()[0]
    assert (found.state, found.failures, found.error) == ("ok", 0, None)


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (None, "returned None|a NoneType"),
        ([], "returned a list"),
        (PollResult([PolledEvent(str(n)) for n in range(501)]), "501 events"),
        (PollResult(["x"]), "other things than events"),  # type: ignore[list-item]
        (PollResult(None), "events of the poll 'new_row' can't be a NoneType"),  # type: ignore[arg-type]
        (PollResult((each for each in ())), "can't be a generator"),  # type: ignore[arg-type]
        (PollResult([], 1, more="no"), "more of the poll"),  # type: ignore[arg-type]
        (PollResult([], cursor=object()), "JSON has not"),
        (PollResult([], cursor={1: 2}), "key that is not text"),
        (PollResult([], cursor={"at": "a\0b"}), "NUL character"),
        (PollResult([], cursor="x" * 70_000), "too long"),
        (PollResult([PolledEvent("a", object())]), "JSON"),
    ],
    ids=["none", "list", "many", "no events", "null events", "generator", "more", "object", "key",
         "nul", "long", "payload"],
)  # fmt: skip
def test_a_wrong_result_is_a_failure_and_changes_nothing(
    sheet: Sheet, result: Any, problem: str
) -> None:
    """It says what to return."""
    import re

    kernel = kernel_on(MemoryStorage(FakeClock()), sheet)
    sheet.answer = lambda cursor: result  # type: ignore[method-assign]
    kernel.run_until_idle()
    found = kernel.polls.find()[0]
    assert found.state == "failing"
    assert re.search(problem, found.error or "")
    assert started(kernel) == []
    kernel.close()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("half of \ud83d"), "half of \ufffd"),
        (LeaseLostError("not ours"), "not ours"),
        (AutomateError("UNAVAILABLE", "later", retry_after=1e18), "later"),
        (AutomateError("UNAVAILABLE", {"no": "text"}), "{'no': 'text'}"),  # type: ignore[arg-type]
    ],
    ids=["half a character", "lease", "endless wait", "no text"],
)
def test_every_error_is_recorded(
    open_kernel: Open, sheet: Sheet, error: Exception, text: str
) -> None:
    """One that a database can't store was seen nowhere, and the next call came with no back-off."""
    kernel = open_kernel()
    sheet.error = error
    kernel.run_until_idle()
    found = kernel.polls.find()[0]
    assert (found.state, found.failures) == ("failing", 1)
    assert text in (found.error or "")


def test_a_poll_that_says_keyboard_interrupt_ends_no_thread(sheet: Sheet, clock: FakeClock) -> None:
    """Of the threads of a worker none is interrupted: it is the plugin's own error."""
    kernel = kernel_on(MemoryStorage(clock), sheet)
    sheet.error = KeyboardInterrupt()  # type: ignore[assignment]
    for failures in (1, 2, 3):
        assert poll_due(kernel) == 1
        until(lambda failures=failures: kernel.polls.find()[0].failures == failures)
        clock.advance(3_600)
    kernel.close()


def test_more_of_the_same_waits_for_its_time(sheet: Sheet, clock: FakeClock) -> None:
    """The next call would be this one again: the worker asked without end."""
    kernel = kernel_on(MemoryStorage(clock), sheet)
    answers = [
        PollResult([PolledEvent("a", "a")], {"at": 1}, more=True),
        PollResult([PolledEvent("b", "b")], {"at": 1}, more=True),
        PollResult([PolledEvent("a", "a")], {"at": 2}, more=True),
    ]
    same = PollResult([PolledEvent("a", "a")], {"at": 2}, more=True)
    calls = []

    def answer(cursor: Any) -> PollResult:
        calls.append(cursor)
        return answers.pop(0) if answers else same

    sheet.answer = answer  # type: ignore[method-assign]
    assert started(kernel) == ["a", "b"]
    assert calls == [None, {"at": 1}, {"at": 1}, {"at": 2}]
    clock.advance(60)
    kernel.run_until_idle()
    assert len(calls) == 5
    assert kernel.polls.find()[0].state == "ok"
    kernel.close()


def test_of_two_events_with_one_id_the_first_counts(sheet: Sheet) -> None:
    kernel = kernel_on(MemoryStorage(FakeClock()), sheet)
    twice = PollResult([PolledEvent("a", "first"), PolledEvent("a", "second")])
    sheet.answer = lambda cursor: twice  # type: ignore[method-assign]
    assert started(kernel) == ["first"]
    kernel.close()


@pytest.mark.every_storage
def test_a_shorter_time_between_calls_counts_at_once(clock: FakeClock) -> None:
    """A poll that was called once a day would have been called tomorrow, and then every minute."""
    storage, calls = MemoryStorage(clock), []

    def rolled_out(every: str) -> Kernel:
        class Sheet(Connector):
            key = "sheet"
            display_name = "Sheet"

            @poll("new_row", every=every)
            def new_row(self, cursor: Any) -> PollResult:
                calls.append(every)
                return PollResult([], cursor)

        kernel = Kernel(storage, plugins=[Sheet], discover=False, secrets={})
        kernel.action("do.it")(do_it)
        trigger = {"type": "event", "event": "sheet.new_row"}
        step = {"id": "a", "action": "do.it", "input": {"row": 1}}
        kernel.add_workflow({"name": "w", "trigger": trigger, "steps": [step]})
        return kernel

    with rolled_out("1d") as old:
        old.run_until_idle()
    with rolled_out("1m") as new:
        clock.advance(59)
        new.run_until_idle()
        assert calls == ["1d"]
        clock.advance(1)
        new.run_until_idle()
        assert calls == ["1d", "1m"]


def test_a_payload_that_does_not_fit_its_schema_is_a_failure() -> None:
    """So what the catalogue says of an event holds; the error quotes no payload."""
    schema = {"type": "object", "properties": {"number": {"type": "integer"}}}

    class Counter(Connector):
        key = "counter"
        numbers: ClassVar[list[Any]] = [1]

        @poll("counted", every="1m", payload_schema=schema)
        def counted(self, cursor: Any) -> PollResult:
            return PollResult([PolledEvent("a", {"number": each}) for each in self.numbers])

    (spec,) = Counter.polls()
    assert checked_result(spec, Counter().counted(None)).events[0].payload == {"number": 1}
    Counter.numbers = ["a-private-text"]
    with pytest.raises(PluginError, match="payload_schema: number: must be integer") as caught:
        checked_result(spec, Counter().counted(None))
    assert "a-private-text" not in str(caught.value)


@pytest.mark.every_storage
def test_a_plain_poll_that_takes_too_long_is_given_up(clock: FakeClock) -> None:
    """Its thread is left alone, and the worker's is free again."""
    go_on = threading.Event()

    class Slow(Connector):
        key = "slow"

        @poll("row", every="1m", timeout_seconds=0.05)
        def row(self, cursor: Any) -> PollResult:
            go_on.wait(20)
            return PollResult([PolledEvent("a")], "x")

    with Kernel(MemoryStorage(clock), plugins=[Slow], discover=False, secrets={}) as kernel:
        kernel.action("do.it")(do_it)
        kernel.add_workflow({"name": "w", "trigger": {"type": "event", "event": "slow.row"},
                             "steps": [{"id": "a", "action": "do.it", "input": {"row": 1}}]})  # fmt: skip
        try:
            kernel.run_until_idle()
            found = kernel.polls.find()[0]
            assert (found.state, found.error_code) == ("failing", "DEADLINE_EXCEEDED")
        finally:
            go_on.set()


def test_a_poll_reads_a_secret_once(clock: FakeClock) -> None:
    """All of one call sees one value, though it is rotated meanwhile."""
    values = iter(["first-value-0001", "second-value-0002"])

    class Rotating(SecretsBackend):
        def get_secret(self, key: str) -> str:
            return next(values)

    seen: list[str] = []

    class Reader(Connector):
        key = "reader"

        @poll("row", every="1m")
        def row(self, cursor: Any) -> PollResult:
            seen.extend(self.ctx.secrets.get("KEY") for _ in range(2))
            return PollResult()

    with Kernel(
        MemoryStorage(clock), plugins=[Reader], discover=False, secrets=[Rotating()]
    ) as kernel:
        kernel.action("do.it")(do_it)
        kernel.add_workflow({"name": "w", "trigger": {"type": "event", "event": "reader.row"},
                             "steps": [{"id": "a", "action": "do.it", "input": {"row": 1}}]})  # fmt: skip
        kernel.run_until_idle()
    assert seen == ["first-value-0001"] * 2


def test_a_paused_poll_rests(open_kernel: Open, sheet: Sheet, clock: FakeClock) -> None:
    kernel = open_kernel()
    assert kernel.polls.pause("sheet.new_row") == 1
    assert kernel.polls.pause("sheet.new_row") == 0
    sheet.rows = ["a"]
    clock.advance(3_600)
    assert started(kernel) == []
    assert kernel.polls.find()[0].state == "paused"
    assert kernel.polls.resume("sheet.new_row") == 1
    assert kernel.polls.resume("sheet.new_row") == 0
    assert started(kernel) == ["a"]
    with pytest.raises(AutomateError, match="no workflow listens.*sheet.new_row"):
        kernel.polls.pause("sheet.nothing")


def kernel_of_tenants(sheet: Sheet, clock: FakeClock, *tenants: str | None) -> Kernel:
    """A kernel on which each of *tenants* has a workflow that listens to the sheet."""
    from automate_kernel.workflows.store.catalogue import SuppliedWorkflow

    class Source:
        def stamp(self) -> int:
            return 1

        def load(self) -> list[SuppliedWorkflow]:
            step = {"id": "a", "action": "do.it", "input": {"row": 1}}
            trigger = {"type": "event", "event": "sheet.new_row"}
            definition = {"trigger": trigger, "steps": [step]}
            return [
                SuppliedWorkflow(name=f"of_{tenant}", definition=definition, tenant_id=tenant)
                for tenant in tenants
            ]

    kernel = Kernel(
        MemoryStorage(clock), plugins=[sheet.connector()], discover=False, secrets={},
        workflow_source=Source(),
    )  # fmt: skip
    kernel.action("do.it")(do_it)
    return kernel


def test_a_tenants_workflow_has_a_poll_of_its_own(sheet: Sheet) -> None:
    """With its own cursor, and its tenant in the call, which chooses the secrets."""
    kernel = kernel_of_tenants(sheet, FakeClock(), "acme", "zeta")
    sheet.rows = ["a"]
    kernel.run_until_idle()
    assert sorted(sheet.calls) == [(None, "acme"), (None, "zeta")]
    assert sorted(one.event.tenant_id for one in kernel.executions.find()) == ["acme", "zeta"]
    assert kernel.polls.pause("sheet.new_row", tenant_id="acme") == 1
    with pytest.raises(AutomateError, match="no workflow listens") as refused:
        kernel.polls.pause("sheet.new_row")
    assert refused.value.hint == "workflows of tenants do: say which tenant"
    with pytest.raises(AutomateError, match="no workflow of the tenant 'beta'") as refused:
        kernel.polls.pause("sheet.new_row", tenant_id="beta")
    assert refused.value.hint == "there are: none"
    kernel.close()


def test_the_log_says_whose_poll_has_failed(sheet: Sheet, caplog: Any) -> None:
    """The polls of all tenants have one name, and each its own account."""
    kernel = kernel_of_tenants(sheet, FakeClock(), "acme", None)
    sheet.error = AutomateError("UNAUTHENTICATED", "the account is not connected")
    kernel.run_until_idle()
    assert sorted(record.getMessage().partition(" failed")[0] for record in caplog.records) == [
        "poll sheet.new_row",
        "poll sheet.new_row of the tenant 'acme'",
    ]
    kernel.close()


def test_the_doctor_says_how_a_tenants_poll_is_resumed(sheet: Sheet) -> None:
    """Without the tenant the command would mean another poll, or none."""
    from automate_kernel.monitoring.diagnosis import poll_findings

    kernel = kernel_of_tenants(sheet, FakeClock(), "acme", None)
    kernel.polls.pause("sheet.new_row", tenant_id="acme")
    (found,) = poll_findings(kernel, program="automate", idle_seconds=60)
    assert found.text == "sheet.new_row of acme is paused"
    assert found.remedy == "automate resume poll sheet.new_row --tenant acme"
    kernel.polls.resume("sheet.new_row", tenant_id="acme")
    with pytest.raises(AutomateError) as refused:
        kernel.polls.pause("sheet.new_row", tenant_id="beta")
    assert refused.value.hint == "a workflow of no tenant does: leave the tenant out"
    kernel.close()


def test_the_doctor_finds_no_fault_with_a_poll_that_is_being_called(sheet: Sheet) -> None:
    """However long the call takes: its time has passed, and a worker has it."""
    from datetime import datetime, timedelta, timezone

    from automate_kernel.monitoring.diagnosis import poll_findings

    clock = FakeClock(datetime.now(timezone.utc))
    kernel = kernel_on(MemoryStorage(clock), sheet)
    states: list[str] = []

    def look() -> None:
        with kernel.storage.begin() as rows:
            rows.update(POLL, [], {"next_at": clock() - timedelta(seconds=80)})
        found = poll_findings(kernel, program="automate", idle_seconds=60)
        states.append(found[0].state)

    sheet.on_call = look
    call_due_polls(kernel)
    assert states == ["ok"]
    kernel.close()


def test_a_broken_connector_keeps_no_other_from_being_polled(sheet: Sheet) -> None:
    kernel = kernel_on(MemoryStorage(FakeClock()), sheet)
    kernel.plugins.register("nowhere:Broken", "connector", key="broken")
    step = {"id": "a", "action": "do.it", "input": {"row": 1}}
    define(kernel, step, name="b", trigger={"type": "event", "event": "broken.row"})
    sheet.rows = ["a"]
    assert started(kernel) == ["a"]
    kernel.close()


def test_secrets_are_not_in_a_poll(sheet: Sheet) -> None:
    """Neither in its state nor in its events."""
    kernel = kernel_on(MemoryStorage(FakeClock()), sheet)
    kernel.redactor.add("hunter2-hunter2")
    sheet.error = ValueError("refused hunter2-hunter2")
    kernel.run_until_idle()
    assert kernel.polls.find()[0].error.endswith("refused [secret]")
    kernel.close()


@pytest.mark.parametrize(
    "options",
    [{"every": "soon"}, {"every": 0.5}, {"every": "1m", "max_events": 0},
     {"every": "1m", "max_events": 2.5}, {"every": "1m", "max_events": "5"},
     {"every": "1m", "timeout_seconds": 7_200}, {"every": "1m", "timeout_seconds": "60"}],
    ids=["every", "often", "none", "half an event", "text", "long", "text of seconds"],
)  # fmt: skip
def test_a_wrong_declaration_is_refused(options: Any) -> None:
    with pytest.raises(ConfigError, match="new_row"):
        poll("new_row", **options)(lambda self, cursor: PollResult())
    for name in ("New Row", 5, None):
        with pytest.raises(ConfigError, match="can't stand"):
            poll(name, every="1m")(lambda self, cursor: PollResult())  # type: ignore[arg-type]


def test_a_method_that_takes_no_cursor_is_refused_as_it_is_declared() -> None:
    """Else its first call fails, minutes later, by Python's words on the number of arguments."""
    with pytest.raises(ConfigError, match=r"write def rows\(self, cursor\)"):

        @poll("rows", every="1m")
        def rows(self: Any) -> PollResult:
            return PollResult()


def test_a_poll_is_called_by_the_name_that_it_has_in_the_class(clock: FakeClock) -> None:
    """A decorator that wraps without functools.wraps gives each function one name of its own."""

    def logged(function: Any) -> Any:
        def wrapper(self: Any, cursor: Any) -> Any:
            return function(self, cursor)

        return wrapper

    class Wrapped(Connector):
        key = "wrapped"
        display_name = "Wrapped"

        @poll("rows", every="1m")
        @logged
        def rows(self, cursor: Any) -> PollResult:
            return PollResult([PolledEvent("a", {})])

    with Kernel(MemoryStorage(clock), plugins=[Wrapped], discover=False) as kernel:
        trigger = {"type": "event", "event": "wrapped.rows"}
        define(kernel, {"id": "a", "sleep": "1s"}, trigger=trigger)
        kernel.run_until_idle()
        assert kernel.polls.find()[0].error is None


def test_two_polls_have_two_names() -> None:
    class Twice(Connector):
        a = poll("x", every="1m")(lambda self, cursor: PollResult())

        @poll("x", every="1m")
        def b(self, cursor: Any) -> PollResult:
            return PollResult()

    with pytest.raises(PluginError, match="twice"):
        polls_of(Twice)


@pytest.mark.parametrize("event_id", ["", "x" * 2_000, 7, None])
def test_an_event_has_an_id(event_id: Any) -> None:
    with pytest.raises(PluginError, match="id of a polled event"):
        PolledEvent(event_id)


# -- death ------------------------------------------------------------------------------------


class Died(BaseException):
    """The process ends here; no handler of ours runs."""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("when", ["before_cursor_execute", "after_cursor_execute", "commit"])
def test_death_at_any_statement_loses_nothing_and_repeats_nothing(
    request: Any, clock: FakeClock, sheet: Sheet, database: str, when: str
) -> None:
    """Before each statement, after it, and at each commit."""
    engine: sa.Engine = request.getfixturevalue(f"{database}_engine")
    sheet.page, deaths = 2, 0
    # For the collections after each death to look at what this test made, and at nothing else.
    gc.collect()
    gc.freeze()
    while True:
        sheet.rows += [f"{len(sheet.rows):03}", f"{len(sheet.rows) + 1:03}"]
        clock.advance(3_700)
        left = [deaths]

        def die(*_: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Died

        kernel = kernel_on(SqlAlchemyStorage(engine, clock=clock), sheet)
        sa.event.listen(engine, when, die)
        try:
            call_due_polls(kernel)
            died = False
        except Died:
            died = True
        finally:
            sa.event.remove(engine, when, die)
        kernel.close()
        engine.dispose()
        # A dead process has no cursors; SQLite keeps its lock for as long as one is left.
        gc.collect()
        # After one statement is before the next one: of both, every second one.
        deaths += 1 if when == "commit" else 2
        if not died:
            break
    assert deaths > (2 if when == "commit" else 5), "it died nowhere"
    after = kernel_on(SqlAlchemyStorage(engine, clock=clock), sheet)
    for _ in range(len(sheet.rows)):
        clock.advance(91)
        call_due_polls(after)
    with after.storage.begin(atomic=False) as rows:
        items = rows.select(OUTBOX, [Where("kind", "eq", "automate.event")])
    payloads = sorted(item["payload"]["payload"] for item in items)
    assert payloads == sheet.rows
    after.close()


class PollMachine(RuleBasedStateMachine):
    """Rows come, workers poll, die, are overtaken, services fail; each row is one event."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.sheet = FakeClock(), Sheet()
        self.storage = MemoryStorage(self.clock)
        self.kernels = [kernel_on(self.storage, self.sheet) for _ in range(2)]

    @rule(count=st.integers(1, 5))
    def rows_come(self, count: int) -> None:
        self.sheet.rows += [f"{len(self.sheet.rows) + n:04}" for n in range(count)]

    @rule(which=st.integers(0, 1), page=st.integers(1, 4), overlap=st.integers(0, 3))
    def one_polls(self, which: int, page: int, overlap: int) -> None:
        self.sheet.page, self.sheet.overlap = page + overlap, overlap
        call_due_polls(self.kernels[which])

    @rule(which=st.integers(0, 1))
    def one_dies_in_its_call(self, which: int) -> None:
        def die() -> None:
            raise Died

        self.sheet.on_call = die
        try:
            call_due_polls(self.kernels[which])
        except Died:
            pass
        self.sheet.on_call = lambda: None

    @rule()
    def one_is_overtaken(self) -> None:
        def overtaken() -> None:
            self.sheet.on_call = lambda: None
            self.clock.advance(91)
            call_due_polls(self.kernels[1])

        self.sheet.on_call = overtaken
        call_due_polls(self.kernels[0])
        self.sheet.on_call = lambda: None

    @rule(which=st.integers(0, 1))
    def the_service_fails(self, which: int) -> None:
        self.sheet.error = ConnectionError("away")
        call_due_polls(self.kernels[which])
        self.sheet.error = None

    @rule(seconds=st.sampled_from([30, 60, 91, 4_000]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @invariant()
    def each_row_is_one_event_at_most_and_in_order(self) -> None:
        found = self.events()
        assert len(found) == len(set(found))
        assert found == self.sheet.rows[: len(found)]

    def events(self) -> list[Any]:
        with self.storage.begin(atomic=False) as rows:
            items = rows.select(OUTBOX, [])
        return sorted(item["payload"]["payload"] for item in items)

    def teardown(self) -> None:
        self.sheet.page, self.sheet.overlap = 100, 0
        for _ in range(3):
            self.clock.advance(4_000)
            call_due_polls(self.kernels[0])
        assert self.events() == self.sheet.rows
        with self.storage.begin(atomic=False) as rows:
            assert all(row["claim_token"] is None for row in rows.select(POLL, []))
        for kernel in self.kernels:
            kernel.close()


TestPollMachine = PollMachine.TestCase
TestPollMachine.settings = settings(
    max_examples=examples(30, 8), stateful_step_count=20, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


# -- what operators see -------------------------------------------------------------------------


def test_the_doctor_knows_how_polls_fare(sheet: Sheet) -> None:
    """One that fails, one that rests, and one that nobody calls."""
    from datetime import datetime, timedelta, timezone

    from automate_kernel.monitoring.diagnosis import poll_findings

    clock = FakeClock(datetime.now(timezone.utc))
    kernel = kernel_on(MemoryStorage(clock), sheet)

    def found() -> tuple[str, str]:
        (each,) = poll_findings(kernel, program="automate", idle_seconds=60)
        return each.state, each.text

    assert found() == ("ok", "1 poll, none failing")
    sheet.error = ConnectionError("away")
    for state in ("warn", "fail"):
        call_due_polls(kernel)
        assert found()[0] == state
        assert "UNAVAILABLE" in found()[1]
        clock.advance(3_700)
    sheet.error = None
    call_due_polls(kernel)
    assert found()[0] == "ok"
    kernel.polls.pause("sheet.new_row")
    assert found() == ("warn", "sheet.new_row is paused")
    kernel.polls.resume("sheet.new_row")
    with kernel.storage.begin() as rows:
        rows.update(POLL, [], {"next_at": datetime.now(timezone.utc) - timedelta(seconds=90)})
    assert found()[0] == "fail"
    assert "no worker calls it" in found()[1]
    kernel.close()


class Hub(Connector):
    key = "hub"
    display_name = "Hub"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [TriggerSpec("push")]

    @poll("new_row", every="1m")
    def new_row(self, cursor: Any) -> PollResult:
        return PollResult()


@pytest.mark.parametrize(
    ("event", "remedy"),
    [
        ("hub.new_row", None),
        ("hub.*", None),
        ("order.created", None),
        ("hub.new_rows", "did you mean 'hub.new_row'? hub has: hub.new_row, the webhook push"),
        ("hub.push", "write {type: webhook, connector: hub, trigger: push}"),
    ],
)
def test_the_doctor_knows_of_an_event_that_never_comes(event: str, remedy: str | None) -> None:
    """A misspelt one, or a webhook as an event, starts nothing, and nobody says so."""
    from automate_kernel.monitoring.diagnosis import poll_findings

    with Kernel(MemoryStorage(), plugins=[Hub], discover=False) as kernel:
        trigger = {"type": "event", "event": event}
        define(kernel, {"id": "a", "sleep": "1s"}, trigger=trigger)
        (found,) = poll_findings(kernel, program="automate", idle_seconds=60)
    assert (found.state, found.remedy) == ("ok" if remedy is None else "warn", remedy)


def test_commands_show_and_steer_polls(sheet: Sheet) -> None:
    import io
    import json
    from contextlib import redirect_stdout

    from automate_cli import app_for

    kernel = kernel_on(MemoryStorage(FakeClock()), sheet)
    run = app_for(lambda: kernel, name="automate")

    def printed(*words: str) -> str:
        out = io.StringIO()
        with redirect_stdout(out):
            assert run(words) == 0
        return out.getvalue()

    assert json.loads(printed("polls", "ls", "--json"))[0]["state"] == "new"
    assert "is paused" in printed("pause", "poll", "sheet.new_row")
    assert "paused" in printed("polls", "ls")
    assert "is resumed" in printed("resume", "poll", "sheet.new_row")
    over = printed("resume", "poll", "sheet.new_row", "--start-over", "--yes")
    assert "is started over" in over
