"""Steps that run elsewhere: chosen, handed over, ended, and what travels with them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from waiting import PATIENCE, Gate, until
from workers import working

from automate_kernel import Call, Kernel, WorkflowContext, current_call, hookimpl
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, PayloadError
from automate_kernel.operations.task_worker import TaskWorker
from automate_kernel.operations.tasks import RemoteTask, TaskOutcome
from automate_kernel.storage.output_store import FileOutputStore
from automate_kernel.workflows.execution import Execution, ExecutionStatus, StepStatus
from automate_testing.memory_executor import MemoryBroker, MemoryExecutor

SECRET = "s3cr3t-value-of-the-key"


class World:
    """A host, and a remote of its own kernel without the host's database."""

    def __init__(self, **options: Any) -> None:
        self.broker = MemoryBroker()
        about = {
            "operations": options.pop("operations", ()),
            "durable": options.pop("durable", False),
        }
        outputs = options.pop("output_store", None)
        executors = {"gpu": {"type": MemoryExecutor(self.broker), **about}}
        self.host = Kernel(discover=False, executors=executors, output_store=outputs, **options)
        self.remote = Kernel(discover=False, secrets={"KEY": SECRET}, output_store=outputs)
        self.ending: Any = None

    @contextmanager
    def serving(self, *, largest: int = 1_000_000) -> Iterator[TaskWorker]:
        """Have the remote serve while the block runs."""
        store = self.remote.executions.outputs.store
        worker = TaskWorker(
            self.remote.operations, store, name="remote", largest=largest,
            ending=lambda: self.ending, redact=self.remote.outbox.redact,
        )  # fmt: skip
        stopping: list[Callable[[], object]] = []

        async def serve() -> None:
            event = asyncio.Event()
            stopping.append(event.set)
            loops.append(asyncio.get_running_loop())
            executor = MemoryExecutor(self.broker)
            await executor.serve(worker.perform, slots=20, stopping=event, name="remote")

        loops: list[asyncio.AbstractEventLoop] = []
        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        thread.start()
        until(lambda: bool(stopping))
        try:
            yield worker
        finally:
            loops[0].call_soon_threadsafe(stopping[0])
            thread.join(PATIENCE)

    def add(self, *steps: dict[str, Any], **more: Any) -> None:
        """Give the host a workflow of these steps."""
        more.setdefault("trigger", {"type": "manual"})
        self.host.add_workflow({"name": "flow", "steps": list(steps), **more})

    def close(self) -> None:
        """Close both kernels."""
        self.host.close()
        self.remote.close()


@pytest.fixture
def make() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def one(**options: Any) -> World:
        made.append(World(**options))
        return made[-1]

    yield one
    for each in made:
        each.close()


def ended(world: World, execution_id: str) -> Execution:
    """Wait for the end of an execution, and return it."""
    found: list[Execution] = []

    def over() -> bool:
        execution = world.host.executions.get(execution_id)
        found[:] = [execution] if execution is not None else []
        return bool(found) and found[0].status.finished

    until(over)
    return found[0]


STEP = {"id": "a", "action": "llm.answer", "runs_on": "gpu", "input": {"n": 1}}
AGAIN = {**STEP, "retry": {"attempts": 3, "delay": 0}}


def answering(world: World, answer: Callable[..., Any] | None = None) -> list[Call]:
    """Give the remote the action; return the calls that it gets."""
    calls: list[Call] = []

    @world.remote.action("llm.answer")
    def act(n: int = 0, token: str = "") -> Any:
        call = current_call()
        assert call is not None
        calls.append(call)
        return answer(n) if answer is not None else {"n": n, "token": token}

    return calls


@pytest.mark.parametrize("durable", [False, True])
def test_a_step_runs_on_the_executor_that_it_names(make: Any, durable: bool) -> None:
    """The host needs no such action, and the output is the step's."""
    world = make(durable=durable)
    calls = answering(world)
    world.add(STEP, {"id": "b", "action": "here", "input": {"got": "{{ steps.a.output.n }}"}})

    @world.host.action("here")
    def here(got: int) -> int:
        return got + 1

    with world.serving(), working(world.host):
        execution = ended(world, world.host.start("flow"))
    assert execution.status is ExecutionStatus.COMPLETED
    assert execution.step("b").output == 2
    assert (calls[0].execution_id, calls[0].step_id) == (execution.id, "a")
    assert world.broker.submitted == 1


