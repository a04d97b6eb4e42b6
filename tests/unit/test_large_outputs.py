"""Large outputs: put in the host's store, read where a template needs them, and deleted in time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from waiting import until
from workers import working
from automate_kernel.base import runtime
from automate_kernel import Kernel, WorkflowContext
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    SecretUnavailableError,
    StorageError,
    TemplateError,
)
from automate_kernel.monitoring.diagnosis import secret_uses
from automate_kernel.outbox.item import new_id
from automate_kernel.secrets import MemorySecretsBackend
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.output_store import FileOutputStore, OutputStore
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import EXECUTION, STEP
from automate_kernel.storage.values import MAX_PAYLOAD_BYTES
from automate_kernel.templates import TemplateContext
from automate_testing.clock import FakeClock
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.store.large_outputs import (
    MAX_OUTPUT_BYTES,
    ROW_BYTES,
    LargeOutputs,
)
from automate_kernel.workflows.decide.program import Reads
from automate_kernel.workflows.execution import Execution, ExecutionStatus, StepStatus
from automate_sqlalchemy import SqlAlchemyStorage
from defined import define

PATIENCE = 20.0
LARGE = "x" * (ROW_BYTES + 10)
DAY = 86_400.0


class Store(OutputStore):
    """An output store in memory, which counts, fails and ages as it is told to."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.calls: Counter[str] = Counter()
        self.failures = 0
        self.age = 0.0

    def _call(self, name: str) -> None:
        self.calls[name] += 1
        if self.failures:
            self.failures -= 1
            raise StorageError("the network is down")

    def put(self, key: str, data: bytes) -> None:
        self._call("put")
        assert key not in self.kept, "a key is used once"
        self.kept[key] = data

    def get(self, key: str) -> bytes:
        self._call("get")
        if key not in self.kept:
            raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no {key}")
        return self.kept[key]

    def delete(self, key: str) -> None:
        self._call("delete")
        self.kept.pop(key, None)

    def keys(self, *, older_than_seconds: float) -> Iterator[str]:
        return iter(list(self.kept) if self.age >= older_than_seconds else [])


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def kernel(store: Store, clock: FakeClock) -> Iterator[Kernel]:
    with made(MemoryStorage(clock), store) as kernel:
        yield kernel


def made(storage: MemoryStorage, store: Any) -> Kernel:
    kernel = Kernel(storage, discover=False, secrets={}, output_store=store)

    @kernel.action
    def large(size: int = len(LARGE)) -> dict[str, Any]:
        return {"text": "x" * size, "size": size}

    @kernel.action
    async def later(size: int = len(LARGE)) -> dict[str, Any]:
        return {"text": "x" * size, "size": size}

    @kernel.action
    def measure(text: str) -> int:
        return len(text)

    return kernel


def add(kernel: Kernel, *steps: dict[str, Any], **more: Any) -> None:
    more.setdefault("trigger", {"type": "manual"})
    kernel.add_workflow({"name": "flow", "steps": list(steps), **more})


MAKE = {"id": "make", "action": "large"}
MEASURE = {"id": "measure", "action": "measure", "input": {"text": "{{ steps.make.output.text }}"}}


def stored(kernel: Kernel, execution_id: str) -> Execution:
    found = kernel.executions.get(execution_id, large_outputs=False)
    assert found is not None
    return found


def run_in_worker(kernel: Kernel) -> Execution:
    """Start the workflow, and let a worker of threads bring it to its end."""
    with working(kernel):
        one = kernel.start("flow")
        until(lambda: stored(kernel, one).status.finished)
    return stored(kernel, one)


# -- going there and back --------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["large", "later"])
@pytest.mark.parametrize("worker", [False, True])
def test_a_large_output_is_in_the_store_and_the_next_step_has_it(
    kernel: Kernel, store: Store, action: str, worker: bool
) -> None:
    add(kernel, {"id": "make", "action": action}, MEASURE, output="{{ steps.measure.output }}")
    done = run_in_worker(kernel) if worker else kernel.run("flow")
    assert (done.status, done.output) == (ExecutionStatus.COMPLETED, len(LARGE)), done.error
    row = stored(kernel, done.id).step("make")
    assert row is not None and row.output is None
    assert list(store.kept) == [row.output_ref]
    assert store.calls["get"] == 0, "who made an output need not read it"
    whole = kernel.executions.get(done.id)
    assert whole is not None and whole.step("make").output["text"] == LARGE  # type: ignore[union-attr]
    assert kernel.executions.output(done.id, "make") == {"text": LARGE, "size": len(LARGE)}


