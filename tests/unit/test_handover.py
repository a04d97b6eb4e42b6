"""A worker that lacks what an execution needs hands it over, and never fails it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from waiting import PATIENCE, until
from workers import working
from automate_kernel import Kernel
from automate_kernel.plugins.connectors import Connector, action
from automate_kernel.outbox.worker_reports import read_workers
from automate_kernel.workflows.store import checkpoints as checkpoints_module
from automate_kernel.outbox.handover import LONGEST_SECONDS, NOTE, Handover
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import DEFINITION, OUTBOX
from automate_testing import FakeClock
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus
from hypothesis import given
from hypothesis import strategies as st
from defined import define, item_of, see

LATER = 600.0


@pytest.fixture
def storage(clock: FakeClock) -> MemoryStorage:
    return MemoryStorage(clock)


def kernel_on(storage: MemoryStorage, *actions: str, **options: Any) -> Kernel:
    kernel = Kernel(storage, discover=False, secrets={}, **options)
    for name in actions:
        kernel.action(name)(lambda: "done")
    return kernel


def step(step_id: str, action: str, **options: Any) -> dict[str, Any]:
    return {"id": step_id, "action": action, **options}


# -- actions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["worker", "inline"])
def test_an_unknown_action_is_handed_over(
    storage: MemoryStorage, clock: FakeClock, how: str
) -> None:
    """The step before it stays saved, nothing is counted, and a newer worker goes on."""
    old, new = kernel_on(storage, "mail.draft"), kernel_on(storage, "mail.draft", "mail.send2")
    define(new, step("a", "mail.draft"), step("b", "mail.send2"))
    one = new.start("w")
    if how == "worker":
        with working(old, worker_id="web-1"):
            until(lambda: item_of(old, one).handover)
    else:
        old.run_until_idle()
    item = item_of(old, one)
    note = item.handover
    assert note is not None
    assert note.code == item.last_error_code == "UNKNOWN_ACTION"
    assert "doesn't know the action 'mail.send2'" in note.reason
    assert note.reason == item.last_error
    if how == "worker":
        assert note.reason.startswith("worker web-1 ")
        assert note.worker == "web-1"
    assert item.attempt_count == 0
    assert old.outbox.failed_attempts(item.id) == []
    assert [run.step_id for run in see(old, one).steps] == ["a"]
    clock.advance(LATER)
    new.run_until_idle()
    execution = see(new, one)
    assert execution.status is ExecutionStatus.COMPLETED
    assert [(run.step_id, run.attempts) for run in execution.steps] == [("a", 1), ("b", 1)]
    assert item_of(new, one).handover is None


def test_it_waits_longer_each_time_but_never_fails(
    storage: MemoryStorage, clock: FakeClock
) -> None:
    """The time since the first handover stays known; days later it still only waits."""
    old = kernel_on(storage)
    define(old, step("a", "mail.send2"))
    one = old.start("w")
    began = clock()
    delays = []
    for times in range(1, 30):
        old.run_until_idle()
        note, item = item_of(old, one).handover, item_of(old, one)
        assert note is not None
        assert note.times == times
        assert note.since == began
        delays.append((item.next_attempt_at - clock()).total_seconds())
        clock.advance(24 * 3600.0)
    assert 3 < delays[0] < 7
    assert all(200 < delay < 400 for delay in delays[8:])
    assert item_of(old, one).attempt_count == 0
    assert see(old, one).status is not ExecutionStatus.FAILED


def test_a_worker_warns_of_unknown_actions_as_it_starts(
    storage: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """Who has misspelt a name need not wait for an execution to see it."""
    kernel = kernel_on(storage, "mail.send")
    define(kernel, step("a", "mail.send"), step("b", "mail.sned"))
    with caplog.at_level("WARNING", "automate_kernel"), working(kernel):
        until(lambda: caplog.records)
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith("workflow 'w', step 'b': this worker doesn't know the action")
    assert "did you mean 'mail.send'" in text


def test_a_step_forward_between_two_handovers(storage: MemoryStorage, clock: FakeClock) -> None:
    """What was handed over, went on, and is handed over again has not waited since the first time."""
    none, some = kernel_on(storage), kernel_on(storage, "mail.draft")
    define(none, step("a", "mail.draft"), step("b", "mail.send2"))
    define(some, step("a", "mail.draft"), step("b", "mail.send2"))
    one = none.start("w")
    for _ in range(5):
        none.run_until_idle()
        clock.advance(LATER)
    some.run_until_idle()
    note = item_of(some, one).handover
    assert note is not None
    assert (note.times, note.since) == (1, clock())


def test_what_is_in_flight_ends_and_is_saved_first(storage: MemoryStorage) -> None:
    """A parallel step that runs is not made again by the worker that goes on."""
    old, gate, calls = kernel_on(storage), threading.Event(), []

    @old.action("slow.work")
    def work() -> str:
        calls.append(1)
        assert gate.wait(PATIENCE)
        return "kept"

    old.action("quick.work")(lambda: None)
    define(
        old,
        step("slow", "slow.work", needs=[]),
        step("quick", "quick.work", needs=[]),
        step("after", "mail.send2", needs=["quick"]),
    )
    one = old.start("w")
    with working(old):
        until(lambda: [r for r in see(old, one).steps if r.step_id == "quick"])
        threading.Event().wait(0.2)
        assert item_of(old, one).status.value == "RUNNING"
        gate.set()
        until(lambda: item_of(old, one).handover)
    runs = {run.step_id: run.status for run in see(old, one).steps}
    assert runs == {"slow": StepStatus.COMPLETED, "quick": StepStatus.COMPLETED}
    assert calls == [1]


def test_a_broken_plugin_hands_over(storage: MemoryStorage) -> None:
    """It is broken here, by a missing library say, and may work elsewhere."""
    old = kernel_on(storage)
    old.plugins.register("no_such_module:Mail", "connector", key="mail")
    define(old, step("a", "mail.send"))
    one = old.start("w")
    old.run_until_idle()
    note = item_of(old, one).handover
    assert note is not None
    assert note.code == "UNUSABLE_PLUGIN"
    assert "no_such_module" in note.reason


def test_an_action_that_its_connector_lacks_hands_over(storage: MemoryStorage) -> None:
    """The connector is there, in a version without the action."""

    class Mail(Connector):
        key = "mail"

        @action
        def send(self) -> None:
            pass

    old = kernel_on(storage, plugins=[Mail])
    define(old, step("a", "mail.send2"))
    one = old.start("w")
    old.run_until_idle()
    note = item_of(old, one).handover
    assert note is not None
    assert note.code == "UNKNOWN_ACTION"


def test_not_found_by_the_action_itself_fails(storage: MemoryStorage) -> None:
    """An author's NOT_FOUND is an answer, whoever asks."""
    from automate_kernel import AutomateError, ErrorCodes

    kernel = kernel_on(storage)

    @kernel.action("mail.find")
    def find() -> None:
        raise AutomateError(ErrorCodes.NOT_FOUND, "no such mail")

    define(kernel, step("a", "mail.find"))
    one = kernel.start("w")
    kernel.run_until_idle()
    assert see(kernel, one).status is ExecutionStatus.FAILED


