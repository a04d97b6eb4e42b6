"""The kernel's own log records hold no secret and no forged line, whatever the host's handlers do."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from workers import working
from automate_kernel import Kernel, signals
from automate_kernel.plugins.connectors import Connector, action
from automate_kernel.operations.context import ConnectorContext
from automate_kernel.base.errors import AutomateError
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.periodic import PeriodicTask, PeriodicRunner
from automate_kernel.plugins.hooks import hookimpl
from automate_kernel.secrets import Redactor
from automate_kernel.monitoring.logs import TextFormatter
from automate_kernel.monitoring.process import guarded_process
from automate_kernel.workflows import Workflow

SECRET = "sk_live_9d41b7c2e0aa4f"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """A host's own handler, which knows nothing of redaction."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(threadName)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(secrets={"KEY": SECRET}, plugins=[Chat], discover=False) as kernel:
        kernel.secrets.get("KEY")
        yield kernel


class Chat(Connector):
    """Says its secret wherever it can."""

    key = "chat"

    @action
    async def slow(self) -> None:
        """Takes too long, and fails when it is cancelled."""
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise RuntimeError(f"cancelled with {SECRET}") from None

    @action
    async def leaving(self) -> None:
        """Leaves a task that fails behind."""

        async def fail() -> None:
            raise RuntimeError(f"left with {SECRET}")

        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()

    def close(self) -> None:
        raise RuntimeError(f"{SECRET} is still in use")


def told(log: io.StringIO) -> str:
    text = log.getvalue()
    assert SECRET not in text
    return text


def test_a_plugin_that_fails_to_close(log: io.StringIO, kernel: Kernel) -> None:
    """Its error, with the traceback."""
    kernel.connector("chat")
    kernel.close()
    assert "RuntimeError: [secret] is still in use" in told(log)


def test_receivers_hooks_and_periodic_tasks_that_fail(log: io.StringIO, kernel: Kernel) -> None:
    """Each of them is logged by the kernel, since nobody else hears of it."""

    def receiver(sender: Any, event: Any) -> None:
        raise ValueError(f"received {SECRET}")

    async def areceiver(sender: Any, event: Any) -> None:
        raise ValueError(f"awaited {SECRET}")

    class Hooks:
        @hookimpl
        def automate_before_enqueue(self, items: Any) -> None:
            raise ValueError(f"hooked {SECRET}")

    kernel.register(Hooks(), "hook", key="hooks")
    kernel.action("app.say")(lambda: "said")
    step = {"id": "say", "action": "app.say"}
    trigger = {"type": "event", "event": "x"}
    kernel.add_workflow(Workflow.from_dict({"name": "w", "trigger": trigger, "steps": [step]}))
    with (
        signals.event_received.connected_to(receiver),
        signals.event_received.connected_to(areceiver),
    ):
        kernel.emit("x")
        kernel.run_until_idle()

    def task() -> None:
        stopping.set()
        raise ValueError(f"repeated {SECRET}")

    stopping = threading.Event()
    PeriodicRunner([PeriodicTask("c", 1.0, task, at_once=True)], stopping).run()
    text = told(log)
    for word in ("received", "awaited", "hooked", "repeated"):
        assert f"ValueError: {word} [secret]" in text


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_action_that_fails_after_its_time(
    log: io.StringIO, kernel: Kernel, asynchronous: bool
) -> None:
    """Nobody asks any more for what it raised, and asyncio prints what nobody asks for."""
    with pytest.raises(AutomateError):
        if asynchronous:
            asyncio.run(kernel.ainvoke("chat.slow", timeout=0.3))
        else:
            kernel.invoke("chat.slow", timeout=0.3)
    kernel.close()
    gc.collect()
    assert "never retrieved" not in told(log)


@pytest.mark.parametrize("where", ["portal", "worker", "inline"])
def test_a_task_that_a_plugin_left_behind(log: io.StringIO, kernel: Kernel, where: str) -> None:
    """It is told of, by the kernel, in asyncio's words."""
    left = kernel.connector("chat").leaving

    async def handler(item: Any) -> None:
        await left()

    kernel.handler("leave")(handler)
    if where == "portal":
        kernel.invoke("chat.leaving")
    else:
        kernel.outbox.enqueue("leave")
        if where == "inline":
            kernel.run_until_idle()
        else:
            with working(kernel):
                until(lambda: kernel.outbox.stats().total("COMPLETED") == 1)
    text = told(log)
    assert "Task exception was never retrieved" in text
    assert "RuntimeError: left with [secret]" in text


def test_a_plugins_logger_and_its_children(log: io.StringIO, kernel: Kernel) -> None:
    """Also the logger of a plugin that was made without a kernel."""
    redactor = Redactor([SECRET])
    for logger in (kernel.connector("chat").ctx.logger, ConnectorContext(key="x").logger):
        logger.error("said %s", SECRET)
        logger.getChild("http").getChild("pool").error("sent %s", SECRET)
    text = told(log)
    assert text.count("said [secret]") == text.count("sent [secret]") == 2
    assert "ERROR automate.plugins.chat.http.pool " in text
    assert redactor.redact(SECRET) == "[secret]"