@pytest.mark.parametrize("worker", [False, True])
def test_the_output_of_the_workflow_may_be_large(
    kernel: Kernel, store: Store, worker: bool
) -> None:
    add(kernel, MAKE, output="{{ steps.make.output.text }}")
    done = run_in_worker(kernel) if worker else kernel.run("flow")
    assert done.status is ExecutionStatus.COMPLETED, done.error
    row = stored(kernel, done.id)
    assert row.output is None and row.output_ref in store.kept
    assert kernel.executions.output(done.id) == LARGE
    assert len(store.kept) == 2


def test_elements_are_put_one_by_one(kernel: Kernel, store: Store) -> None:
    add(
        kernel,
        {"id": "make", "action": "large", "for_each": "{{ range(3) | list }}"},
        {
            "id": "count", "action": "measure",
            "input": {"text": "{{ steps.make.output | map(attribute='text') | join }}"},
        },
        output="{{ steps.count.output }}",
    )  # fmt: skip
    done = kernel.run("flow")
    assert (done.status, done.output) == (ExecutionStatus.COMPLETED, 3 * len(LARGE)), done.error
    assert len(store.kept) == 3
    each = {"text": LARGE, "size": len(LARGE)}
    assert kernel.executions.output(done.id, "make") == [each] * 3
    assert kernel.executions.output(done.id, "make", 1) == each


def test_the_output_of_a_list_is_a_list(kernel: Kernel) -> None:
    """As templates have it, an empty one too; a loop has that of its last round."""
    add(
        kernel,
        {"id": "none", "action": "measure", "for_each": []},
        {"id": "rounds", "until": "{{ index == 1 }}", "action": "measure",
         "input": {"text": "{{ 'x' * (index + 1) }}"}},
        {"id": "never", "action": "measure", "for_each": [1], "if": "{{ false }}"},
    )  # fmt: skip
    done, output = kernel.run("flow"), kernel.executions.output
    assert [output(done.id, step) for step in ("none", "rounds", "never")] == [[], 2, None]


def test_small_outputs_stay_in_their_rows(kernel: Kernel, store: Store) -> None:
    add(kernel, {"id": "make", "action": "large", "input": {"size": 100_000}}, MEASURE)
    assert kernel.run("flow").status is ExecutionStatus.COMPLETED
    assert store.calls == {}


def test_the_next_step_gets_an_output_whole(kernel: Kernel, clock: FakeClock) -> None:
    """However long it is: a template that only passes a value on makes none."""
    add(
        kernel,
        {"id": "make", "action": "large", "input": {"size": 2_000_000}}, MEASURE,
        output="{{ steps.make.output }}",
    )  # fmt: skip
    done = kernel.run("flow")
    assert done.status is ExecutionStatus.COMPLETED, done.error
    assert done.output["size"] == len(done.output["text"]) == 2_000_000
    with pytest.raises(TemplateError, match="1,000,000"):
        kernel.templates.compile("{{ event + '!' }}").render(TemplateContext("x" * 2_000_000))
    with pytest.raises(TemplateError, match="64,000,000"):
        names = TemplateContext("x" * 3_000_000)
        kernel.templates.compile(["{{ event }}"] * 22).render(names)
    with made(MemoryStorage(clock), None) as other, pytest.raises(TemplateError, match="1,000,000"):
        other.templates.compile("{{ event }}").render(TemplateContext("x" * 1_000_001))


# -- after a crash ---------------------------------------------------------------------------------


def interrupted(kernel: Kernel, *steps: dict[str, Any], **more: Any) -> str:
    """Run the workflow until its step ``gate`` has failed for the first time."""
    opened = []

    @kernel.action
    def gate(text: str = "") -> int:
        if not opened:
            opened.append(1)
            raise ConnectionError("not yet")
        return len(text)

    retry = {"retry": {"attempts": 3, "delay": "1m"}}
    steps = tuple({**step, **(retry if step["id"] == "gate" else {})} for step in steps)
    add(kernel, *steps, **more)
    one = kernel.start("flow")
    kernel.run_until_idle()
    run = stored(kernel, one).step("gate")
    assert run is not None and run.status is StepStatus.RETRY
    return one


READING = {"id": "gate", "action": "gate", "input": {"text": "{{ steps.make.output.text }}"}}
BLIND = {"id": "gate", "action": "gate", "needs": ["make"]}


def test_another_worker_reads_what_a_template_needs(
    kernel: Kernel, store: Store, clock: FakeClock
) -> None:
    one = interrupted(kernel, MAKE, READING, output="{{ steps.gate.output }}")
    clock.advance(70)
    kernel.run_until_idle()
    assert store.calls["get"] == 1
    assert (stored(kernel, one).status, stored(kernel, one).output) == (
        ExecutionStatus.COMPLETED, len(LARGE),
    )  # fmt: skip


