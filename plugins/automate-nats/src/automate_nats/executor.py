"""
Calls by NATS JetStream: tasks in a work queue, the first outcome of each, and its delivery.

::

    host ──▶ tasks.<queue>.<id>  ──▶ remote          created if its subject is empty, else attached
    host ◀── outcomes.<queue>.<id> ◀── remote        the first one stays; then the task is acked
    host ◀── deliveries.<queue>.<id> ◀── remote      of durable tasks, until a host has taken it
    host ◀── news.<host> ◀── remote                  hints and progress, which may be lost
    host ──▶ control.<queue>.<id> ──▶ remote         a cancellation, or another host that listens

Each subject begins with *prefix*. Where a hint is lost, the outcome is read after a moment.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StreamConfig

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, PayloadError
from automate_kernel.base.forks import renew_in_children
from automate_kernel.operations.executors import Heard, Perform, StepExecutor, TaskNews
from automate_kernel.operations.tasks import Declined, RemoteTask, TaskOutcome
from automate_kernel.secrets.logs import get_logger
from automate_nats.connection import NatsConnection, fetched, reaching, refused

logger = get_logger(__name__)

_TAKEN = 10071
"""JetStream's code for a subject that is not empty."""

_ONCE = {"Nats-Expected-Last-Subject-Sequence": "0"}
_HOST = "Automate-Host"
_FIRST_LOOK, _LONGEST_LOOK = 1.0, 5.0
_LONGEST_DECLINE = 10.0
_REQUESTS = 256
_ROOM = 20_000
"""The bytes that headers and what stands around a value may take."""


@dataclass(eq=False)
class _Awaited:
    """A task whose outcome somebody waits for in this process."""

    outcome: asyncio.Future[TaskOutcome]
    heard: Heard


@dataclass(eq=False)
class _Running:
    """A task whose call runs in this process."""

    message: Msg
    hosts: set[str] = field(default_factory=set)
    call: asyncio.Future[TaskOutcome | Declined] | None = None
    cancelled: bool = False