def test_names_of_loggers_and_threads(log: io.StringIO) -> None:
    """A thread for each customer, named by the customer's key, say."""
    redactor = Redactor([SECRET])
    logger = get_logger(f"automate_kernel.test.{SECRET}")
    thread = threading.Thread(target=lambda: logger.error("hello"), name=f"for {SECRET}")
    thread.start()
    thread.join()
    assert "ERROR automate_kernel.test.[secret] for [secret] hello" in told(log)
    assert redactor.redact(SECRET) == "[secret]"


@pytest.mark.parametrize("control", ["\n", "\r", "\x1b[2K", "\x85", "\u2028", "\x00", "\u202e"])
def test_no_line_can_be_forged(log: io.StringIO, control: str) -> None:
    """In the message and its arguments; a reader sees what was sent, escaped."""
    get_logger("automate_kernel.test").error("refused: %s", f"/x{control}INFO all is well")
    lines = log.getvalue().splitlines()
    assert len(lines) == 1
    assert control not in lines[0]
    assert "refused: /x\\" in lines[0]


def test_half_a_character_fits_into_a_file(log: io.StringIO) -> None:
    """No file takes it: the record was lost, and Python printed an error of logging itself."""
    logger = get_logger("automate_kernel.test")
    try:
        raise ValueError("half of \ud83d")
    except ValueError as error:
        logger.exception("failed: %s", error)
    written = log.getvalue().encode()
    assert b"failed: half of \\ud83d" in written
    assert b"ValueError: half of \\ud83d" in written


def test_a_traceback_has_no_line_that_looks_like_a_record(log: io.StringIO) -> None:
    """The text of an error may come from anybody."""
    try:
        raise ValueError("no\nERROR root MainThread forged\r")
    except ValueError:
        get_logger("automate_kernel.test").exception("failed")
    first, *rest = log.getvalue().splitlines()
    assert first.endswith("failed")
    assert any("forged\\r" in line for line in rest)
    assert all(line.startswith("  ") for line in rest)


def test_the_text_format_escapes_what_others_log() -> None:
    """A library that logs a path, say."""
    record = logging.makeLogRecord({"msg": "GET %s", "args": ("/\nERROR \x1b[31mforged",)})
    assert TextFormatter().format(record) == "GET /\n  ERROR \\x1b[31mforged"


def test_data_under_telling_names_and_credentials_in_text(log: io.StringIO) -> None:
    """Though nobody ever resolved them."""
    logger = get_logger("automate_kernel.test")
    logger.error("sent %s", {"user": "me", "password": "p4ss", "api_key": "k3y", "ok": True})
    logger.error("%(user)s %(authorization)s", {"user": "me", "authorization": "a9z"})
    logger.error("to postgresql://me:p/4@s#s@db/x with Authorization: Bearer abc12345.z")
    logger.error("GET /?token=t0k3n&x=1", extra={"client_secret": "s3cr3t"})
    text = log.getvalue()
    for value in ("p4ss", "k3y", "a9z", "p/4", "s#s", "abc12345", "t0k3n", "s3cr3t"):
        assert value not in text
    assert "'user': 'me'" in text
    assert "@db/x" in text
    assert "'ok': True" in text


def test_what_a_worker_process_prints_unasked(log: io.StringIO, capfd: Any) -> None:
    """Warnings, threads that die, errors in finalizers, errors that end it, others' records."""
    redactor = Redactor([SECRET])

    class Finalized:
        def __del__(self) -> None:
            raise ValueError(f"finalized {SECRET}")

    def die() -> None:
        raise ValueError(f"died {SECRET}")

    before = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning
    with guarded_process(), warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn(f"warned {SECRET}", stacklevel=1)
        thread = threading.Thread(target=die)
        thread.start()
        thread.join()
        Finalized()
        gc.collect()
        logging.getLogger("somebody.else").error("else %s", SECRET)
        try:
            die()
        except ValueError as error:
            sys.excepthook(ValueError, error, error.__traceback__)
    assert before == (
        sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning
    )  # fmt: skip
    text = told(log)
    for word in ("warned", "died", "finalized", "else"):
        assert f"{word} [secret]" in text
    errors = capfd.readouterr().err
    assert SECRET not in errors
    assert "ValueError: died [secret]" in errors
    assert redactor.redact(SECRET) == "[secret]"


STARTER = f"""
from automate_kernel.worker.supervisor import Supervisor
from automate_kernel import Kernel

def fail():
    kernel = Kernel(secrets={{"KEY": "{SECRET}"}}, discover=False)
    raise RuntimeError(f"made with {{kernel.secrets.get('KEY')}}")

if __name__ == "__main__":
    supervisor = Supervisor(1, fail, again_seconds=60)
    look = supervisor._look_after

    def until_it_ended():
        found = look()
        if supervisor.troubles:
            supervisor.stop()
        return found

    supervisor._look_after = until_it_ended
    supervisor.run()
"""


def test_a_worker_process_that_cannot_start(tmp_path: Path) -> None:
    """The standard library would print what it raised."""
    script = tmp_path / "starter.py"
    script.write_text(STARTER)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert "RuntimeError: made with [secret]" in done.stderr
    assert SECRET not in done.stdout + done.stderr