def test_nobody_reads_what_no_template_needs(
    kernel: Kernel, store: Store, clock: FakeClock
) -> None:
    one = interrupted(kernel, MAKE, BLIND)
    clock.advance(70)
    kernel.run_until_idle()
    assert stored(kernel, one).status is ExecutionStatus.COMPLETED
    assert store.calls["get"] == 0


def test_an_output_that_is_gone_fails_the_execution_with_a_reason(
    kernel: Kernel, store: Store, clock: FakeClock
) -> None:
    one = interrupted(kernel, MAKE, READING)
    store.kept.clear()
    clock.advance(70)
    kernel.run_until_idle()
    failed = stored(kernel, one)
    assert failed.status is ExecutionStatus.FAILED
    assert failed.error_code == "NOT_FOUND" and "there is no" in (failed.error or "")


def test_a_worker_without_the_store_says_so(kernel: Kernel, store: Store, clock: FakeClock) -> None:
    one = interrupted(kernel, MAKE, READING)
    kernel.executions.outputs.store = None
    with pytest.raises(AutomateError, match="this kernel has none") as raised:
        kernel.executions.get(one)
    assert "output_store" in (raised.value.hint or "")
    assert stored(kernel, one).steps, "but its rows can be looked at"


def test_a_store_that_fails_for_a_moment_costs_no_attempt(kernel: Kernel, store: Store) -> None:
    add(kernel, MAKE, MEASURE)
    store.failures = 2
    done = kernel.run("flow")
    assert done.status is ExecutionStatus.COMPLETED
    assert [run.attempts for run in done.steps] == [1, 1]
    assert store.calls["put"] == 3


class Broken(Store):
    def put(self, key: str, data: bytes) -> None:
        raise RuntimeError("bucket key-1234 denied")


def test_a_broken_store_fails_the_step_without_its_own_words(clock: FakeClock) -> None:
    with made(MemoryStorage(clock), Broken()) as kernel:
        add(kernel, MAKE)
        done = kernel.run("flow")
    assert done.status is ExecutionStatus.FAILED
    assert "output store failed" in (done.error or "") and "1234" not in (done.error or "")


# -- bounds ----------------------------------------------------------------------------------------


def test_without_a_store_a_long_output_is_refused_with_the_remedy(clock: FakeClock) -> None:
    with made(MemoryStorage(clock), None) as kernel:
        add(kernel, {"id": "make", "action": "large", "input": {"size": 1_000_001}})
        done = kernel.run("flow")
    assert done.status is ExecutionStatus.FAILED
    assert "over 1,000,000 bytes" in (done.error or "")
    assert "output_store" in (done.error or "")


def test_beyond_the_maximum_it_is_refused(kernel: Kernel, store: Store) -> None:
    add(kernel, {"id": "make", "action": "large", "input": {"size": MAX_OUTPUT_BYTES + 1}})
    done = kernel.run("flow")
    assert done.status is ExecutionStatus.FAILED and "over 64,000,000 bytes" in (done.error or "")
    assert store.kept == {}


def test_memory_that_is_held_is_let_go(kernel: Kernel) -> None:
    add(kernel, MAKE, MEASURE)
    outputs = kernel.executions.outputs
    kernel.run("flow")
    run_in_worker(kernel)
    assert outputs._held == 0 and not outputs.full


def test_secrets_are_taken_out_before_they_are_put(store: Store, clock: FakeClock) -> None:
    secret = "s3cr3t-value-of-the-key"
    kernel = Kernel(
        MemoryStorage(clock), discover=False, secrets={"KEY": secret}, output_store=store
    )

    @kernel.action
    def leak(key: str) -> str:
        return LARGE + key

    add(
        kernel, {"id": "make", "action": "leak", "input": {"key": "$secret:KEY"}},
        output="{{ steps.make.output }}",
    )  # fmt: skip
    with kernel:
        assert kernel.run("flow").status is ExecutionStatus.COMPLETED
    assert len(store.kept) == 2
    assert not any(secret.encode() in data for data in store.kept.values())


# -- deleting --------------------------------------------------------------------------------------


def test_a_purge_deletes_outputs_with_their_executions(
    kernel: Kernel, store: Store, clock: FakeClock
) -> None:
    add(kernel, MAKE, output="{{ steps.make.output }}")
    kernel.run("flow")
    assert len(store.kept) == 2
    clock.advance(DAY)
    kernel.purge(older_than_seconds=3600)
    assert store.kept == {}


def test_what_no_row_names_is_deleted_after_a_day(kernel: Kernel, store: Store) -> None:
    """As a crash between the store and the checkpoint leaves it."""
    add(kernel, MAKE)
    done = kernel.run("flow")
    (named,) = store.kept
    lost = [f"{done.id}/lost", "01890000-0000-7000-8000-00000000dead/lost"]
    store.kept |= dict.fromkeys(lost, b"1")
    store.age = DAY - 1
    assert kernel.executions.purge_outputs(older_than_seconds=0) == 0
    store.age = DAY
    assert kernel.executions.purge_outputs(older_than_seconds=0) == 2
    assert list(store.kept) == [named]


