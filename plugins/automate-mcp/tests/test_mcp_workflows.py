"""Workflows, approvals and destructive operations as tools."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from automate_mcp.server import IDEMPOTENCY_KEY, mcp_server
from automate_mcp.settings import Caller, ServeSettings
from mcp import Client, MCPError
from mcp_support import SECRET, Shop, run
from pydantic import BaseModel, SecretStr

from automate_kernel import Kernel, WorkflowContext
from automate_sqlalchemy import SqlAlchemyStorage

CLAUDE = Caller("claude", None, frozenset({"*"}))
ANN = Caller("ann", None, frozenset({"*"}), ("managers",))

ORDER = """
name: order
description: Handle an order.
trigger: {type: manual}
steps:
  - id: ok
    approval: {title: "Ship {{ event.payload.order }}?", by: ["role:managers"]}
  - id: paid
    wait_for: {signal: paid}
output: {order: "{{ event.payload.order }}", paid: "{{ steps.paid.output }}"}
"""


class Line(BaseModel):
    article: str
    count: int = 1


@pytest.fixture
def kernel(tmp_path) -> Iterator[Kernel]:
    with make_kernel(tmp_path) as kernel:
        yield kernel


@contextmanager
def make_kernel(tmp_path) -> Iterator[Kernel]:
    storage = SqlAlchemyStorage(sa.create_engine(f"sqlite:///{tmp_path}/db.sqlite3"))
    storage.create_tables()
    with Kernel(storage, discover=False, secrets={"API_KEY": SECRET}) as kernel:
        (tmp_path / "order.yaml").write_text(ORDER)
        kernel.add_workflow(tmp_path / "order.yaml")

        @kernel.workflow
        async def pack(ctx: WorkflowContext, line: Line) -> str:
            """Pack a line."""
            return f"{line.count} x {line.article}"

        yield kernel


SETTINGS: dict[str, Any] = {
    "operations": ["shop.find", "shop.refund"], "workflows": ["*"], "wait_seconds": 2.0,
}  # fmt: skip


class Session:
    """Calls tools for one caller, while a worker may run beside."""

    def __init__(self, kernel: Kernel, caller: Caller = CLAUDE, **settings: Any) -> None:
        chosen = ServeSettings(**{**SETTINGS, **settings})
        self.server = mcp_server(kernel, chosen, lambda ctx: caller)
        self.kernel = kernel

    def call(self, tool: str, *, work: bool = False, meta: Any = None, **arguments: Any) -> Any:
        """Return what a tool answers; its error, if it failed. With *work* a worker runs."""

        async def ask() -> Any:
            async with Client(self.server) as client:
                asked = asyncio.create_task(client.call_tool(tool, arguments, meta=meta))
                while work and not asked.done():
                    await asyncio.to_thread(self.kernel.run_until_idle)
                    await asyncio.sleep(0.02)
                try:
                    return await asked
                except MCPError as error:
                    return error

        result = run(ask())
        if isinstance(result, MCPError):
            raise result
        content = result.structured_content
        return content["error"] if result.is_error else content

    def tools(self) -> dict[str, Any]:
        async def ask() -> Any:
            async with Client(self.server) as client:
                return {tool.name: tool for tool in (await client.list_tools()).tools}

        return run(ask())


def test_a_workflow_is_started_with_a_typed_payload(kernel: Kernel) -> None:
    """The schema is that of the function's parameter."""
    claude = Session(kernel)
    schema = claude.tools()["start_pack"].input_schema
    assert schema["properties"]["payload"]["properties"]["article"]["type"] == "string"
    assert schema["required"] == ["payload"]
    assert claude.call("start_pack", payload={"count": 2})["code"] == "INVALID_ARGUMENT"
    started = claude.call("start_pack", payload={"article": "pen", "count": 2})
    assert (started["status"], started["finished"]) == ("PENDING", False)
    kernel.run_until_idle()
    told = claude.call("execution_status", execution_id=started["execution_id"])
    assert (told["status"], told["output"]) == ("COMPLETED", "2 x pen")


def test_a_start_can_wait_for_the_end(kernel: Kernel) -> None:
    """For some seconds, while a worker runs it."""
    claude, payload = Session(kernel, wait_seconds=30.0), {"article": "pen"}
    told = claude.call("start_pack", work=True, payload=payload, wait_seconds=30)
    assert told["output"] == "1 x pen"
    late = Session(kernel).call("start_pack", payload={"article": "pen"}, wait_seconds=99)
    assert late["code"] == "INVALID_ARGUMENT"


def test_a_second_start_with_the_same_key_is_the_first(kernel: Kernel) -> None:
    """A client that lost the answer asks again. Keys of clients are their own."""
    claude, payload = Session(kernel), {"article": "pen"}
    first = claude.call("start_pack", payload=payload, idempotency_key="k")
    assert claude.call("start_pack", payload=payload, idempotency_key="k") == first
    other = Session(kernel, ANN).call("start_pack", payload=payload, idempotency_key="k")
    assert other["execution_id"] != first["execution_id"]