def test_a_run_in_place_waits_for_the_executor(make: Any) -> None:
    """`Kernel.run` goes on with the outcome."""
    world = make()
    answering(world)
    world.add(STEP)
    with world.serving():
        execution = world.host.run("flow")
    assert execution.status is ExecutionStatus.COMPLETED
    assert execution.step("a").output == {"n": 1, "token": ""}


def test_patterns_and_here(make: Any) -> None:
    """A pattern sends an operation away, and ``here`` keeps it; a transactional one stays."""
    world = make(operations=["llm.*"])
    calls = answering(world)

    @world.host.action("llm.answer")
    def here(n: int = 0) -> str:
        return "here"

    @world.host.action("llm.write", transactional=True)
    def write() -> str:
        return "in the transaction"

    with world.serving():
        assert world.host.invoke("llm.answer", {"n": 4}) == {"n": 4, "token": ""}
        assert world.host.invoke("llm.answer", {"n": 4}, runs_on="here") == "here"
        assert asyncio.run(world.host.ainvoke("llm.answer", {"n": 5}))["n"] == 5
        assert world.host.invoke("llm.write") == "in the transaction"
        with pytest.raises(AutomateError, match="can't run on 'gpu'") as raised:
            world.host.invoke("llm.write", runs_on="gpu")
    assert raised.value.code is ErrorCodes.FAILED_PRECONDITION
    assert len(calls) == 2


def test_workflows_in_code_run_steps_elsewhere(make: Any) -> None:
    """By name, and by a function that is an action; also where the wait is durable."""
    for durable in (False, True):
        world = make(durable=durable)
        answering(world)

        @world.host.action("llm.answer")
        def answer(n: int) -> dict[str, Any]:
            raise AssertionError("it runs elsewhere")

        @world.host.workflow
        async def flow(ctx: WorkflowContext, payload: Any) -> Any:
            first = await ctx.call("llm.answer", n=2, runs_on="gpu")
            second = await ctx.step(answer, first["n"] + 1, runs_on="gpu")
            return second["n"]

        with world.serving(), working(world.host):
            execution = ended(world, world.host.start("flow", {}))
        assert execution.error is None
        assert execution.output == 3


@pytest.mark.parametrize("durable", [False, True])
def test_secrets_travel_as_references(make: Any, durable: bool) -> None:
    """The host never reads them, the remote does, and what comes back is redacted."""
    world = make(durable=durable, secrets={})
    seen: list[str] = []

    @world.remote.action("llm.answer")
    def act(token: str) -> str:
        seen.append(token)
        return f"used {token}"

    world.add({**STEP, "input": {"token": "$secret:KEY"}})
    with world.serving(), working(world.host):
        execution = ended(world, world.host.start("flow"))
    assert seen == [SECRET]
    assert SECRET not in str(execution)
    assert SECRET not in str(world.broker.outcomes)
    assert execution.step("a").output.startswith("used ")


def test_the_value_of_a_secret_does_not_travel(make: Any) -> None:
    """An input that holds a value which the host has read is refused before it is sent."""
    world = make(secrets={"KEY": SECRET})
    world.host.secrets.get("KEY")
    with pytest.raises(AutomateError, match="must not travel") as raised:
        world.host.invoke("llm.answer", {"token": SECRET}, runs_on="gpu")
    assert SECRET not in str(raised.value)
    assert not world.broker.submitted


@pytest.mark.parametrize("durable", [False, True])
def test_a_failed_attempt_is_a_task_of_its_own(make: Any, durable: bool) -> None:
    """A retry does not attach to the failure, and the call knows how many have failed."""
    world = make(durable=durable)

    def answer(n: int) -> str:
        call = current_call()
        assert call is not None
        if call.failed_attempts < 2:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "not yet")
        return "done"

    calls = answering(world, answer)
    world.add(AGAIN)
    with world.serving(), working(world.host):
        execution = ended(world, world.host.start("flow"))
    assert execution.step("a").output == "done"
    assert [call.failed_attempts for call in calls] == [0, 1, 2]
    assert [call.attempt for call in calls] == [1, 2, 3]
    assert world.broker.submitted == 3