class Stubborn(Store):
    """A store that can't delete some keys, and takes its time for each."""

    def __init__(self) -> None:
        super().__init__()
        self.stubborn: set[str] = set()
        self.asked: list[str] = []
        self.seconds = 0.0

    def delete(self, key: str) -> None:
        self.asked.append(key)
        self.seconds += 0.5
        if key in self.stubborn:
            raise StorageError("it is locked")
        super().delete(key)


def lost_in(store: Stubborn, count: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put so many outputs there that no row names; a second passes with each two that are deleted."""
    store.age = 90_000.0
    keys = [f"{new_id()}/{new_id()}" for _ in range(count)]
    store.kept = dict.fromkeys(keys, b"1")
    real = time.monotonic
    monkeypatch.setattr(runtime, "monotonic", lambda: real() + store.seconds)
    return keys


def test_a_key_that_can_not_be_deleted_keeps_no_other(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of the lost outputs stopped the purge, and each one after it."""
    store = Stubborn()
    with made(MemoryStorage(clock), store) as kernel:
        keys = lost_in(store, 30, monkeypatch)
        store.stubborn = {keys[0], keys[7]}
        assert kernel.executions.purge_outputs() == 28
        assert set(store.kept) == store.stubborn


def test_lost_outputs_are_swept_in_bounded_goes(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each goes on where the one before it ended, so many are deleted in the end."""
    store = Stubborn()
    with made(MemoryStorage(clock), store) as kernel:
        keys, goes = lost_in(store, 45, monkeypatch), 1
        while kernel.executions.sweep_outputs():
            goes += 1
            assert len(store.asked) <= goes * 11
        assert 4 <= goes <= 6
        assert store.asked == keys


def test_two_workers_of_a_kernel_sweep_beside_each_other(clock: FakeClock) -> None:
    """Both went on where the last sweep had ended, in the same walk, and the second failed."""
    deleting, go_on, read = threading.Event(), threading.Event(), threading.Event()

    class Watched(LargeOutputs):
        """While a thread reads where the last sweep ended, another one sweeps."""

        at: Any = None

        @property
        def _sweep(self) -> Any:
            found = self.at
            if not read.is_set():
                read.set()
                threads.submit(self.sweep, kernel.storage)
                deleting.wait(0.2)  # it can't get as far: then it comes after this thread
            return found

        @_sweep.setter
        def _sweep(self, walk: Any) -> None:
            self.at = walk

    class Slow(Stubborn):
        def delete(self, key: str) -> None:
            if threading.current_thread() is not threading.main_thread():
                deleting.set()
                assert go_on.wait(PATIENCE)
            super().delete(key)

    store = Slow()
    with made(MemoryStorage(clock), store) as kernel, ThreadPoolExecutor(1) as threads:
        store.age = 90_000.0
        store.kept = dict.fromkeys([f"{new_id()}/{new_id()}" for _ in range(30)], b"1")
        outputs = Watched(store)
        read.set()
        outputs.sweep(kernel.storage, seconds=-1.0)
        assert len(store.kept) == 29
        read.clear()
        try:
            outputs.sweep(kernel.storage)
        finally:
            go_on.set()
    assert store.kept == {}


def test_a_store_that_deletes_nothing_is_not_asked_for_everything(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep ends after ten failures in a row, and the next one goes on after them."""
    store = Stubborn()
    with made(MemoryStorage(clock), store) as kernel:
        keys = lost_in(store, 25, monkeypatch)
        store.stubborn = set(keys[:10])
        assert not kernel.executions.sweep_outputs()
        assert store.asked == keys[:10]
        while kernel.executions.sweep_outputs():
            pass
        assert set(store.kept) == store.stubborn


def test_a_store_that_can_not_delete_holds_up_no_purge(
    kernel: Kernel, store: Store, clock: FakeClock
) -> None:
    add(kernel, MAKE)
    done = kernel.run("flow")
    clock.advance(DAY)
    store.failures = 1
    assert kernel.executions.purge(older_than_seconds=3600) == 1
    assert kernel.executions.get(done.id) is None and len(store.kept) == 1
    store.age = DAY
    assert kernel.executions.purge_outputs() == 1
    assert store.kept == {}


def test_a_step_that_runs_again_leaves_nothing_for_ever(
    kernel: Kernel, store: Store, clock: FakeClock
) -> None:
    add(kernel, MAKE, MEASURE)
    done = kernel.run("flow")
    kernel.executions.resume(done.id, step_id="make")
    kernel.run_until_idle()
    assert len(store.kept) == 2, "another key"
    store.age = DAY
    assert kernel.executions.purge_outputs() == 1
    assert kernel.executions.output(done.id, "make")["text"] == LARGE


def test_a_fork_has_outputs_of_its_own(kernel: Kernel, store: Store, clock: FakeClock) -> None:
    add(kernel, MAKE, MEASURE, output="{{ steps.measure.output }}")
    first = kernel.run("flow")
    clock.advance(DAY)
    copy = kernel.executions.fork(first.id, "measure")
    assert len(store.kept) == 2
    kernel.executions.purge(older_than_seconds=3600)
    assert kernel.executions.get(first.id) is None and len(store.kept) == 1
    kernel.run_until_idle()
    assert stored(kernel, copy).output == len(LARGE)


class Busy(Store):
    """A store that calls a function of the test before it puts an output."""

    before_put: Callable[[], object] = staticmethod(bool)

    def put(self, key: str, data: bytes) -> None:
        self.before_put()
        super().put(key, data)


@pytest.mark.parametrize("at", ["memory", "sqlite"])
def test_a_fork_copies_outputs_outside_of_a_transaction(
    clock: FakeClock, tmp_path: Path, at: str
) -> None:
    """It held everybody up, and a database that ends idle transactions let it fail."""
    storage: Any = MemoryStorage(clock)
    if at == "sqlite":
        storage = SqlAlchemyStorage(f"sqlite:///{tmp_path / 'app.db'}", clock=clock)
        storage.create_tables()
    store = Busy()
    with made(storage, store) as kernel:
        add(kernel, MAKE, MEASURE, output="{{ steps.measure.output }}")
        first, enqueued = kernel.run("flow"), list[str]()

        def write() -> None:
            work = partial(kernel.outbox.enqueue, "note.other", {})
            thread = threading.Thread(target=lambda: enqueued.append(work()), daemon=True)
            thread.start()
            thread.join(PATIENCE)

        store.before_put = write
        copy = kernel.executions.fork(first.id, "measure")
        assert len(enqueued) == 1
        assert kernel.executions.output(copy, "make")["text"] == LARGE


def test_a_fork_copies_what_came_while_it_copied(clock: FakeClock) -> None:
    store = Busy()
    with made(MemoryStorage(clock), store) as kernel:
        add(kernel, MAKE, MEASURE)
        first = kernel.run("flow")

        def once_more() -> None:
            store.before_put = bool
            kernel.executions.resume(first.id, step_id="make")
            kernel.run_until_idle()
            clock.advance(DAY)
            store.age = DAY
            assert kernel.executions.purge_outputs() == 1

        store.before_put = once_more
        copy = kernel.executions.fork(first.id, "measure")
        run = stored(kernel, copy).step("make")
        assert run is not None and run.output_ref is not None
        assert run.output_ref.startswith(copy)
        assert kernel.executions.output(copy, "make")["text"] == LARGE


def test_a_fork_that_can_not_copy_leaves_nothing(clock: FakeClock) -> None:
    store = Busy()
    with made(MemoryStorage(clock), store) as kernel:
        add(kernel, MAKE, {**MAKE, "id": "another"}, MEASURE)
        first = kernel.run("flow")
        before = set(store.kept)

        def fail_at_the_second() -> None:
            store.failures = int(len(store.kept) > len(before))

        store.before_put = fail_at_the_second
        with pytest.raises(AutomateError):
            kernel.executions.fork(first.id, "measure")
        assert set(store.kept) == before
        assert [each.id for each in kernel.executions.find()] == [first.id]


def test_compensation_reads_the_output_that_it_undoes(kernel: Kernel, clock: FakeClock) -> None:
    undo = {"action": "measure", "input": {"text": "{{ output.text }}"}}
    one = interrupted(kernel, {**MAKE, "compensate": undo}, BLIND)
    kernel.executions.cancel(one)
    kernel.run_until_idle()
    assert stored(kernel, one).status is ExecutionStatus.CANCELLED
    lengths = [
        run.output for run in stored(kernel, one).steps if run.step_id not in ("make", "gate")
    ]
    assert lengths == [len(LARGE)]


# -- reading by id ---------------------------------------------------------------------------------


def test_another_tenant_s_output_is_not_there(kernel: Kernel) -> None:
    add(kernel, MAKE)
    done = kernel.run("flow")
    with pytest.raises(AutomateError) as raised:
        kernel.executions.output(done.id, "make", tenant_id="other")
    assert raised.value.code is ErrorCodes.NOT_FOUND
    with pytest.raises(AutomateError, match="there is no step 'nowhere'"):
        kernel.executions.output(done.id, "nowhere")


def test_a_folder_is_a_store(tmp_path: Path, clock: FakeClock) -> None:
    with made(MemoryStorage(clock), tmp_path / "outputs") as kernel:
        assert isinstance(kernel.executions.outputs.store, FileOutputStore)
        add(kernel, MAKE, MEASURE)
        done = kernel.run("flow")
        assert kernel.executions.output(done.id, "make")["text"] == LARGE
        with kernel.storage.begin() as rows:
            (row,) = rows.select(STEP, [Where("step_id", "eq", "make")])
    files = [each for each in (tmp_path / "outputs").rglob("*") if each.is_file()]
    assert [f"{each.parent.name}/{each.name}" for each in files] == [row["output_ref"]]
    with pytest.raises(ConfigError, match="can't be an int"):
        Kernel(discover=False, output_store=3)  # type: ignore[arg-type]


def test_a_kernel_closes_its_store(clock: FakeClock) -> None:
    """Its connections end with the kernel; a store that fails at that keeps nothing else open."""
    closed = []

    class Closing(Store):
        def close(self) -> None:
            closed.append("store")
            raise OSError("it is gone")

    class Storage(MemoryStorage):
        def close(self) -> None:
            closed.append("storage")

    made(Storage(clock), Closing()).close()
    assert closed == ["store", "storage"]


# -- a store by its name -----------------------------------------------------------------------------


class Bucket(Store):
    """A store with options, one of them secret."""

    made: ClassVar[list[tuple[str, str | None, Any]]] = []

    def __init__(self, bucket: str, key: str | None = None, *, secrets: Any = None) -> None:
        super().__init__()
        if bucket == "Bad":
            raise ConfigError("a bucket is in lower case")
        self.made.append((bucket, key, secrets))


def named(secrets: Any = None, **given: Any) -> Kernel:
    Bucket.made.clear()
    given.setdefault("store", f"{__name__}:Bucket")
    return Kernel(MemoryStorage(), discover=False, secrets=secrets or {}, output_store=given)


def test_a_plugin_s_store_gets_its_options() -> None:
    """It is made with the kernel, by its path or its key; it may read the kernel's secrets."""
    with named(bucket="outputs") as kernel:
        assert Bucket.made == [("outputs", None, kernel.secrets)]
        assert isinstance(kernel.executions.outputs.store, Bucket)
        assert kernel.executions.outputs.most == MAX_OUTPUT_BYTES
    with Kernel(
        discover=False,
        listed={"output_store": {"mine": f"{__name__}:Bucket"}},
        output_store={"store": "mine", "bucket": "other"},
    ):
        assert Bucket.made[-1][0] == "other"


def test_a_store_with_secrets_is_made_at_its_first_use() -> None:
    """A vault that is away stops no kernel, and is an error that may pass."""

    class Vault(MemorySecretsBackend):
        away = True

        def get_secret(self, key: str) -> str:
            if self.away:
                raise SecretUnavailableError("the vault is away")
            return super().get_secret(key)

    vault = Vault({"KEY": "hunter2-hunter2"})
    with named([vault], bucket="b", key="$secret:KEY") as kernel:
        store = kernel.executions.outputs.store
        assert store is not None
        assert secret_uses(kernel, {}) == {"KEY": ["output_store"]}
        with pytest.raises(StorageError, match="the vault is away"):
            store.put("a/b", b"1")
        assert Bucket.made == []
        vault.away = False
        store.put("a/b", b"1")
        assert (store.get("a/b"), [*store.keys(older_than_seconds=0)]) == (b"1", ["a/b"])
        store.delete("a/b")
        assert [made[:2] for made in Bucket.made] == [("b", "hunter2-hunter2")]
        assert kernel.redactor.redact("hunter2-hunter2") != "hunter2-hunter2"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"store": None, "bucket": "b"}, "name no store"),
        ({"store": "s4", "bucket": "b"}, "there is no output store 's4'"),
        ({"store": "no.such:Store"}, "can't be imported: ModuleNotFoundError"),
        ({"store": "automate_kernel:Kernel"}, "no subclass of OutputStore"),
        ({"bukket": "b"}, "missing a required argument: 'bucket' .it takes: bucket, key, secrets"),
        ({"bucket": "b", "bukket": "$secret:KEY"}, "unexpected keyword argument 'bukket'"),
        ({"key": "$secret:KEY"}, "missing a required argument: 'bucket'"),
        ({"bucket": "Bad"}, "a bucket is in lower case"),
    ],
)
def test_a_store_that_can_not_be_had_is_refused_at_once(given: dict[str, Any], says: str) -> None:
    """Not when the first large output comes, days later."""
    with pytest.raises(AutomateError, match=says):
        named(**given)