def test_an_execution_is_approved_and_signalled(kernel: Kernel) -> None:
    """By whom the approval is for, and in the name of the token."""
    claude, ann = Session(kernel, wait_seconds=30.0), Session(kernel, ANN)
    started = claude.call("start_order", payload={"order": 12})
    kernel.run_until_idle()
    told = claude.call("execution_status", execution_id=started["execution_id"])
    assert told["waits_for"] == [{"about": "approval", "step_id": "ok", "name": "Ship 12?"}]

    where = {"execution_id": started["execution_id"], "step_id": "ok"}
    assert claude.call("approvals_list") == {"approvals": []}
    assert claude.call("approve", **where)["code"] == "PERMISSION_DENIED"
    (waiting,) = ann.call("approvals_list")["approvals"]
    assert waiting["title"] == "Ship 12?"
    assert ann.call("approve", comment="go", **where)["approved"]
    kernel.run_until_idle()
    sent = claude.call(
        "execution_signal", execution_id=started["execution_id"], name="paid", payload={"sum": 3}
    )
    assert sent["signal_id"]
    told = claude.call("execution_wait", work=True, execution_id=started["execution_id"])
    assert (told["status"], told["output"]["order"]) == ("COMPLETED", 12)
    assert kernel.executions.get(started["execution_id"]).step("ok").output["by"] == "ann"


def test_executions_of_others_are_not_there(kernel: Kernel) -> None:
    """Another tenant's, and those of workflows that aren't offered."""
    started = Session(kernel).call("start_pack", payload={"article": "pen"})["execution_id"]
    acme = Caller("acme", "acme", frozenset({"*"}))
    hidden = kernel.start("order", {"order": 1})
    for session in (Session(kernel, acme), Session(kernel, workflows=["order"])):
        for tool, more in (
            ("execution_status", {}), ("execution_wait", {}), ("execution_signal", {"name": "x"}),
        ):  # fmt: skip
            told = session.call(tool, execution_id=started, **more)
            assert told["code"] == "NOT_FOUND"
            assert told == session.call(tool, execution_id=started, **more)
    told = Session(kernel, workflows=["pack"]).call("execution_status", execution_id=hidden)
    assert told["code"] == "NOT_FOUND"
    theirs = Session(kernel, acme).call("start_pack", payload={"article": "pen"})["execution_id"]
    assert kernel.executions.get(theirs).tenant_id == "acme"
    told = Session(kernel).call("execution_status", execution_id=theirs)
    assert told["code"] == "NOT_FOUND"


def test_a_destructive_call_waits_for_a_person(kernel: Kernel, shop: Shop) -> None:
    """It is done once, after the approval, and its output comes by the execution."""
    claude, ann = Session(kernel, wait_seconds=0.2), Session(kernel, ANN)
    once = {IDEMPOTENCY_KEY: "k"}
    told = claude.call("shop_refund", work=True, meta=once, amount=40)
    # A busy machine may let its time pass before the worker comes there: the same call again.
    while not told["waits_for"]:
        told = claude.call("shop_refund", work=True, meta=once, amount=40)
    assert not told["finished"]
    assert told["waits_for"][0]["about"] == "approval"
    assert "execution_status" in told["next"]
    assert shop.refunds == []

    (waiting,) = ann.call("approvals_list")["approvals"]
    assert waiting["title"] == "claude wants to call shop.refund"
    assert '"amount": 40' in waiting["description"]
    where = {"execution_id": told["execution_id"], "step_id": waiting["step_id"]}
    ann.call("approve", **where)
    kernel.run_until_idle()
    assert shop.refunds == [40]
    told = claude.call("execution_status", execution_id=told["execution_id"])
    assert (told["status"], told["output"]) == ("COMPLETED", {"refunded": 40})


def test_a_destructive_call_that_is_approved_in_time_gives_its_output(kernel, shop) -> None:
    """The client waits a while, and need not ask again."""

    def approve_soon() -> None:
        waiting = kernel.approvals.pending().approvals
        for each in waiting:
            kernel.approvals.approve(each.execution_id, each.step_id, by="boss")

    claude = Session(kernel, wait_seconds=10)
    real = kernel.run_until_idle
    kernel.run_until_idle = lambda: (real(), approve_soon())  # type: ignore[method-assign]
    assert claude.call("shop_refund", work=True, amount=1) == {"refunded": 1}


def test_wrong_input_asks_nobody(kernel: Kernel, shop: Shop) -> None:
    """A person sees only calls that can be made."""
    assert Session(kernel).call("shop_refund", amount="much")["code"] == "INVALID_ARGUMENT"
    assert kernel.executions.find() == []


def test_who_asks_for_a_call_does_not_allow_it(kernel: Kernel, shop: Shop) -> None:
    """A model with all rights can't approve for itself, and can't forge who asked."""
    claude = Session(kernel, wait_seconds=0)
    told = claude.call("shop_refund", amount=40)
    kernel.run_until_idle()
    where = {"execution_id": told["execution_id"], "step_id": "approval"}
    assert claude.call("approvals_list")["approvals"] == []
    assert claude.call("approve", **where)["code"] == "NOT_FOUND"
    assert "start_mcp_call_shop_refund" not in claude.tools()
    kernel.run_until_idle()
    assert shop.refunds == []