def test_a_resumed_execution_makes_its_failed_call_anew(make: Any) -> None:
    """It does not attach to the outcome of the attempt before the resume."""
    world = make()
    works = Gate()

    def answer(n: int) -> str:
        if not works.is_set():
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "no")
        return "done"

    answering(world, answer)
    world.add(STEP)
    with world.serving(), working(world.host):
        execution_id = world.host.start("flow")
        execution = ended(world, execution_id)
        assert execution.status is ExecutionStatus.FAILED
        assert execution.step("a").error_code == "INVALID_ARGUMENT"
        works.set()
        world.host.executions.resume(execution_id)
        execution = ended(world, execution_id)
    assert execution.status is ExecutionStatus.COMPLETED


@pytest.mark.parametrize("durable", [False, True])
def test_elements_of_a_list_run_elsewhere(make: Any, durable: bool) -> None:
    """Side by side, and their outputs come in order."""
    world = make(durable=durable)
    answering(world)
    world.add(
        {
            **STEP, "for_each": "{{ range(7) | list }}", "concurrency": 3,
            "input": {"n": "{{ item }}"},
        },
        output="{{ steps.a.output | map(attribute='n') | list }}",
    )  # fmt: skip
    with world.serving(), working(world.host):
        execution = ended(world, world.host.start("flow"))
    assert execution.output == [0, 1, 2, 3, 4, 5, 6]


def test_progress_labels_and_the_last_report_travel(make: Any) -> None:
    """People see how far a call has come, and the next attempt goes on from there."""
    world = make()
    seen, last = Gate(), []

    @world.remote.action("llm.answer")
    async def act(n: int) -> str:
        call = current_call()
        assert call is not None
        last.append(call.last_progress)
        call.progress({"page": 40}, "page 40")
        call.label(shipment=4711)
        if len(last) == 1:
            while not seen.is_set():
                await asyncio.sleep(0.01)
            raise AutomateError(ErrorCodes.UNAVAILABLE, "again")
        return "done"

    world.add(AGAIN)
    with world.serving(), working(world.host):
        execution_id = world.host.start("flow")

        def progress() -> Any:
            execution = world.host.executions.get(execution_id)
            run = execution and execution.step("a")
            return run and run.progress

        until(lambda: progress() is not None)
        assert progress() == {"value": {"page": 40}, "message": "page 40"}
        seen.set()
        execution = ended(world, execution_id)
    assert last == [None, {"page": 40}]
    assert execution.labels == {"shipment": "4711"}


@pytest.mark.parametrize("cleans", [False, True])
@pytest.mark.parametrize("durable", [False, True])
def test_a_cancelled_execution_stops_its_call_elsewhere(
    make: Any, durable: bool, cleans: bool
) -> None:
    """The remote's call is cancelled, whether the execution cleans up or not."""
    world = make(durable=durable)
    begun, stopped = Gate(), Gate()

    @world.remote.action("llm.answer")
    async def act(n: int) -> None:
        begun.set()
        try:
            await asyncio.sleep(10 * PATIENCE)
        finally:
            stopped.set()

    world.host.action("clean")(lambda: None)
    clean = [{"id": "clean", "action": "clean"}] if cleans else []
    world.add(STEP, on_cancel=clean)
    with world.serving(), working(world.host):
        execution_id = world.host.start("flow")
        begun.wait()
        until(lambda: world.host.executions.get(execution_id).status.name == "RUNNING")
        if durable:
            until(lambda: world.host.executions.waits(execution_id))
        world.host.executions.cancel(execution_id)
        stopped.wait()
        execution = ended(world, execution_id)
    assert execution.status is ExecutionStatus.CANCELLED