# -- what templates read ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("{{ steps.a.output }}", "a"),
        ("{{ steps['a'].output }}", "a"),
        ('{{ steps [ "a" ].output }}', "a"),
        ("{{ steps . a . output }}", "a"),
        ("{{ steps.get('a') }}", "ab"),
        ("{{ steps | tojson }}", "ab"),
        ("{{ steps[event.payload.which] }}", "ab"),
        ("{% for steps in steps.b.output %}{{ steps }}{% endfor %}", "ab"),
        ("{{ event.payload }}", ""),
        ("no template", ""),
    ],
)
def test_reads_of_templates(text: str, read: str) -> None:
    def reads(**field: Any) -> str:
        step = {"id": "c", "action": "tell", **field}
        others = [{"id": "a", "action": "steps.a"}, {"id": "b", "action": "tell"}]
        given = {"name": "flow", "trigger": {"type": "manual"}, "steps": [*others, step]}
        known = Reads(Workflow.from_dict(given))
        return "".join(each for each in "ab" if each in known)

    assert reads(input={"text": [{"deep": text}]}) == read
    assert reads(input={text: 1}) == read


def test_large_outputs_inside_blocks(kernel: Kernel, store: Store) -> None:
    """The steps inside read them, and the block's own is that of its last step."""
    add(
        kernel,
        {
            "id": "all",
            "for_each": [1, 2],
            "steps": [
                {"id": "make", "action": "large"},
                {"id": "size", "action": "measure", "input": {"text": "{{ steps.make.output.text }}"}},
                {"id": "more", "action": "large"},
            ],
        },
        {"id": "end", "action": "measure", "input": {"text": "{{ steps.all.output[1].text }}"}},
    )  # fmt: skip
    execution = run_in_worker(kernel)
    assert execution.status is ExecutionStatus.COMPLETED, execution.error
    rows = {run.key: run for run in stored(kernel, execution.id).steps}
    assert rows["all[1].size", -1].output == rows["end", -1].output == len(LARGE)
    assert rows["all", 1].output_ref == rows["all[1].more", -1].output_ref is not None
    assert kernel.executions.resume(execution.id, step_id="end")
    kernel.run_until_idle()
    again = stored(kernel, execution.id)
    assert again.status is ExecutionStatus.COMPLETED, again.error


