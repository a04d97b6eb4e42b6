"""Logs as JSON, with the ids of what they are about, and without secrets."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from automate_kernel import ConfigError, Kernel, current_call
from automate_kernel.operations.context import current_item
from automate_kernel.monitoring.logs import (
    ContextFilter,
    JsonFormatter,
    configure_logging,
    context_fields,
)
from defined import define

log = logging.getLogger("shop")


@pytest.fixture
def kernel() -> Kernel:
    return Kernel(discover=False, secrets={"TOKEN": "hunter2-hunter2"})


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where logs go; the root logger is as before afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = before
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def of_shop(stream: io.StringIO) -> list[dict[str, Any]]:
    return [line for line in lines(stream) if line["logger"] == "shop"]


def test_a_record_is_a_line_of_json(stream: io.StringIO) -> None:
    """Time, level, logger, message, extras, and the traceback; line breaks don't break the line."""
    configure_logging(stream=stream)
    log.info("hello %s\nand more", "Ada", extra={"order": 7, "odd": object})
    try:
        raise ValueError("broken\nhere")
    except ValueError:
        log.exception("it failed")
    hello, failed = lines(stream)
    assert hello["time"].endswith("+00:00")
    assert (hello["level"], hello["logger"]) == ("info", "shop")
    assert hello["message"] == "hello Ada\nand more"
    assert (hello["order"], hello["odd"]) == (7, "<class 'object'>")
    assert failed["level"] == "error"
    assert "ValueError: broken\nhere" in failed["exception"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_a_handler_logs_tells_its_item(
    kernel: Kernel, stream: io.StringIO, asynchronous: bool
) -> None:
    """Its id, kind, attempt, worker and tenant, also for ``async def``; outside there is none."""

    def plain(item: Any) -> None:
        assert current_item() is item
        log.info("working")

    async def waits(item: Any) -> None:
        await asyncio.sleep(0)
        plain(item)

    configure_logging(kernel, stream=stream)
    kernel.handler("mail.send")(waits if asynchronous else plain)
    item_id = kernel.outbox.enqueue("mail.send", tenant_id="acme")
    kernel.run_until_idle()
    log.info("over")
    working, over = of_shop(stream)
    assert working.pop("worker_id")
    assert {name: working[name] for name in ("item_id", "kind", "attempt", "tenant_id")} == {
        "item_id": item_id, "kind": "mail.send", "attempt": 1, "tenant_id": "acme",
    }  # fmt: skip
    assert set(over) == {"time", "level", "logger", "message"}
    assert context_fields() == {}


def test_what_a_step_logs_tells_its_execution(kernel: Kernel, stream: io.StringIO) -> None:
    """Its execution, step and attempt, though steps run beside each other on threads."""

    @kernel.action("shop.look")
    def look() -> None:
        call = current_call()
        log.info("looking", extra={"expected": call and call.step_id})
        if call is not None and call.attempt == 1 and call.step_id == "left":
            raise ConnectionError("try again")

    retry = {"attempts": 2, "delay": "1ms"}
    define(
        kernel,
        {"id": "left", "action": "shop.look", "needs": [], "retry": retry},
        {"id": "right", "action": "shop.look", "needs": []},
    )
    configure_logging(kernel, stream=stream)
    execution = kernel.run("w")
    looking = of_shop(stream)
    assert sorted((line["step_id"], line["step_attempt"]) for line in looking) == [
        ("left", 1), ("left", 2), ("right", 1),
    ]  # fmt: skip
    assert all(line["expected"] == line["step_id"] for line in looking)
    assert {line["execution_id"] for line in looking} == {execution.id}
    assert {line["operation"] for line in looking} == {"shop.look"}
    assert {line["kind"] for line in looking} == {"automate.advance"}
    # What the kernel itself says of the failure tells the step as well.
    failed = [line for line in lines(stream) if line["level"] == "warning"]
    assert [line["step_id"] for line in failed] == ["left"]


def test_failed_attempts_are_logged_with_ids(kernel: Kernel, stream: io.StringIO) -> None:
    """What the worker says of a failed item can be found by the item."""

    def breaks(item: Any) -> None:
        raise ValueError("no")

    kernel.handler("k")(breaks)
    item_id = kernel.outbox.enqueue("k", max_attempts=1)
    configure_logging(kernel, stream=stream)
    kernel.run_until_idle()
    (line,) = [line for line in lines(stream) if line["level"] == "error"]
    assert line["item_id"] == item_id


def test_secrets_are_taken_out_everywhere(kernel: Kernel, stream: io.StringIO) -> None:
    """Of the message, extras, context fields and traceback."""

    def leaks(item: Any) -> None:
        value = kernel.secrets.get("TOKEN")
        try:
            raise ValueError(value)
        except ValueError:
            log.exception("the token is %s", value, extra={"deep": {"list": [value]}})

    kernel.handler("leaks")(leaks)
    configure_logging(kernel, stream=stream)
    kernel.outbox.enqueue("leaks", tenant_id="hunter2-hunter2")
    kernel.run_until_idle()
    assert "hunter2" not in stream.getvalue()
    (line,) = of_shop(stream)
    assert line["message"] == "the token is [secret]"
    assert line["tenant_id"] == "[secret]"


def test_what_cant_be_json_is_text(stream: io.StringIO) -> None:
    """No record is lost for its extras."""

    class Bad:
        def __str__(self) -> str:
            raise ValueError

    loop: list[Any] = []
    loop.append(loop)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    for extra in ({"bad": Bad()}, {"loop": loop}, {"keys": {(1, 2): 3}}, {"nan": float("nan")}):
        handler.handle(logging.makeLogRecord({"msg": "told", **extra}))
    assert [line["message"] for line in lines(stream)] == ["told"] * 4
    assert lines(stream)[3]["nan"] == "NaN"


def test_a_format_of_ones_own_can_name_fields(stream: io.StringIO) -> None:
    """With every field there, an ordinary formatter works outside of any work too."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(ContextFilter(complete=True))
    handler.setFormatter(logging.Formatter("[%(item_id)s] %(message)s"))
    handler.handle(logging.makeLogRecord({"msg": "one"}))
    handler.handle(logging.makeLogRecord({"msg": "two", "item_id": "its own"}))
    assert stream.getvalue() == "[] one\n[its own] two\n"


def test_traces_and_logs_know_each_other(stream: io.StringIO) -> None:
    """Where somebody traces, a record tells trace and span."""
    from opentelemetry.sdk.trace import TracerProvider

    configure_logging(stream=stream)
    with TracerProvider().get_tracer("test").start_as_current_span("s") as span:
        log.info("inside")
    (line,) = lines(stream)
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert line["span_id"] == f"{span.get_span_context().span_id:016x}"


def test_an_unknown_format_is_refused(stream: io.StringIO) -> None:
    """Before anything is changed."""
    before = logging.getLogger().handlers[:]
    with pytest.raises(ConfigError, match="xml"):
        configure_logging(format="xml")
    assert logging.getLogger().handlers == before