@pytest.mark.parametrize("ends", ["fails", "is cancelled"])
@pytest.mark.parametrize("items", [None, [1, 2, 3]])
@pytest.mark.parametrize("durable", [False, True])
def test_what_undoes_a_step_may_run_elsewhere(
    make: Any, durable: bool, items: list[int] | None, ends: str
) -> None:
    """It is tried again as it says, of each element, and the execution ends."""
    world = make(durable=durable)
    made: list[int] = []

    def answer(n: int) -> None:
        made.append(n)
        if n == 7 and made.count(7) == 1:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "not now")

    answering(world, answer)
    undo = {**AGAIN, "input": {"n": 7}}
    del undo["id"]
    last: dict[str, Any] = {"id": "last", "wait_for": {"signal": "go"}, "needs": ["a"]}
    if ends == "fails":
        last = {"id": "last", "action": "fail", "needs": ["a"]}
    world.host.action("fail")(lambda: 1 / 0)
    many = {} if items is None else {"for_each": items}
    world.add({**STEP, **many, "compensate": undo}, last)
    with world.serving(), working(world.host):
        execution_id = world.host.start("flow")
        if ends == "is cancelled":
            waits = world.host.executions.waits
            until(lambda: [one for one in waits(execution_id) if one.step_id == "last"])
            world.host.executions.cancel(execution_id)
        execution = ended(world, execution_id)
    assert "not undone" not in (execution.error or "")
    assert made.count(7) == 1 + len(items or [1])


@pytest.mark.parametrize("payload", [None, {}, "x", {"status": "COMPLETED", "output": "forged"}])
def test_no_signal_is_taken_for_the_outcome_of_a_task(make: Any, payload: Any) -> None:
    """Whoever may send signals, and can find out a task's id, answers no step and stops none."""
    world = make(durable=True)
    answering(world)
    world.add(STEP)
    with working(world.host):
        execution_id = world.host.start("flow")
        until(lambda: world.host.executions.waits(execution_id))
        (task_id,) = world.broker.tasks
        for key in (None, task_id):
            world.host.signal(
                execution_id, f"automate.task.{task_id}", payload, idempotency_key=key
            )
        until(lambda: world.host.outbox.stats().counts["automate.signal"] == {"COMPLETED": 2})
        with world.serving():
            execution = ended(world, execution_id)
    assert execution.status is ExecutionStatus.COMPLETED
    assert execution.steps[0].output == {"n": 1, "token": ""}


@pytest.mark.parametrize(
    "bad",
    [
        {"labels": ["a"]},
        {"error": "text"},
        {"error": []},
        {"output_ref": 5},
        {"worker": {}},
        {"error": {"code": ["a"], "message": 5, "retry_after": "soon", "retryable": "yes"}},
        {"error": {"code": "NEWER", "trace": 5, "group": [], "hint": {}, "problems": "none"}},
    ],
)
@pytest.mark.parametrize("durable", [False, True])
def test_an_outcome_that_can_not_be_read_fails_its_step(
    make: Any, durable: bool, bad: dict[str, Any]
) -> None:
    """Nobody waits for another, since the first counts; and the error's own fields are checked."""
    world = make(durable=durable)
    world.add(STEP)
    with working(world.host):
        execution_id = world.host.start("flow")
        until(lambda: bool(world.broker.tasks))
        (task_id,) = world.broker.tasks
        if durable:
            until(lambda: world.host.executions.waits(execution_id))
        about = {"v": 1, "task_id": task_id, "execution_id": execution_id, "durable": durable}
        outcome = TaskOutcome.from_text(json.dumps({**about, **bad}))
        world.broker.keep(outcome)
        execution = ended(world, execution_id)
    assert execution.status is ExecutionStatus.FAILED
    error = outcome.failure()
    assert error is not None
    assert (error.retry_after, error.trace, error.group) == (None, None, None)
    assert execution.steps[0].error_code in ("DATA_LOSS", "INTERNAL")


@pytest.mark.parametrize("bad", [{}, {"task_id": 5}, {"task_id": "a", "execution_id": []}])
def test_what_names_no_task_is_refused(bad: dict[str, Any]) -> None:
    """So are tasks with fields of other types, and secrets that have no place."""
    with pytest.raises(PayloadError, match="is no outcome"):
        TaskOutcome.from_text(json.dumps({"v": 1, **bad}))
    task = {"v": 1, "id": "a", "operation": "b"}
    for wrong in ({"id": None}, {"timeout": "1"}, {"headers": []}, {"secrets": [[["x"], [["K"]]]]}):
        with pytest.raises(PayloadError, match="is no task"):
            RemoteTask.from_text(json.dumps({**task, **wrong}))