@pytest.mark.parametrize("in_worker", [True, False])
def test_large_outputs_that_blocks_render(kernel: Kernel, store: Store, in_worker: bool) -> None:
    """They are put in the store too: of elements, of rounds, and of the blocks around them."""
    make = {**MAKE, "input": {"size": MAX_PAYLOAD_BYTES + 10}}
    text = {"text": "{{ steps.make.output.text }}"}
    inner = {"id": "inner", "steps": [make], "output": text}
    add(
        kernel,
        {"id": "all", "for_each": [1, 2], "steps": [inner]},
        {"id": "loop", "while": "{{ index < 2 }}", "steps": [make], "output": text},
        {"id": "end", "action": "measure", "input": {"text": "{{ steps.all.output[1].text }}"}},
        {"id": "last", "action": "measure", "input": {"text": "{{ steps.loop.output.text }}"}},
    )
    execution = run_in_worker(kernel) if in_worker else kernel.run("flow")
    assert execution.status is ExecutionStatus.COMPLETED, execution.error
    rows = {run.key: run for run in stored(kernel, execution.id).steps}
    assert {rows[key, -1].output for key in ("end", "last")} == {MAX_PAYLOAD_BYTES + 10}
    refs = [rows[key].output_ref for key in (
        ("all[0].inner", -1), ("all", 0), ("all[1].inner", -1), ("all", 1), ("loop", 1),
    )]  # fmt: skip
    assert None not in refs
    assert rows["loop", -1].output_ref == refs[-1] != rows["loop", 0].output_ref
    assert (refs[0], refs[2]) == (refs[1], refs[3])
    assert kernel.executions.resume(execution.id, step_id="end")
    kernel.run_until_idle()
    again = stored(kernel, execution.id)
    assert again.status is ExecutionStatus.COMPLETED, again.error
    while kernel.executions.purge(older_than_seconds=0):
        pass
    assert store.kept == {}