class NatsExecutor(StepExecutor):
    """
    An executor on NATS JetStream, for hosts and remotes of the same *queue*.

    Its streams are made at the first use, unless they are there: ``AUTOMATE_TASKS_<queue>`` and so
    on. At most *most_tasks* wait or run, of *most_bytes*; hosts wait for room beyond it. Outcomes
    are kept for *kept_seconds*: longer than any host may be away. A task whose remote is silent for
    *ack_seconds* goes to another one, and ends with ``ABORTED`` once it has killed *most_deaths*.
    Further options are those of `NatsConnection`.
    """

    def __init__(
        self,
        servers: str | list[str] = "nats://127.0.0.1:4222",
        *,
        queue: str = "default",
        prefix: str = "automate",
        most_tasks: int = 100_000,
        most_bytes: int = 1_000_000_000,
        kept_seconds: float = 7 * 86_400.0,
        ack_seconds: float = 30.0,
        most_deaths: int = 5,
        replicas: int = 1,
        credentials: str | None = None,
        nkey: str | None = None,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        tls: dict[str, str] | None = None,
    ) -> None:
        for name, value in (("ack_seconds", ack_seconds), ("kept_seconds", kept_seconds)):
            if value <= 0:
                raise ConfigError(f"{name} must be above 0")
        self.queue, self._prefix = queue, prefix
        self._connection = NatsConnection(
            servers, name=f"automate executor {queue}", credentials=credentials, nkey=nkey,
            user=user, password=password, token=token, tls=tls,
        )  # fmt: skip
        self._most_tasks, self._most_bytes, self._replicas = most_tasks, most_bytes, replicas
        self._kept_seconds, self._ack_seconds = kept_seconds, ack_seconds
        self._most_deaths = most_deaths
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget the connection, which is another process's."""
        self._connection.forget()
        self._news = self._subject("news", uuid4().hex, queue=False)
        self._awaited: dict[str, list[_Awaited]] = {}
        self._running: dict[str, _Running] = {}
        # Tasks that were there before: their outcomes may be too.
        self._attached: set[str] = set()
        self._ready = self._listens = False
        self._starting: asyncio.Lock | None = None
        self._requests: asyncio.Semaphore | None = None

    def __repr__(self) -> str:
        return f"NatsExecutor({', '.join(self._connection.servers)}, queue={self.queue!r})"

    def _subject(self, kind: str, last: str, *, queue: bool = True) -> str:
        middle = f".{self.queue}" if queue else ""
        return f"{self._prefix}.{kind}{middle}.{last}"

    def _stream(self, kind: str) -> str:
        return f"{self._prefix}_{kind}_{self.queue}".upper()

    # -- streams -----------------------------------------------------------------------------

    async def _jetstream(self) -> JetStreamContext:
        js = await self._connection.jetstream()
        if not self._ready:
            self._starting = self._starting or asyncio.Lock()
            async with self._starting:
                if not self._ready:
                    with reaching(self._connection):
                        await self._make_streams(js)
                        client = await self._connection.client()
                        if not self._listens:
                            await client.subscribe(self._news, cb=self._hear)
                            self._listens = True
                    most = client.max_payload - _ROOM
                    self.largest = max(1_000, min(900_000, most))
                    self._ready = True
        return js

    async def _make_streams(self, js: JetStreamContext) -> None:
        common: dict[str, Any] = {"allow_direct": True, "num_replicas": self._replicas}
        for kind, its in (
            ("tasks", {
                "retention": RetentionPolicy.WORK_QUEUE, "discard": DiscardPolicy.NEW,
                "max_msgs": self._most_tasks, "max_bytes": self._most_bytes,
            }),
            ("outcomes", {
                "subjects": [self._subject("outcomes", ">"), self._subject("state", ">")],
                "max_age": self._kept_seconds, "max_msgs_per_subject": 1,
            }),
            ("deliveries", {
                "retention": RetentionPolicy.WORK_QUEUE, "max_age": self._kept_seconds,
                "duplicate_window": min(120.0, self._kept_seconds),
            }),
        ):  # fmt: skip
            about: dict[str, Any] = {"subjects": [self._subject(kind, ">")], **common, **its}
            await self._connection.make_stream(StreamConfig(name=self._stream(kind), **about))
        for kind, consumer in (("tasks", "remotes"), ("deliveries", "hosts")):
            await js.add_consumer(
                self._stream(kind),
                ConsumerConfig(
                    durable_name=consumer, ack_policy=AckPolicy.EXPLICIT, max_deliver=-1,
                    ack_wait=self._ack_seconds, max_ack_pending=self._most_tasks,
                ),
            )  # fmt: skip

    async def _publish(
        self, subject: str, text: str, headers: dict[str, str] | None = None
    ) -> bool:
        """Publish to a stream; return False if its subject should have been empty, and is not."""
        js = await self._jetstream()
        self._requests = self._requests or asyncio.Semaphore(_REQUESTS)
        try:
            async with self._requests:
                with reaching(self._connection):
                    # Not `publish_async`: of what JetStream refuses that hears nothing.
                    await js.publish(subject, text.encode(), headers=headers)
        except js_errors.APIError as error:
            if error.err_code == _TAKEN:
                return False
            raise refused(error) from None
        except AutomateError as error:
            if "NoStream" in error.message:
                self._ready = False  # somebody has deleted it
            raise
        return True

    async def _last(self, kind: str, task_id: str, stream: str | None = None) -> bytes | None:
        """Return the message of a task in a stream, or None."""
        js = await self._jetstream()
        try:
            with reaching(self._connection):
                found = await js.get_last_msg(
                    self._stream(stream or kind), self._subject(kind, task_id), direct=True
                )
        except js_errors.NotFoundError:
            return None
        except js_errors.APIError as error:
            raise refused(error) from None
        return found.data or b""

    async def _kept(self, task_id: str) -> TaskOutcome | None:
        data = await self._last("outcomes", task_id)
        return None if data is None else TaskOutcome.from_text(data)

    async def _tell(self, subject: str, about: dict[str, Any]) -> None:
        """Send what may be lost."""
        with suppress(AutomateError), reaching(self._connection):
            client = await self._connection.client()
            await client.publish(subject, json.dumps(about).encode())

    # -- the host's side ---------------------------------------------------------------------

    async def submit(self, task: RemoteTask) -> None:
        """Create a task, or attach to it."""
        if task.repeated:
            self._attached.add(task.id)
            if await self._kept(task.id) is not None:
                return
        else:
            await self._jetstream()
        text = task.to_text()
        if len(text) > self.largest:
            raise PayloadError(
                f"the task takes {len(text):,} bytes, and NATS {self.largest:,} at most",
                hint="give the host and the remote the same output_store",
            )
        created = await self._publish(
            self._subject("tasks", task.id), text, {**_ONCE, _HOST: self._news}
        )
        if not created:
            self._attached.add(task.id)
            await self._tell(self._subject("control", task.id), {"attach": self._news})

    async def outcome(self, task_id: str, heard: Heard) -> TaskOutcome | None:
        """Wait for a hint, and look for the outcome from time to time."""
        future: asyncio.Future[TaskOutcome] = asyncio.get_running_loop().create_future()
        awaited = _Awaited(future, heard)
        self._awaited.setdefault(task_id, []).append(awaited)
        pause = 0.0 if task_id in self._attached else _FIRST_LOOK
        try:
            while True:
                if pause:
                    await asyncio.wait([future], timeout=pause)
                if future.done():
                    return future.result()
                found = await self._kept(task_id)
                if found is not None:
                    return found
                if await self._last("tasks", task_id) is None:
                    # Between the two looks it may have ended.
                    return await self._kept(task_id)
                pause = min(_LONGEST_LOOK, 2 * pause or _FIRST_LOOK)
        finally:
            self._attached.discard(task_id)
            its = self._awaited.get(task_id, [])
            its.remove(awaited)
            if not its:
                del self._awaited[task_id]

    async def _hear(self, message: Msg) -> None:
        """Take a hint, or news, of a task."""
        try:
            about = json.loads(message.data)
            its = list(self._awaited.get(about["id"], ()))
            if "outcome" in about:
                outcome = TaskOutcome.from_text(about["outcome"])
        except (ValueError, KeyError, TypeError, AutomateError):
            logger.warning("a message on %s is no news", message.subject)
            return
        for each in its:
            if "outcome" in about:
                if not each.outcome.done():
                    each.outcome.set_result(outcome)
                continue
            with suppress(PayloadError):
                each.heard(TaskNews(about.get("progress"), about.get("waits")))

    async def cancel(self, task_id: str) -> None:
        """Keep an outcome that says so, and tell the remote."""
        error = AutomateError(ErrorCodes.CANCELLED, "the call was cancelled")
        outcome = TaskOutcome.failed(RemoteTask(id=task_id, operation=""), error)
        if await self._publish(self._subject("outcomes", task_id), outcome.to_text(), _ONCE):
            await self._tell(self._subject("control", task_id), {"cancel": True})

    async def deliver(self, take: Callable[[TaskOutcome], Awaitable[None]]) -> None:
        """Take deliveries some at once, and acknowledge each that was taken."""
        js = await self._jetstream()
        with reaching(self._connection):
            consumer = await js.pull_subscribe_bind("hosts", stream=self._stream("deliveries"))
        failed: list[AutomateError] = []

        async def one(message: Msg) -> None:
            try:
                await take(TaskOutcome.from_text(message.data))
            except PayloadError as error:
                logger.error("%s: %s", message.subject, error)
                await message.term()
            except AutomateError as error:
                failed.append(error)
                await message.nak()
            else:
                await message.ack()

        try:
            while not failed:
                with suppress(asyncio.TimeoutError, js_errors.FetchTimeoutError):
                    with reaching(self._connection):
                        messages = await fetched(consumer, 50)
                    await asyncio.gather(*map(one, messages))
        finally:
            with suppress(Exception):
                await consumer.unsubscribe()
        raise failed[0]

    async def problems(self) -> list[str]:
        """Look at the queue: who serves it, and whether it is full."""
        js = await self._jetstream()
        with reaching(self._connection):
            state = (await js.stream_info(self._stream("tasks"))).state
            remotes = await js.consumer_info(self._stream("tasks"), "remotes")
        found = []
        if state.messages and not remotes.num_waiting and not remotes.num_ack_pending:
            found.append(
                f"{state.messages:,} tasks wait, and no executor serves the queue {self.queue!r}"
            )
        if state.messages >= self._most_tasks:
            found.append(f"the queue is full: {state.messages:,} tasks wait or run")
        return found

    async def close(self) -> None:
        """Close the connection."""
        self._ready = self._listens = False
        await self._connection.close()

    # -- the remote's side -------------------------------------------------------------------

    async def serve(
        self, perform: Perform, *, slots: int, stopping: asyncio.Event, name: str
    ) -> None:
        """Fetch as many tasks as there is room for, and keep those that run."""
        tasks: set[asyncio.Task[None]] = set()
        beating: asyncio.Task[None] | None = None
        consumer: Any = None
        try:
            while not stopping.is_set():
                try:
                    if consumer is None:
                        consumer = await self._begin_serving()
                        beating = beating or asyncio.create_task(self._beat())
                    if len(tasks) >= slots:
                        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=1)
                        continue
                    messages = await self._next(consumer, slots - len(tasks), stopping)
                except AutomateError as error:
                    logger.warning("executor %r: %s", self.queue, error.message)
                    consumer = None if not self._ready else consumer
                    await _either(stopping, 0.5)
                    continue
                for message in messages:
                    one = asyncio.create_task(self._one(message, perform, name))
                    tasks.add(one)
                    one.add_done_callback(tasks.discard)
            while tasks:
                await asyncio.wait(tasks)
        finally:
            for each in tasks:
                each.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=2)
            if beating is not None:
                beating.cancel()
            with suppress(Exception):
                await consumer.unsubscribe()

    async def _begin_serving(self) -> Any:
        js = await self._jetstream()
        with reaching(self._connection):
            client = await self._connection.client()
            await client.subscribe(self._subject("control", "*"), cb=self._steer)
            return await js.pull_subscribe_bind("remotes", stream=self._stream("tasks"))

    async def _next(self, consumer: Any, most: int, stopping: asyncio.Event) -> list[Msg]:
        fetching = asyncio.ensure_future(fetched(consumer, min(most, 100)))
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait([fetching, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not fetching.done():
                # What comes now would be acknowledged by nobody: it is waited for.
                await asyncio.wait([fetching], timeout=1.5)
            if not fetching.done():
                return []
            with reaching(self._connection):
                return fetching.result()
        finally:
            stopped.cancel()
            fetching.cancel()

    async def _beat(self) -> None:
        """Say of each call that runs that it does."""
        while True:
            await asyncio.sleep(self._ack_seconds / 3)
            for each in list(self._running.values()):
                with suppress(Exception):
                    await each.message.in_progress()

    async def _steer(self, message: Msg) -> None:
        running = self._running.get(message.subject.rpartition(".")[2])
        if running is None:
            return
        try:
            about = json.loads(message.data)
        except ValueError:
            return
        if about.get("cancel") and running.call is not None:
            running.cancelled = True
            running.call.cancel()
        elif isinstance(about.get("attach"), str):
            running.hosts.add(about["attach"])

    async def _one(self, message: Msg, perform: Perform, name: str) -> None:
        """Do one task, or leave it to others."""
        task_id = message.subject.rpartition(".")[2]
        if task_id in self._running:
            # It was thought to be dead, and lives: its outcome is this one's.
            self._running[task_id].message = message
            return
        host = (message.headers or {}).get(_HOST)
        running = self._running[task_id] = _Running(message, {host} if host else set())
        try:
            await self._done(running, task_id, perform)
        except asyncio.CancelledError:
            if running.call is not None:
                await asyncio.shield(self._return(running, task_id, begun=True))
            raise
        except AutomateError as error:
            # Its outcome could not be kept: it comes again, here or elsewhere.
            logger.warning("executor %r: task %s: %s", self.queue, task_id, error.message)
        except Exception:
            logger.exception("executor %r: task %s", self.queue, task_id)
        finally:
            self._running.pop(task_id, None)

    async def _done(self, running: _Running, task_id: str, perform: Perform) -> None:
        message = running.message
        kept = await self._kept(task_id)
        if kept is not None:
            await self._deliver(running, kept)
            return
        try:
            task = RemoteTask.from_text(message.data)
        except PayloadError as error:
            if "format" in error.message:
                await self._decline(running, task_id, str(error))
                return
            bad = RemoteTask(id=task_id, operation="")
            await self._keep(running, TaskOutcome.failed(bad, error))
            return
        again, deaths = await self._history(message, task_id)
        if deaths >= self._most_deaths:
            dead = AutomateError(
                ErrorCodes.ABORTED, f"{deaths} executors died in this call, or lost the broker",
                hint="look for their memory and their logs; it may be what the call does",
            )  # fmt: skip
            await self._keep(running, TaskOutcome.failed(task, dead))
            return

        def heard(news: TaskNews) -> None:
            about = {"id": task_id, "progress": news.progress, "waits": news.waits}
            for each in running.hosts:
                sending.add(one := asyncio.ensure_future(self._tell(each, about)))
                one.add_done_callback(sending.discard)

        sending: set[asyncio.Future[None]] = set()
        running.call = asyncio.ensure_future(perform(task, heard, again))
        try:
            outcome = await running.call
        except asyncio.CancelledError:
            if running.cancelled:
                await message.ack()
                return
            running.call.cancel()
            raise
        if isinstance(outcome, Declined):
            await self._decline(running, task_id, outcome.reason)
        else:
            await self._keep(running, outcome)

    async def _history(self, message: Msg, task_id: str) -> tuple[bool, int]:
        """Return whether a call was begun before, and how many remotes have died in it."""
        before = message.metadata.num_delivered - 1
        if not before:
            return False, 0
        state = await self._state(task_id)
        begun = before - state.get("declined", 0)
        return begun > 0, begun - state.get("returned", 0)

    async def _state(self, task_id: str) -> dict[str, int]:
        data = await self._last("state", task_id, "outcomes")
        found = json.loads(data) if data else {}
        return found if isinstance(found, dict) else {}

    async def _keep(self, running: _Running, outcome: TaskOutcome) -> None:
        """Keep *outcome* before the task is acknowledged; the first one counts."""
        subject, pause = self._subject("outcomes", outcome.task_id), 0.2
        while True:
            try:
                if not await self._publish(subject, outcome.to_text(), _ONCE):
                    outcome = await self._kept(outcome.task_id) or outcome
                break
            except AutomateError as error:
                if error.code is not ErrorCodes.UNAVAILABLE:
                    raise
                # The work is done: it is kept as soon as the broker is back.
                await asyncio.sleep(pause)
                pause = min(5.0, 2 * pause)
        await self._deliver(running, outcome)

    async def _deliver(self, running: _Running, outcome: TaskOutcome) -> None:
        if outcome.durable:
            await self._publish(
                self._subject("deliveries", outcome.task_id), outcome.to_text(),
                {"Nats-Msg-Id": outcome.task_id},
            )  # fmt: skip
        await running.message.ack()
        for each in running.hosts if not outcome.durable else ():
            await self._tell(each, {"id": outcome.task_id, "outcome": outcome.to_text()})

    async def _decline(self, running: _Running, task_id: str, reason: str) -> None:
        for each in running.hosts:
            await self._tell(each, {"id": task_id, "waits": reason})
        await self._return(running, task_id, begun=False)

    async def _return(self, running: _Running, task_id: str, *, begun: bool) -> None:
        """Give a task back: soon if its call had *begun*, later if it can't be made here."""
        with suppress(AutomateError):
            state = await self._state(task_id)
            name = "returned" if begun else "declined"
            number = state[name] = state.get(name, 0) + 1
            await self._publish(self._subject("state", task_id), json.dumps(state))
            delay = None if begun else min(_LONGEST_DECLINE, 0.5 * 2.0 ** min(number, 5))
            with reaching(self._connection):
                await running.message.nak(delay=delay)


async def _either(stopping: asyncio.Event, seconds: float) -> None:
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)
