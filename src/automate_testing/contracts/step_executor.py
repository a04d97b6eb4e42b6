"""The contract of a step executor, as tests that its author inherits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.executors import Heard, Perform, StepExecutor, TaskNews
from automate_kernel.operations.tasks import Declined, RemoteTask, TaskOutcome
from automate_kernel.secrets.handles import Sealed, SecretRef

__all__ = ["StepExecutorContract"]

Connect = Callable[[], StepExecutor]

PATIENCE = 30.0


def task(input: Any = None, **about: Any) -> RemoteTask:
    """Return a task with an id of its own."""
    return RemoteTask(**{"id": uuid4().hex, "operation": "shop.work", "input": input, **about})


def unheard(_: TaskNews) -> None:
    """Take news, and do nothing with it."""


async def echo(given: RemoteTask, heard: Heard, again: bool) -> TaskOutcome:
    """Return what was given, and whether it was delivered before."""
    return TaskOutcome(
        task_id=given.id, execution_id=given.execution_id, durable=given.durable,
        output={"input": given.input, "again": again},
    )  # fmt: skip


class StepExecutorContract:
    """
    Subclass it and give it a fixture ``connect``: a function that connects to one empty broker.

    Each call of it is another process: hosts and remotes share nothing else. A task whose remote
    died must come again within ``redelivery_seconds``.
    """

    redelivery_seconds: float = 5.0

    @pytest.fixture
    def connect(self) -> Connect:
        """Return a function that makes an executor on the same broker."""
        raise NotImplementedError("give the contract a `connect` fixture")

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run one test on an event loop of its own."""
        asyncio.run(asyncio.wait_for(work, 4 * PATIENCE))

    # -- what a host sees --------------------------------------------------------------------

    def test_a_task_is_performed_and_its_outcome_comes_back(self, connect: Connect) -> None:
        """Input and output are what they were, with the references to secrets in their places."""
        token = SecretRef("T")
        given = {"a": [1, None, "ä"], "token": token, "header": Sealed("x ", token)}

        async def shown(one: RemoteTask, heard: Heard, again: bool) -> TaskOutcome:
            assert one.input == given
            return TaskOutcome(task_id=one.id, output={"b": 2})

        async def work() -> None:
            async with serving(connect(), shown), host(connect) as executor:
                one = task(given)
                await executor.submit(one)
                outcome = await executor.outcome(one.id, unheard)
                assert outcome is not None
                assert outcome.failure() is None, outcome.error
                assert outcome.output == {"b": 2}

        self.run(work())

    def test_data_can_not_look_like_a_reference(self, connect: Connect) -> None:
        """A text of the input stays a text, whatever it says."""
        given = {"a": "$secret:KEY", "$automate.secret": [["KEY"]], "secrets": [[["a"], [["KEY"]]]]}

        async def work() -> None:
            async with serving(connect(), echo), host(connect) as executor:
                one = task(given)
                await executor.submit(one)
                outcome = await executor.outcome(one.id, unheard)
                assert outcome is not None
                assert outcome.output["input"] == given

        self.run(work())

    def test_a_task_that_is_submitted_again_is_attached_to(self, connect: Connect) -> None:
        """Two hosts that submit one id make one call, and both get its outcome."""
        made: list[str] = []
        gate = asyncio.Event

        async def work() -> None:
            begun, go_on = gate(), gate()

            async def slow(one: RemoteTask, heard: Heard, again: bool) -> TaskOutcome:
                made.append(one.id)
                begun.set()
                await go_on.wait()
                return await echo(one, heard, again)

            async with serving(connect(), slow), host(connect) as first, host(connect) as second:
                one = task()
                await first.submit(one)
                await begun.wait()
                await second.submit(one)
                both = asyncio.gather(
                    first.outcome(one.id, unheard), second.outcome(one.id, unheard)
                )
                await asyncio.sleep(0)
                go_on.set()
                found = await both
                assert [each is not None and each.task_id for each in found] == [one.id] * 2

        self.run(work())
        assert len(made) == 1

    def test_an_outcome_is_attached_to_as_well(self, connect: Connect) -> None:
        """A host that comes back after the end gets the outcome, and no second call is made."""
        made: list[str] = []

        async def counted(one: RemoteTask, heard: Heard, again: bool) -> TaskOutcome:
            made.append(one.id)
            return await echo(one, heard, again)

        async def work() -> None:
            async with serving(connect(), counted), host(connect) as first:
                one = task(7)
                await first.submit(one)
                assert await first.outcome(one.id, unheard) is not None
                async with host(connect) as second:
                    await second.submit(task(7, id=one.id, repeated=True))
                    outcome = await second.outcome(one.id, unheard)
                    assert outcome is not None
                    assert outcome.output["input"] == 7

        self.run(work())
        assert len(made) == 1

    def test_tasks_that_wait_are_performed_once_a_remote_comes(self, connect: Connect) -> None:
        """Nothing fails for want of a remote."""

        async def work() -> None:
            async with host(connect) as executor:
                ones = [task(number) for number in range(5)]
                for one in ones:
                    await executor.submit(one)
                waiting = [asyncio.ensure_future(executor.outcome(one.id, unheard)) for one in ones]
                await asyncio.sleep(0.1)
                assert not any(each.done() for each in waiting)
                async with serving(connect(), echo):
                    found = await asyncio.gather(*waiting)
                assert [each.output["input"] for each in found if each] == [0, 1, 2, 3, 4]

        self.run(work())

    def test_an_unknown_task_is_to_be_submitted_again(self, connect: Connect) -> None:
        """A broker that has lost a task says so, and the host does not wait for ever."""

        async def work() -> None:
            async with host(connect) as executor:
                assert await executor.outcome(uuid4().hex, unheard) is None

        self.run(work())

    def test_an_error_comes_back_as_it_was(self, connect: Connect) -> None:
        """Its code, text, remedy, retry and group are those of the remote."""

        async def failing(one: RemoteTask, heard: Heard, again: bool) -> TaskOutcome:
            error = AutomateError(
                ErrorCodes.RESOURCE_EXHAUSTED, "too many", hint="wait", retryable=False,
                retry_after=7,
            )  # fmt: skip
            error.group, error.trace = "Group", "Trace"
            return TaskOutcome.failed(one, error)

        async def work() -> None:
            async with serving(connect(), failing), host(connect) as executor:
                one = task()
                await executor.submit(one)
                outcome = await executor.outcome(one.id, unheard)
                assert outcome is not None
                error = outcome.failure()
                assert error is not None
                assert (error.code, error.message, error.hint, error.retryable) == (
                    ErrorCodes.RESOURCE_EXHAUSTED, "too many", "wait", False,
                )  # fmt: skip
                assert (error.retry_after, error.group, error.trace) == (7, "Group", "Trace")

        self.run(work())

    def test_progress_is_heard(self, connect: Connect) -> None:
        """The reports of a call are heard by the host that waits."""

        async def work() -> None:
            heard_all = asyncio.Event()
            news: list[TaskNews] = []

            def note(one: TaskNews) -> None:
                news.append(one)
                heard_all.set()

            async def reporting(one: RemoteTask, heard: Heard, again: bool) -> TaskOutcome:
                while not heard_all.is_set():
                    heard(TaskNews(progress={"value": 0.5, "message": "half"}))
                    await asyncio.sleep(0.02)
                return await echo(one, heard, again)

            async with serving(connect(), reporting), host(connect) as executor:
                one = task()
                await executor.submit(one)
                assert await executor.outcome(one.id, note) is not None
            assert news[0].progress == {"value": 0.5, "message": "half"}

        self.run(work())

    # -- ends --------------------------------------------------------------------------------

    def test_a_task_that_is_cancelled_does_not_begin(self, connect: Connect) -> None:
        """Its outcome is CANCELLED, also for whoever asks later, and no remote begins it."""
        made: list[str] = []

        async def counted(one: RemoteTask, heard: Heard, again: bool) -> TaskOutcome:
            made.append(one.id)
            return await echo(one, heard, again)

        async def work() -> None:
            async with host(connect) as executor:
                one, other = task(), task()
                await executor.submit(one)
                await executor.cancel(one.id)
                await executor.submit(other)
                async with serving(connect(), counted):
                    outcome = await executor.outcome(one.id, unheard)
                    assert outcome is not None
                    error = outcome.failure()
                    assert error is not None
                    assert error.code is ErrorCodes.CANCELLED
                    assert await executor.outcome(other.id, unheard) is not None
                assert made == [other.id]

        self.run(work())

    def test_a_call_that_runs_is_stopped_by_a_cancellation(self, connect: Connect) -> None:
        """The remote's call is cancelled."""

        async def work() -> None:
            begun, stopped = asyncio.Event(), asyncio.Event()

            async def endless(one: RemoteTask, heard: Heard, again: bool) -> TaskOutcome:
                begun.set()
                try:
                    await asyncio.sleep(3600)
                finally:
                    stopped.set()
                raise AssertionError

            async with serving(connect(), endless), host(connect) as executor:
                one = task()
                await executor.submit(one)
                await begun.wait()
                await executor.cancel(one.id)
                await asyncio.wait_for(stopped.wait(), PATIENCE)
                outcome = await executor.outcome(one.id, unheard)
                assert outcome is not None
                assert outcome.error is not None

        self.run(work())

    def test_a_host_that_leaves_lets_the_task_go_on(self, connect: Connect) -> None:
        """A deploy of hosts stops nothing: the next one attaches."""

        async def work() -> None:
            begun, go_on = asyncio.Event(), asyncio.Event()

            async def slow(one: RemoteTask, heard: Heard, again: bool) -> TaskOutcome:
                begun.set()
                await go_on.wait()
                return await echo(one, heard, again)

            async with serving(connect(), slow):
                one = task(1)
                async with host(connect) as first:
                    await first.submit(one)
                    waiting = asyncio.ensure_future(first.outcome(one.id, unheard))
                    await begun.wait()
                    waiting.cancel()
                    with suppress(asyncio.CancelledError):
                        await waiting
                    await first.detach(one.id)
                async with host(connect) as second:
                    await second.submit(task(1, id=one.id, repeated=True))
                    go_on.set()
                    outcome = await second.outcome(one.id, unheard)
                assert outcome is not None
                assert outcome.output == {"input": 1, "again": False}

        self.run(work())

    # -- remotes -----------------------------------------------------------------------------

    def test_a_task_whose_remote_died_is_made_by_another(self, connect: Connect) -> None:
        """The second call knows that it is a repetition."""

        async def work() -> None:
            begun = asyncio.Event()

            async def dying(one: RemoteTask, heard: Heard, again: bool) -> TaskOutcome:
                begun.set()
                await asyncio.sleep(3600)
                raise AssertionError

            async with host(connect) as executor:
                one = task(1)
                await executor.submit(one)
                async with serving(connect(), dying):
                    await begun.wait()
                async with serving(connect(), echo):
                    outcome = await asyncio.wait_for(
                        executor.outcome(one.id, unheard), self.redelivery_seconds + PATIENCE
                    )
                assert outcome is not None
                assert outcome.output["again"] is True

        self.run(work())

    def test_a_task_that_is_declined_waits_for_another_remote(self, connect: Connect) -> None:
        """It does not fail, and its host hears the reason."""

        async def work() -> None:
            declined = asyncio.Event()
            news: list[str] = []

            async def lacking(one: RemoteTask, heard: Heard, again: bool) -> Declined:
                return Declined("lacks the plugin shop")

            def note(one: TaskNews) -> None:
                if one.waits is not None:
                    news.append(one.waits)
                    declined.set()

            async with host(connect) as executor:
                one = task(1)
                await executor.submit(one)
                waiting = asyncio.ensure_future(executor.outcome(one.id, note))
                await asyncio.sleep(0.1)
                async with serving(connect(), lacking, name="lacking"):
                    await asyncio.wait_for(declined.wait(), PATIENCE)
                assert not waiting.done()
                async with serving(connect(), echo, name="able"):
                    outcome = await asyncio.wait_for(waiting, PATIENCE)
                assert outcome is not None
                assert "lacks the plugin shop" in news[0]

        self.run(work())

    def test_a_remote_that_stops_ends_what_it_has_begun(self, connect: Connect) -> None:
        """It takes nothing more, and its outcome is kept."""

        async def work() -> None:
            begun, go_on, stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()

            async def slow(one: RemoteTask, heard: Heard, again: bool) -> TaskOutcome:
                begun.set()
                await go_on.wait()
                return await echo(one, heard, again)

            async with host(connect) as executor:
                one, late = task(1), task(2)
                await executor.submit(one)
                remote = connect()
                serve = remote.serve(slow, slots=4, stopping=stopping, name="remote")
                serving_ = asyncio.ensure_future(serve)
                await begun.wait()
                stopping.set()
                await executor.submit(late)
                go_on.set()
                await asyncio.wait_for(serving_, PATIENCE)
                await remote.close()
                outcome = await executor.outcome(one.id, unheard)
                assert outcome is not None
                async with serving(connect(), echo):
                    assert await executor.outcome(late.id, unheard) is not None

        self.run(work())

    def test_no_more_than_its_slots_run_at_once(self, connect: Connect) -> None:
        """A remote leaves what it has no room for to others."""

        async def work() -> None:
            running, most = 0, 0

            async def counted(one: RemoteTask, heard: Heard, again: bool) -> TaskOutcome:
                nonlocal running, most
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.02)
                running -= 1
                return await echo(one, heard, again)

            async with serving(connect(), counted, slots=2), host(connect) as executor:
                ones = [task(number) for number in range(8)]
                for one in ones:
                    await executor.submit(one)
                found = await asyncio.gather(*(executor.outcome(one.id, unheard) for one in ones))
                assert all(found)
            assert most == 2

        self.run(work())

    # -- outcomes that are delivered ---------------------------------------------------------

    def test_a_durable_outcome_comes_until_it_is_taken(self, connect: Connect) -> None:
        """A host that fails to keep it gets it again, and nobody does after that."""
        if not connect().supports_durable:
            pytest.skip("it delivers no outcomes")

        async def work() -> None:
            async with serving(connect(), echo), host(connect) as executor:
                one = task(1, durable=True, execution_id="an-execution")
                await executor.submit(one)
                taken: list[TaskOutcome] = []
                enough = asyncio.Event()

                async def take(outcome: TaskOutcome) -> None:
                    taken.append(outcome)
                    if len(taken) == 1:
                        raise AutomateError(ErrorCodes.UNAVAILABLE, "the database is away")
                    enough.set()

                await delivered(executor, take, enough)
                assert [each.task_id for each in taken] == [one.id, one.id]
                assert taken[1].execution_id == "an-execution"

        self.run(work())


async def delivered(
    executor: StepExecutor,
    take: Callable[[TaskOutcome], Awaitable[None]],
    enough: asyncio.Event,
) -> None:
    """Let outcomes be delivered until there are *enough*, beginning again after an error."""

    async def forever() -> None:
        while True:
            with suppress(AutomateError):
                await executor.deliver(take)
            await asyncio.sleep(0.05)

    delivering = asyncio.ensure_future(forever())
    try:
        await asyncio.wait_for(enough.wait(), PATIENCE)
        await asyncio.sleep(0.1)
    finally:
        delivering.cancel()
        with suppress(asyncio.CancelledError):
            await delivering


@asynccontextmanager
async def host(connect: Connect) -> AsyncIterator[StepExecutor]:
    """Connect as a host for the block."""
    executor = connect()
    try:
        yield executor
    finally:
        await executor.close()


@asynccontextmanager
async def serving(
    executor: StepExecutor, perform: Perform, *, slots: int = 10, name: str = "remote"
) -> AsyncIterator[None]:
    """Let a remote *perform* tasks for the block; at its end it dies in what it does."""
    serve = executor.serve(perform, slots=slots, stopping=asyncio.Event(), name=name)
    running = asyncio.ensure_future(serve)
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await executor.close()