# -- sub-workflows ---------------------------------------------------------------------------------

HUGE = MAX_PAYLOAD_BYTES + 10


def add_family(kernel: Kernel, *steps: dict[str, Any]) -> None:
    """Add a workflow that takes the output of another one, which is too large for a row."""
    huge = {**MAKE, "input": {"size": HUGE}}
    define(kernel, huge, name="child", output="{{ steps.make.output }}")
    add(kernel, {"id": "make", "workflow": "child"}, *steps)


def test_the_notice_of_an_approval_reads_a_large_output(kernel: Kernel, store: Store) -> None:
    """Also inside a block, whose list comes from one."""
    told: list[str] = []

    @kernel.action
    def tell(text: str) -> None:
        told.append(text)

    notify = {"action": "tell", "input": {"text": "{{ item }}: {{ steps.make.output.size }}"}}
    ask = {"id": "ask", "approval": {"title": "{{ item }}?", "notify": notify}}
    add(
        kernel,
        {"id": "make", "action": "large"},
        {"id": "unread", "action": "large"},
        {"id": "each", "for_each": "{{ [steps.make.output.text[:3]] }}", "steps": [ask]},
    )
    kernel.start("flow")
    kernel.run_until_idle()
    assert told == [f"xxx: {len(LARGE)}"]
    assert store.calls["get"] == 1