def test_a_caller_that_waits_has_the_error_at_once(storage: MemoryStorage) -> None:
    """`Kernel.run` waits for an answer here, so it has one."""
    kernel = kernel_on(storage)
    define(kernel, step("a", "mail.send2"))
    execution = kernel.run("w")
    assert execution.status is ExecutionStatus.FAILED
    assert "there is no action 'mail.send2'" in str(execution.error)


def test_a_step_under_on_failure_is_handed_over_too(
    storage: MemoryStorage, clock: FakeClock
) -> None:
    """The failure is saved, and who knows the action recovers from it."""
    old, new = kernel_on(storage), kernel_on(storage, "mail.undo")
    for kernel in (old, new):

        @kernel.action("mail.fail")
        def fail() -> None:
            raise ValueError

    define(new, step("a", "mail.fail"), on_failure=[step("undo", "mail.undo")])
    one = new.start("w")
    old.run_until_idle()
    assert item_of(old, one).handover
    clock.advance(LATER)
    new.run_until_idle()
    execution = see(new, one)
    assert execution.status is ExecutionStatus.FAILED
    assert [run.step_id for run in execution.steps] == ["a", "undo"]


def test_a_note_goes_once_the_execution_waits_for_itself(
    storage: MemoryStorage, clock: FakeClock
) -> None:
    """A retry after a handover is no handover."""
    old, new, fails = kernel_on(storage), kernel_on(storage), [True]

    @new.action("mail.send2")
    def send() -> None:
        if fails:
            raise ConnectionError

    define(new, step("a", "mail.send2", retry={"attempts": 3, "delay": "4m", "jitter": False}))
    one = new.start("w")
    old.run_until_idle()
    assert item_of(old, one).handover
    clock.advance(LATER)
    new.run_until_idle()
    item = item_of(new, one)
    assert item.handover is None
    assert NOTE not in item.headers
    assert item.last_error_code is None
    assert see(new, one).steps[0].status is StepStatus.RETRY


# -- definitions -----------------------------------------------------------------------------------


def give_newer_fields(storage: MemoryStorage) -> None:
    """Make all definitions such as a later version stores them."""
    with storage.begin() as rows:
        for found in rows.select(DEFINITION):
            body = {**found["body"], "brand_new": 1}
            rows.update(DEFINITION, [Where("id", "eq", found["id"])], {"body": body})


@pytest.mark.parametrize("how", ["worker", "inline"])
def test_a_definition_with_newer_fields_is_handed_over(storage: MemoryStorage, how: str) -> None:
    """This version can't read it; the one that wrote it can."""
    new, old = kernel_on(storage, "mail.send"), kernel_on(storage, "mail.send")
    define(new, step("a", "mail.send"))
    one = new.start("w")
    give_newer_fields(storage)
    if how == "worker":
        with working(old):
            until(lambda: item_of(old, one).handover)
    else:
        old.run_until_idle()
    note = item_of(old, one).handover
    assert note is not None
    assert note.code == "UNREADABLE_DEFINITION"
    assert "brand_new" in note.reason
    assert see(old, one).status is ExecutionStatus.PENDING