def test_a_rejected_call_is_an_error(kernel: Kernel, shop: Shop) -> None:
    """With the comment, and never made."""
    claude, ann = Session(kernel, wait_seconds=0), Session(kernel, ANN)
    told = claude.call("shop_refund", amount=40, meta={IDEMPOTENCY_KEY: "k"})
    kernel.run_until_idle()
    ann.call("reject", comment="no", execution_id=told["execution_id"], step_id="approval")
    kernel.run_until_idle()
    again = claude.call("shop_refund", amount=40, meta={IDEMPOTENCY_KEY: "k"})
    assert (again["code"], again["retryable"]) == ("FAILED_PRECONDITION", False)
    assert shop.refunds == []


def test_approvers_come_from_the_settings(kernel: Kernel, shop: Shop) -> None:
    """Nobody else may decide."""
    claude = Session(kernel, wait_seconds=0, approval={"by": ["role:bosses"], "timeout": "1h"})
    claude.call("shop_refund", amount=40)
    kernel.run_until_idle()
    (waiting,) = kernel.approvals.pending().approvals
    assert waiting.by == ("role:bosses",)
    assert waiting.expires_at is not None
    assert Session(kernel, ANN).call("approvals_list")["approvals"] == []


def test_a_destructive_call_survives_a_restart(tmp_path) -> None:
    """The approval waits in the database, and another process makes the call."""
    with make_kernel(tmp_path) as kernel:
        shop = Shop(kernel)
        told = Session(kernel, wait_seconds=0).call("shop_refund", amount=40)
        kernel.run_until_idle()
        assert shop.refunds == []
    with make_kernel(tmp_path) as kernel:
        shop = Shop(kernel)
        (waiting,) = kernel.approvals.pending().approvals
        kernel.approvals.approve(waiting.execution_id, waiting.step_id, by="ann")
        kernel.run_until_idle()
        assert shop.refunds == [40]
        told = Session(kernel).call("execution_status", execution_id=told["execution_id"])
        assert told["output"] == {"refunded": 40}


def test_text_of_a_client_is_no_template_in_the_approved_call(kernel: Kernel, shop: Shop) -> None:
    """Nor in what the person sees, and it names no secret."""
    said: list[str] = []

    @kernel.action("shop.say", destructive=True)
    def say(text: str) -> str:
        said.append(text)
        return text

    text = "$secret:API_KEY {{ 1 + 1 }} {{ event.payload.client }}"
    claude = Session(kernel, operations=["shop.say"], wait_seconds=0)
    claude.call("shop_say", text=text)
    kernel.run_until_idle()
    (waiting,) = kernel.approvals.pending().approvals
    assert text in str(waiting.description)
    kernel.approvals.approve(waiting.execution_id, waiting.step_id, by="ann")
    kernel.run_until_idle()
    assert said == [text]


def test_a_secret_waits_for_nobody(kernel: Kernel) -> None:
    """What waits for a person is stored, and shown to that person."""
    done: list[str] = []

    @kernel.action("door.open", destructive=True)
    def open_door(password: SecretStr, door: str = "front") -> None:
        done.append(door)

    claude = Session(kernel, operations=["door.open"], wait_seconds=0)
    told = claude.call("door_open", password="a-long-pass-phrase-31")
    assert told["code"] == "FAILED_PRECONDITION"
    assert "a secret in password" in told["message"]
    assert "leave it out" in told["hint"]
    assert list(kernel.executions.find()) == []
    assert done == []


def test_an_id_is_no_secret(kernel: Kernel) -> None:
    """Though it is as random as one: most of what can be destroyed has one."""
    done: list[str] = []

    @kernel.action("order.delete", destructive=True)
    def delete_order(order: str) -> str:
        done.append(order)
        return order

    claude = Session(kernel, operations=["order.delete"], wait_seconds=0)
    claude.call("order_delete", order="550e8400-e29b-41d4-a716-446655440000")
    kernel.run_until_idle()
    (waiting,) = kernel.approvals.pending().approvals
    kernel.approvals.approve(waiting.execution_id, waiting.step_id, by="ann")
    kernel.run_until_idle()
    assert done == ["550e8400-e29b-41d4-a716-446655440000"]


def test_an_execution_is_looked_at_without_its_large_outputs(
    kernel: Kernel, shop: Shop, monkeypatch
) -> None:
    """They are read once, at its end, and not at each look."""
    asked: list[bool] = []
    get = kernel.executions.get

    def counted(execution_id: str, **options: Any) -> Any:
        asked.append(options.get("large_outputs", True))
        return get(execution_id, **options)

    monkeypatch.setattr(kernel.executions, "get", counted)
    # A busy machine may let its time pass with one look.
    while len(asked) < 2:
        asked.clear()
        told = Session(kernel, wait_seconds=0.3).call("shop_refund", amount=40)
        assert not told["finished"]
        assert not any(asked)