@pytest.mark.parametrize("waited", ["event", "signal"])
def test_a_large_event_answers_once(kernel: Kernel, clock: FakeClock, waited: str) -> None:
    """No second step takes it, nor a later round, nor the execution that follows."""
    nap = {"sleep": "1h"}
    kernel.add_workflow({
        "name": "twice", "trigger": {"type": "manual"},
        "steps": [
            {"id": "one", "wait_for": {waited: "go"}},
            {"id": "nap", **nap},
            {"id": "rounds", "until": "{{ false }}", "max_rounds": 2, "on_max_rounds": "continue",
             "steps": [{"id": "round", "wait_for": {waited: "go"}}, {"id": "rest", **nap}]},
            {"id": "again", "if": "{{ not event.payload }}", "continue_as_new": {"n": 2}},
        ],
    })  # fmt: skip
    first = kernel.start("twice")
    kernel.run_until_idle()
    for number in range(6):
        if waited == "event":
            kernel.emit("go", {"number": number, "large": LARGE})
        else:
            kernel.signal(first, "go", {"number": number, "large": LARGE})
        for _ in range(4):
            kernel.run_until_idle()
            clock.advance(3700)
    executions = kernel.executions.find(workflow="twice")
    taken = [
        run.output["payload"]["number"]
        for execution in reversed(executions)
        for run in execution.steps
        if run.step_id in ("one", "rounds[0].round", "rounds[1].round")
    ]
    assert taken == list(range(6))


@pytest.mark.parametrize("in_worker", [True, False])
def test_the_output_of_a_sub_workflow_is_passed_on(
    kernel: Kernel, store: Store, in_worker: bool
) -> None:
    """Its parent's step has a copy of its own, which stays when the sub-workflow is purged."""
    add_family(kernel, MEASURE)
    done = run_in_worker(kernel) if in_worker else kernel.run("flow")
    assert done.status is ExecutionStatus.COMPLETED, done.error
    assert [run.output for run in done.steps if run.step_id == "measure"] == [HUGE]
    (child,) = kernel.executions.find(workflow="child")
    taken = stored(kernel, done.id).step("make")
    assert taken is not None and taken.output is None and taken.output_ref is not None
    assert taken.output_ref.startswith(done.id) and child.output_ref in store.kept
    with kernel.storage.begin() as rows:
        rows.delete(EXECUTION, [Where("id", "eq", child.id)])
    store.delete(child.output_ref or "")
    assert kernel.executions.output(done.id, "make")["size"] == HUGE


def test_a_sub_workflow_whose_output_is_gone_has_failed(kernel: Kernel, store: Store) -> None:
    """Its parent says why, and does not wait for ever."""
    add_family(kernel)
    one = kernel.start("flow")
    kernel.run_until_idle(kinds=["automate.advance"], patience=0)
    (child,) = kernel.executions.find(workflow="child")
    assert child.status is ExecutionStatus.COMPLETED
    store.kept.pop(child.output_ref or "")
    kernel.run_until_idle()
    found = stored(kernel, one)
    assert found.status is ExecutionStatus.FAILED
    assert "its output is gone" in str(found.error)


def test_a_function_gets_the_output_of_a_sub_workflow(kernel: Kernel) -> None:
    """As it gets any other."""
    add_family(kernel)

    async def asking(ctx: WorkflowContext) -> int:
        made = await ctx.child("child")
        return len(made["text"])

    kernel.workflow(asking)
    assert kernel.run("asking").output == HUGE


def test_an_output_that_can_not_be_read_holds_up_no_execution_beside_it(
    kernel: Kernel, store: Store, clock: FakeClock
) -> None:
    """They are driven together: that which fails goes back alone."""
    add(kernel, MAKE, {"id": "nap", "sleep": "1m"}, MEASURE)
    lost = kernel.start("flow")
    kernel.run_until_idle()
    keys = list(store.kept)
    others = [kernel.start("flow") for _ in range(2)]
    kernel.run_until_idle()
    for key in keys:
        store.kept.pop(key)
    clock.advance(61)
    items = kernel.outbox.claim_batch("me", 3)
    results = kernel._inline.handle_all(items)
    failed = [item.id for item in items if isinstance(results[item.id], AutomateError)]
    assert failed == [stored(kernel, lost).item_id]
    assert [stored(kernel, each).status for each in others] == [ExecutionStatus.COMPLETED] * 2