@pytest.mark.parametrize("how", ["reaped", "cancelled"])
def test_what_holds_a_place_under_a_newer_definition_holds_up_no_recovery(
    storage: MemoryStorage, clock: FakeClock, how: str
) -> None:
    """Its worker died for the last time, or its item is cancelled: it cleans up in its place."""
    new, old = kernel_on(storage, "mail.send"), kernel_on(storage, "mail.send")
    define(new, step("a", "mail.send"), concurrency={"limit": 2, "when_full": "skip"})
    one, another = new.start("w"), new.outbox.enqueue("other")
    give_newer_fields(storage)
    first = item_of(new, one).id
    if how == "reaped":
        new.outbox.claim_batch("died", 10)
        with storage.begin() as rows:
            rows.update(OUTBOX, [Where("id", "eq", first)], {"attempt_count": 10})
        clock.advance(LATER)
        assert {item.id for item in old.outbox.reap().failed} == {first}
        assert see(old, one).status is ExecutionStatus.RUNNING
    else:
        assert old.outbox.cancel([first, another]) == 2
        assert see(old, one).status is ExecutionStatus.CANCELLING
    item = item_of(old, one)
    assert (item.id != first, item.status) == (True, "PENDING")
    assert item.concurrency_limit == 2


def test_a_filter_that_is_not_known_hands_over(storage: MemoryStorage, clock: FakeClock) -> None:
    """The definition is fine where the filter is."""
    new, old = kernel_on(storage), kernel_on(storage)
    for kernel in (new, old):

        @kernel.action("mail.send")
        def send(text: str) -> str:
            return text

    new.filter("shout2")(lambda text: text.upper())
    define(new, {"id": "a", "action": "mail.send", "input": {"text": "{{ 'hi' | shout2 }}"}})
    one = new.start("w")
    old.run_until_idle()
    note = item_of(old, one).handover
    assert note is not None
    assert note.code == "UNREADABLE_DEFINITION"
    assert "shout2" in note.reason
    clock.advance(LATER)
    new.run_until_idle()
    assert see(new, one).steps[0].output == "HI"


# -- the note --------------------------------------------------------------------------------------


@given(st.integers(1, 2000), st.floats(0, 1, exclude_max=True))
def test_delays_grow_to_a_bound(times: int, random: float) -> None:
    note = Handover("X", "why", "w", FakeClock()(), times)
    assert 3 < note.delay(lambda: random) <= LONGEST_SECONDS * 1.25


@pytest.mark.parametrize(
    ("untried", "means"), [(False, [5, 10, 20, 40, 80, 160, 300, 300]), (True, [1, 2, 4, 5, 5])]
)
def test_it_is_passed_round_soon_among_workers_that_have_not_had_it(
    untried: bool, means: list[float]
) -> None:
    """And the longer, the more often all of them have."""
    notes = [Handover("X", "why", "w", FakeClock()(), times + 1) for times in range(len(means))]
    assert [note.delay(lambda: 0.5, untried=untried) for note in notes] == means
    assert notes[0].delay(lambda: 0.0, untried=untried) == 0.75 * means[0]


def test_a_note_says_who_has_had_it(storage: MemoryStorage, clock: FakeClock) -> None:
    """Also as it is kept: of two workers each hands it over, and neither takes it up at once again."""
    one, other = kernel_on(storage), kernel_on(storage)
    define(one, step("a", "mail.send2"))
    execution_id = one.start("w")
    for times, (kernel, worker, others) in enumerate(
        [(one, "w1", ["w2", "w3"]), (other, "w2", ["w3"])], start=1
    ):
        (item,) = kernel.outbox.claim_batch(worker)
        kernel._inline.handle_all([item])
        note = item_of(one, execution_id).handover
        assert note is not None and note.times == times
        assert note == Handover.of({NOTE: note.to_json()})
        assert [each for each in ("w1", "w2", "w3") if each not in note.tried] == others
        if times == 1:
            assert kernel._take_up_handed_over("w1") == 0
            assert kernel._take_up_handed_over("w2") == 1
    assert [one._take_up_handed_over(worker) for worker in ("w1", "w2", "w3")] == [0, 0, 1]


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text()))
def test_a_strange_note_is_no_note(content: dict[str, Any]) -> None:
    """Headers are anybody's: what can't be read is not shown, and breaks nothing."""
    Handover.of({NOTE: content})
    assert Handover.of({NOTE: "text"}) is None
    assert Handover.of({}) is None


def test_the_workers_are_read_once_for_all_that_are_handed_over_together(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many executions of a deploy a worker can't go on with."""
    reads: list[int] = []

    def read(rows: Any) -> Any:
        reads.append(1)
        return read_workers(rows)

    monkeypatch.setattr(checkpoints_module, "read_workers", read)
    old = kernel_on(storage)
    define(old, step("a", "mail.send2"))
    ids = [old.start("w") for _ in range(5)]
    items = old.outbox.claim_batch("me", 5)
    old._inline.handle_all(items)
    assert all(item_of(old, one).handover for one in ids)
    assert len(reads) == 1
