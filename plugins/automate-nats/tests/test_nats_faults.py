"""A broker that is away, full or restarted, messages of strangers, and remotes that die in a call."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import nats
import pytest
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.operations.executors import Heard
from automate_kernel.operations.tasks import RemoteTask, TaskOutcome
from automate_nats import NatsConnection, NatsExecutor
from automate_testing.contracts.step_executor import echo, serving, task, unheard
from nats_support import NatsServer


def executor(server: NatsServer, **options: Any) -> NatsExecutor:
    """Return a connection to the queue of these tests."""
    return NatsExecutor(server.url, **{"queue": "gpu", "ack_seconds": 0.5, **options})


def test_a_broker_that_is_away_is_unavailable(server: NatsServer) -> None:
    """The caller waits and tries again; once it is back the same connection goes on."""

    async def work() -> None:
        host = executor(server)
        server.kill()
        with pytest.raises(AutomateError, match="can't be reached") as raised:
            await host.submit(task(1))
        assert raised.value.code is ErrorCodes.UNAVAILABLE
        server.start()
        one = task(2)
        await host.submit(one)
        async with serving(executor(server), echo):
            outcome = await host.outcome(one.id, unheard)
            assert outcome is not None
        await host.close()

    asyncio.run(work())


def test_a_broker_that_is_killed_in_the_middle_loses_nothing(server: NatsServer) -> None:
    """The outcome is kept as soon as it is back, and the host that waits gets it."""

    async def work() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()
        made: list[str] = []

        async def slow(one: RemoteTask, heard: Heard, again: bool) -> TaskOutcome:
            made.append(one.id)
            begun.set()
            await go_on.wait()
            return await echo(one, heard, again)

        host, one = executor(server, ack_seconds=30), task(1)
        async with serving(executor(server, ack_seconds=30), slow):
            await host.submit(one)
            waiting = asyncio.ensure_future(outcome_of(host, one))
            await begun.wait()
            server.kill()
            go_on.set()
            await asyncio.sleep(0.2)
            server.start()
            outcome = await asyncio.wait_for(waiting, 60)
        assert outcome.output["input"] == 1
        assert made == [one.id]
        await host.close()

    asyncio.run(work())


async def outcome_of(host: NatsExecutor, one: RemoteTask) -> TaskOutcome:
    """Wait for an outcome as the kernel does: again, while the broker is away."""
    while True:
        with suppress(AutomateError):
            found = await host.outcome(one.id, unheard)
            if found is not None:
                return found
        await asyncio.sleep(0.1)


def test_a_full_queue_takes_no_more_and_says_so(server: NatsServer) -> None:
    """Hosts wait for room; a task that lives is attached to all the same."""

    async def work() -> None:
        host = executor(server, most_tasks=2)
        first = task(1)
        await host.submit(first)
        await host.submit(task(2))
        with pytest.raises(AutomateError) as raised:
            await host.submit(task(3))
        assert raised.value.code is ErrorCodes.RESOURCE_EXHAUSTED
        await host.submit(first)
        problems = await host.problems()
        assert any("no executor serves the queue 'gpu'" in each for each in problems)
        assert any("full" in each for each in problems)
        await host.close()

    asyncio.run(work())


def test_a_call_that_kills_each_executor_ends_with_an_error(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not begun for ever, and its host hears how many died."""

    async def gone(*_: Any, **__: Any) -> None:
        """Return nothing."""

    async def work() -> None:
        host, one = executor(server), task(1)
        await host.submit(one)
        for _ in range(2):
            begun = asyncio.Event()

            async def dying(_: RemoteTask, heard: Heard, again: bool, begun: Any = begun) -> Any:
                begun.set()
                await asyncio.sleep(3600)

            remote = executor(server, most_deaths=2)
            serve = remote.serve(dying, slots=1, stopping=asyncio.Event(), name="dying")
            running = asyncio.ensure_future(serve)
            await begun.wait()
            # As SIGKILL would: nothing is given back.
            monkeypatch.setattr(remote, "_return", gone)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        async with serving(executor(server, most_deaths=2), echo):
            outcome = await asyncio.wait_for(host.outcome(one.id, unheard), 30)
        assert outcome is not None
        error = outcome.failure()
        assert error is not None
        assert error.code is ErrorCodes.ABORTED
        assert "2 executors died" in error.message
        await host.close()

    asyncio.run(work())


def test_what_is_no_task_ends_and_blocks_nothing(server: NatsServer) -> None:
    """A stranger's message gets an error as its outcome; what is no news is ignored."""

    async def work() -> None:
        host = executor(server)
        await host.problems()
        client = await nats.connect(server.url)
        for text in (b"\xff\x00", b"[]", b'{"v": 1}', b'{"v": 1, "id": 7, "operation": []}'):
            await client.jetstream().publish(f"automate.tasks.gpu.bad{len(text)}", text)
        await client.publish(host._news, b"no news")  # noqa: SLF001
        await client.publish(host._news, json.dumps({"id": 7}).encode())  # noqa: SLF001
        one = task(1)
        async with serving(executor(server), echo):
            await host.submit(one)
            assert await host.outcome(one.id, unheard) is not None
            bad = await asyncio.wait_for(host.outcome("bad2", unheard), 30)
            assert bad is not None
            assert bad.error is not None
        await client.close()
        await host.close()

    asyncio.run(work())


def test_a_task_of_a_newer_version_is_left_to_newer_executors(server: NatsServer) -> None:
    """It waits, and does not fail."""

    async def work() -> None:
        host = executor(server)
        await host.problems()
        client = await nats.connect(server.url)
        text = b'{"v": 2, "id": "newer", "operation": "x"}'
        await client.jetstream().publish("automate.tasks.gpu.newer", text)
        async with serving(executor(server), echo):
            one = task(1)
            await host.submit(one)
            assert await host.outcome(one.id, unheard) is not None
            assert await host._kept("newer") is None  # noqa: SLF001
        await client.close()
        await host.close()

    asyncio.run(work())


def test_a_task_above_the_limit_is_refused_before_it_is_sent(server: NatsServer) -> None:
    """The kernel puts its input in the output store; a task that comes anyway has an error."""

    async def work() -> None:
        host = executor(server)
        with pytest.raises(AutomateError, match="output_store"):
            await host.submit(task("x" * 2_000_000))
        await host.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"servers": "nats://u:p4ss@127.0.0.1:4222"}, "as user and password"),
        ({"servers": []}, "needs the address"),
        ({"credentials": "/nowhere.creds"}, "names no file"),
        ({"tls": {"cert": "x"}}, "doesn't take 'cert'"),
    ],
)
def test_wrong_options_are_refused_without_showing_them(options: Any, words: str) -> None:
    """A password in an address is neither used nor shown."""
    with pytest.raises(ConfigError, match=words) as raised:
        NatsConnection(**options)
    assert "p4ss" not in str(raised.value)


def test_wrong_credentials_are_said(tmp_path: Any) -> None:
    """The call waits, with the reason."""
    server = NatsServer(tmp_path, "--user", "a", "--pass", "b")
    server.start()

    async def work() -> None:
        with pytest.raises(AutomateError) as raised:
            await executor(server, user="a", password="wr0ng-one").submit(task(1))
        assert raised.value.code is ErrorCodes.UNAVAILABLE
        assert "wr0ng-one" not in str(raised.value)
        right = executor(server, user="a", password="b")
        await right.submit(task(1))
        await right.close()

    try:
        asyncio.run(work())
    finally:
        server.kill()