@pytest.mark.parametrize("durable", [False, True])
def test_a_worker_that_stops_leaves_the_call_to_go_on(make: Any, durable: bool) -> None:
    """It stops at once, the call goes on, and the next worker takes its outcome: one call."""
    world = make(durable=durable)
    begun, go_on = Gate(), Gate()

    @world.remote.action("llm.answer")
    async def act(n: int) -> int:
        begun.set()
        while not go_on.is_set():
            await asyncio.sleep(0.01)
        return n

    world.add(STEP)
    with world.serving() as remote:
        with working(world.host, grace_seconds=PATIENCE):
            execution_id = world.host.start("flow")
            begun.wait()
        assert remote.running
        go_on.set()
        with working(world.host):
            execution = ended(world, execution_id)
        assert remote.done == 1
    assert execution.step("a").output == 1
    assert execution.step("a").attempts == 1
    assert execution.step("a").failures == 0


def test_a_broker_that_is_away_or_full_fails_nothing(make: Any) -> None:
    """The step waits with its reason, and goes on once the broker is back."""
    world = make()
    answering(world)
    world.add(STEP)
    world.broker.available = False
    with world.serving(), working(world.host):
        execution_id = world.host.start("flow")

        def reason() -> str:
            execution = world.host.executions.get(execution_id)
            run = execution and execution.step("a")
            return str(run and run.progress)

        until(lambda: "waits for executor 'gpu'" in reason())
        assert "can't be reached" in reason()
        problems = world.host.operations.portal.run(world.host.executors.problems())
        assert problems == {"gpu": ["the broker can't be reached"]}
        world.broker.most, world.broker.available = 0, True
        until(lambda: "full" in reason())
        world.broker.most = 10
        execution = ended(world, execution_id)
    assert execution.status is ExecutionStatus.COMPLETED
    assert execution.step("a").attempts == 1


@pytest.mark.parametrize("durable", [False, True])
def test_a_worker_reports_its_use_of_executors(make: Any, durable: bool) -> None:
    """What it holds in flight, what came back, and what keeps tasks from being done."""
    world = make(durable=durable)
    hold = threading.Event()

    def answer(n: int) -> int:
        assert hold.wait(PATIENCE)
        raise LookupError(f"no {n} for {world.remote.secrets.get('KEY')}")

    answering(world, answer)
    world.add(STEP)

    def used() -> Any:
        found = [use for each in world.host.outbox.workers() for use in each.executors]
        return found[0] if found else None

    with world.serving(), working(world.host, report_seconds=0.05):
        execution_id = world.host.start("flow")
        if durable:
            until(lambda: world.host.executions.waiting_tasks() == {"gpu": 1})
        else:
            until(lambda: used() is not None and used().in_flight == 1)
        hold.set()
        ended(world, execution_id)
        until(lambda: used() is not None and used().ended == 1)
        assert (used().name, used().in_flight) == ("gpu", 0)
        assert "no 1 for" in used().error
        assert SECRET not in used().error
        assert used().problem is None
        world.broker.available = False
        world.host.operations.portal.run(world.host.executors.problems())
        until(lambda: used().problem == "the broker can't be reached")
    assert not world.host.executions.waiting_tasks()


def test_a_remote_without_the_action_leaves_it_to_others(make: Any) -> None:
    """Nothing fails, and the reason stands at the step."""
    world = make()
    world.add(STEP)
    with world.serving(), working(world.host):
        execution_id = world.host.start("flow")

        def reason() -> str:
            execution = world.host.executions.get(execution_id)
            run = execution and execution.step("a")
            return str(run and run.progress)

        until(lambda: "doesn't know the action 'llm.answer'" in reason())
        answering(world)
        for entry in world.broker.tasks.values():
            entry.refused_by.clear()
        execution = ended(world, execution_id)
    assert execution.status is ExecutionStatus.COMPLETED


