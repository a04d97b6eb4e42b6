"""Ctrl-C: before a command does something, and in the call of an action."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from automate_kernel import AutomateError, Kernel
from automate_cli.interruption import be_interruptible, end_imports_at_once

LOST = """\
import os, signal, weakref
class Held: pass
held = Held()
def gone(_): os.kill(os.getpid(), signal.SIGINT); pause = [None] * 10
watched = weakref.ref(held, gone)
del held
"""
WRAPPED = """\
import os, signal
class Named:
    def __set_name__(self, owner, name): os.kill(os.getpid(), signal.SIGINT); pause = [None] * 10
class Owner:
    one = Named()
"""


@pytest.mark.parametrize("code", [LOST, WRAPPED], ids=["lost", "wrapped"])
def test_an_interruption_while_something_is_imported_ends_the_command(
    tmp_path: Path, code: str
) -> None:
    """It isn't lost in a callback, where the command would go on, and it is no other error."""
    (tmp_path / "typer.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-c", "from automate_cli import main; main()", "plugins", "ls"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_command_that_has_begun_is_interrupted_as_always() -> None:
    """Asyncio and the workers make something of their own of Python's handler alone."""
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        end_imports_at_once()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        be_interruptible()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup leaves it
        end_imports_at_once()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def raising() -> Kernel:
    """Return a kernel with actions that raise what would end a program or an event loop."""
    kernel = Kernel(discover=False)

    @kernel.action("plain.raise")
    def plain(error: str) -> None:
        raise {"interrupt": KeyboardInterrupt, "exit": SystemExit}[error]

    @kernel.action("asynchronous.raise")
    async def asynchronous(error: str) -> None:
        raise {"interrupt": KeyboardInterrupt, "exit": SystemExit}[error]

    return kernel


def on_a_loop(kernel: Kernel, name: str, error: str, timeout: float | None) -> str:
    """Return the error of a call that is awaited beside other work of the loop."""

    async def call() -> str:
        with pytest.raises(AutomateError) as caught:
            await kernel.ainvoke(name, {"error": error}, timeout=timeout)
        return str(caught.value)

    return asyncio.run(call())


@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("name", ["plain.raise", "asynchronous.raise"])
def test_what_an_action_raises_ends_no_loop_of_another_thread(
    raising: Kernel, name: str, timeout: float | None
) -> None:
    """Of a server, say. Nobody has pressed Ctrl-C there."""
    with raising as kernel, ThreadPoolExecutor(1) as threads:
        for error, raised in (("interrupt", "KeyboardInterrupt"), ("exit", "SystemExit")):
            told = threads.submit(on_a_loop, kernel, name, error, timeout).result(60)
            assert told == f"action {name!r} raised {raised}: "


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_an_action_on_a_thread_ends_no_loop_of_the_main_one(
    raising: Kernel, timeout: float | None
) -> None:
    """Its KeyboardInterrupt is handed over, and is none of the program's."""
    with raising as kernel:
        told = on_a_loop(kernel, "plain.raise", "interrupt", timeout)
        assert told == "action 'plain.raise' raised KeyboardInterrupt: "
        for name in ("plain.raise", "asynchronous.raise")[timeout is None :]:
            with pytest.raises(AutomateError, match="raised KeyboardInterrupt"):
                kernel.invoke(name, {"error": "interrupt"}, timeout=timeout)


def test_ctrl_c_in_an_action_that_is_awaited_in_the_main_thread_is_the_programs(
    raising: Kernel,
) -> None:
    """As for anything else that is awaited there; SystemExit is an error of the action."""
    with raising as kernel:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(kernel.ainvoke("asynchronous.raise", {"error": "interrupt"}))
        with pytest.raises(KeyboardInterrupt):
            kernel.invoke("plain.raise", {"error": "interrupt"})
        told = on_a_loop(kernel, "asynchronous.raise", "exit", None)
        assert told == "action 'asynchronous.raise' raised SystemExit: "
