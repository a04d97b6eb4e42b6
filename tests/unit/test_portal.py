"""Coroutines run for code without a loop, and nothing that one of them does harms the others."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest
from machines import no_more_threads
from waiting import PATIENCE, until
from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.portal import Portal


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


async def give(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def fail(error: BaseException) -> None:
    raise error


async def wait_for_ever(begun: threading.Event | None = None) -> None:
    if begun is not None:
        begun.set()
    await asyncio.Event().wait()


def test_results_and_errors_come_back(portal: Portal) -> None:
    """A coroutine's result is returned, and what it raises is raised."""
    assert portal.run(give(3)) == 3
    assert portal.run(give(None), timeout=PATIENCE) is None
    with pytest.raises(KeyError):
        portal.run(fail(KeyError("x")))


def test_all_share_one_loop(portal: Portal) -> None:
    """What belongs to a loop, such as a connection pool, can be shared by all calls."""

    async def loop() -> Any:
        return asyncio.get_running_loop()

    loops = [portal.run(loop())]
    thread = threading.Thread(target=lambda: loops.append(portal.run(loop())))
    thread.start()
    thread.join(PATIENCE)
    assert loops[0] is loops[1]


def test_a_coroutine_that_takes_too_long(portal: Portal) -> None:
    """It is cancelled, and the caller is told so."""
    ended = threading.Event()

    async def slow() -> None:
        try:
            await wait_for_ever()
        finally:
            ended.set()

    with pytest.raises(AutomateError) as caught:
        portal.run(slow(), timeout=0.01)
    assert caught.value.code is ErrorCodes.DEADLINE_EXCEEDED
    assert ended.wait(PATIENCE)


def test_a_timeout_of_its_own_is_its_own(portal: Portal) -> None:
    """A TimeoutError that the coroutine raises is no timeout of the call."""
    with pytest.raises(TimeoutError):
        portal.run(fail(TimeoutError("theirs")), timeout=PATIENCE)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_would_end_the_loop_ends_one_call(portal: Portal, error: BaseException) -> None:
    """SystemExit in one coroutine is raised to its caller; the loop and the others go on."""
    begun = threading.Event()
    go = asyncio.Event()
    results: list[Any] = []

    async def wait() -> str:
        begun.set()
        await go.wait()
        return "done"

    thread = threading.Thread(target=lambda: results.append(portal.run(wait())))
    thread.start()
    assert begun.wait(PATIENCE)
    with pytest.raises(type(error)):
        portal.run(fail(error), timeout=PATIENCE)

    async def let_go() -> None:
        go.set()

    portal.run(let_go(), timeout=PATIENCE)
    thread.join(PATIENCE)
    assert results == ["done"]


def test_a_cancelled_coroutine(portal: Portal) -> None:
    """A cancellation from within is an error to the caller, who is not cancelled."""
    with pytest.raises(CancelledError):
        portal.run(fail(asyncio.CancelledError()), timeout=PATIENCE)
    assert portal.run(give(1)) == 1


def test_it_does_not_wait_for_itself(portal: Portal) -> None:
    """A call from the portal's own loop would never end, and is refused with its remedy."""

    async def inner() -> None:
        portal.run(give(1))

    with pytest.raises(AutomateError, match="ainvoke"):
        portal.run(inner(), timeout=PATIENCE)


def test_closing_ends_what_runs(portal: Portal) -> None:
    """Who waits for a result at the end gets an error; a closed portal opens again when used."""
    begun, errors = threading.Event(), []

    def call() -> None:
        try:
            portal.run(wait_for_ever(begun))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(PATIENCE)
    portal.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert isinstance(errors[0], CancelledError)
    portal.close()
    assert portal.run(give(1)) == 1


def test_closing_closes_the_generators(portal: Portal, caplog: pytest.LogCaptureFixture) -> None:
    """Also those that nobody holds: each has its `finally`, and no task is left in the middle."""
    ended, kept = [], []

    async def rows(name: str) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)  # as to give a connection back does
            ended.append(name)

    async def nested() -> AsyncIterator[int]:
        async for each in rows("nested"):
            yield each

    async def wait_within(name: str, begun: threading.Event) -> None:
        async for _ in rows(name):
            await wait_for_ever(begun)

    async def keep() -> None:
        for each in (rows("kept"), nested()):
            kept.append(each)
            await each.__anext__()

    portal.run(keep())
    begun = threading.Event()
    portal.call_soon(lambda: kept.append(asyncio.ensure_future(wait_within("waiting", begun))))
    assert begun.wait(PATIENCE)
    portal.close()
    kept.clear()
    gc.collect()
    assert sorted(ended) == ["kept", "nested", "waiting"]
    assert [each for each in caplog.records if "destroyed" in each.getMessage()] == []


def test_closing_ends_what_is_begun_at_the_end(
    portal: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    """What a `finally` waits for, or leaves to give something back, ends; no more stays for ever."""
    ended, kept = [], []

    async def last(name: str, *, ends: bool = True) -> None:
        try:
            await (asyncio.sleep(0) if ends else wait_for_ever())
            ended.append(f"{name} ended")
        except asyncio.CancelledError:
            ended.append(f"{name} cancelled")

    def begin(name: str, *, ends: bool = True) -> None:
        kept.append(asyncio.ensure_future(last(name, ends=ends)))

    async def work(begun: threading.Event) -> None:
        try:
            await wait_for_ever(begun)
        finally:
            begin("short")
            begin("long", ends=False)
            await asyncio.gather(last("awaited"))

    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            begin("of rows", ends=False)

    async def keep() -> None:
        kept.append(rows())
        await kept[0].__anext__()

    portal.run(keep())
    begun = threading.Event()
    portal.call_soon(lambda: kept.append(asyncio.ensure_future(work(begun))))
    assert begun.wait(PATIENCE)
    portal.close()
    kept.clear()
    gc.collect()
    assert sorted(ended) == ["awaited ended", "long cancelled", "of rows cancelled", "short ended"]
    assert [each for each in caplog.records if "destroyed" in each.getMessage()] == []


def test_a_call_meets_the_closing(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has begun before the end, which cancels it, or it is another loop's: it never hangs."""
    give_to_loop = runtime.run_coroutine_threadsafe
    closing = threading.Thread(target=portal.close)

    def comes_no_further() -> bool:
        frame = sys._current_frames().get(closing.ident or 0)
        return frame is None or frame.f_code.co_name == "close"

    def late(work: Any, loop: Any) -> Any:
        if not closing.ident and threading.current_thread() is not closing:
            closing.start()
            until(comes_no_further)
        return give_to_loop(work, loop)

    portal.run(give(1))
    monkeypatch.setattr(runtime, "run_coroutine_threadsafe", late)
    with pytest.raises(CancelledError):
        portal.run(wait_for_ever(), PATIENCE)
    closing.join(PATIENCE)
    assert not closing.is_alive()


def test_a_machine_without_threads_has_the_next_call_begin_one(portal: Portal) -> None:
    """Only the call that found none fails; those after it would wait for ever."""
    refused = give(1)
    with no_more_threads("automate-portal"), pytest.raises(RuntimeError, match="thread"):
        portal.run(refused)
    refused.close()
    assert portal.run(give(1), timeout=PATIENCE) == 1