def test_an_executor_that_is_not_configured_is_another_workers(make: Any, caplog: Any) -> None:
    """The execution is handed over, as for an unknown action; a call outside fails with a hint."""
    world = make()
    world.add({**STEP, "runs_on": "gpus"})
    with working(world.host):
        execution_id = world.host.start("flow")
        until(lambda: f"execution {execution_id} is handed over" in caplog.text)
    with pytest.raises(AutomateError, match="gpus") as raised:
        world.host.invoke("llm.answer", runs_on="gpus")
    assert "did you mean 'gpu'" in str(raised.value)
    execution = world.host.executions.get(execution_id)
    assert execution is not None
    assert not execution.status.finished


@pytest.mark.parametrize("durable", [False, True])
def test_what_the_broker_refuses_goes_by_the_output_store(
    make: Any, durable: bool, tmp_path: Any
) -> None:
    """Both ways; without a store the step fails, and says what is missing."""
    world = make(durable=durable, output_store=FileOutputStore(tmp_path))
    world.host.executors.placements["gpu"].executor.largest = 2_000
    answering(world, lambda n: "x" * 5_000)
    world.add(
        {**STEP, "input": {"n": 1, "token": "y" * 5_000}},
        output="{{ steps.a.output | length }}",
    )
    with world.serving(largest=2_000), working(world.host):
        execution = ended(world, world.host.start("flow"))
    assert execution.error is None
    assert execution.output == 5_000
    alone = make()
    alone.host.executors.placements["gpu"].executor.largest = 2_000
    with pytest.raises(AutomateError, match="output store"):
        alone.host.invoke("llm.answer", {"token": "y" * 5_000}, runs_on="gpu")


def test_a_timeout_counts_from_where_the_attempt_begins(make: Any) -> None:
    """The remote ends it; a task that waits in the queue does not time out."""
    world = make()

    @world.remote.action("llm.answer")
    async def act(n: int) -> None:
        await asyncio.sleep(PATIENCE)

    world.add({**STEP, "timeout": 0.3})
    with working(world.host):
        execution_id = world.host.start("flow")
        until(lambda: bool(world.broker.tasks))
        with world.serving():
            execution = ended(world, execution_id)
    assert execution.step("a").error_code == "DEADLINE_EXCEEDED"
    assert execution.step("a").status is StepStatus.FAILED


def test_the_caller_of_an_invocation_waits_no_longer_than_it_says(make: Any) -> None:
    """Outside a workflow the timeout is the caller's, queue and all; the task is cancelled."""
    world = make()
    with pytest.raises(AutomateError) as raised:
        world.host.invoke("llm.answer", runs_on="gpu", timeout=0.2)
    assert raised.value.code is ErrorCodes.DEADLINE_EXCEEDED
    assert not world.broker.tasks


def test_hooks_may_add_what_travels(make: Any) -> None:
    """A trace context, say."""
    world = make()

    class Tracing:
        @hookimpl
        def automate_before_dispatch(self, call: Call, executor: str, headers: Any) -> None:
            headers["traceparent"] = f"{call.operation} on {executor}"

    world.host.register(Tracing(), kind="hook", key="tracing")
    with pytest.raises(AutomateError):
        world.host.invoke("llm.answer", runs_on="gpu", timeout=0.05)
    # The task is gone by then: what it had is seen where it is made.
    call = Call("llm.answer")
    task = world.host.operations._task(
        world.host.executors.placements["gpu"], {}, call, limits(), ""
    )
    assert task.headers == {"traceparent": "llm.answer on gpu"}


def limits() -> Any:
    from automate_kernel.operations.executors import TaskLimits

    return TaskLimits()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"here": MemoryExecutor()}, "can't have this name"),
        ({"gpu": {"operations": ["llm.*"]}}, "names no type"),
        ({"gpu": {"type": "natz"}}, "natz"),
        ({"gpu": {"type": MemoryExecutor(), "durable": "yes"}}, "durable true or false"),
        ({"gpu": 7}, "names no type"),
    ],
)
def test_wrong_settings_are_refused_with_their_place(given: Any, words: str) -> None:
    """A kernel is not made with an executor that can't be."""
    with pytest.raises((ConfigError, AutomateError), match=words):
        Kernel(discover=False, executors=given)
