"""The current call is known where it is served, and nowhere else."""

from __future__ import annotations

import asyncio
import threading

from automate_kernel.operations.context import (
    Call,
    PluginContext,
    SecretReader,
    calling,
    current_call,
)


def test_there_is_a_call_while_one_is_served() -> None:
    """Calls nest, and the outer one is back when the inner one ends, even by an exception."""
    assert current_call() is None
    with calling(Call("a.b")) as outer:
        try:
            with calling(Call("c.d", attempt=2)):
                assert current_call() == Call("c.d", attempt=2)
                raise ValueError
        except ValueError:
            assert current_call() is outer
    assert current_call() is None


def test_tasks_and_threads_have_their_own() -> None:
    """Calls that run at the same time don't see each other."""
    seen: dict[str, str] = {}

    async def serve(name: str) -> None:
        with calling(Call(name)):
            await asyncio.sleep(0)
            call = current_call()
            seen[name] = call.operation if call else ""

    async def both() -> None:
        await asyncio.gather(serve("a.a"), serve("b.b"))

    asyncio.run(both())
    assert seen == {"a.a": "a.a", "b.b": "b.b"}
    with calling(Call("main.call")):
        found: list[Call | None] = []
        thread = threading.Thread(target=lambda: found.append(current_call()))
        thread.start()
        thread.join()
    assert found == [None]


def test_a_context_shows_no_secrets() -> None:
    """Its repr names the plugin and the tenant, and nothing that the host lent."""

    class Reader:
        def __repr__(self) -> str:
            return "hunter2"

        def get(self, key: str) -> str:
            return "hunter2"

        async def aget(self, key: str) -> str:
            return "hunter2"

    ctx = PluginContext(key="x", secrets=Reader(), settings={"password": "hunter2"}, tenant_id="t")
    assert isinstance(ctx.secrets, SecretReader)
    assert repr(ctx) == "PluginContext(key='x', tenant_id='t')"
