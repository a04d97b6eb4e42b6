"""Operations as tools, called by the official client."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import anyio
import pytest
from automate_mcp.server import IDEMPOTENCY_KEY, mcp_server
from automate_mcp.settings import Caller, ServeSettings
from mcp_support import SECRET, Shop, run, until
from mcp import Client, MCPError
from pydantic import Field, SecretStr

from automate_kernel import AutomateError, Call, Kernel
from automate_kernel.base.errors import ConfigError, ErrorCodes
from automate_kernel.secrets.logs import get_logger

EVERYTHING = Caller("claude", None, frozenset({"*"}))


def server(kernel: Kernel, caller: Caller = EVERYTHING, **settings: Any) -> Any:
    settings.setdefault("operations", ["shop.*", "shop.refund"])
    return mcp_server(kernel, ServeSettings(**settings), lambda ctx: caller)


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> str:
    """Both protocols: the newer one without sessions, and the older one."""
    return request.param


def call(
    kernel: Kernel, tool: str, arguments: dict[str, Any], mode: str = "auto", **more: Any
) -> Any:
    meta = more.pop("meta", None)

    async def ask() -> Any:
        async with Client(server(kernel, **more), mode=mode) as client:
            try:
                return await client.call_tool(tool, arguments, meta=meta)
            except MCPError as error:
                return error  # raised here it would be one of a group

    result = run(ask())
    if isinstance(result, MCPError):
        raise result
    return result


def tools_of(kernel: Kernel, caller: Caller = EVERYTHING, **settings: Any) -> dict[str, Any]:
    async def ask() -> Any:
        async with Client(server(kernel, caller, **settings)) as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    return run(ask())


def test_nothing_is_offered_by_default(kernel: Kernel, shop: Shop) -> None:
    """Each operation and workflow has to be named."""
    tools = tools_of(kernel, operations=[])
    assert all(name.startswith(("execution_", "approv", "reject")) for name in tools)
    with pytest.raises(MCPError, match="there is no tool"):
        call(kernel, "shop_find", {"number": 1}, operations=[])


def test_a_tool_has_the_schemas_and_hints_of_its_spec(kernel: Kernel, shop: Shop) -> None:
    """Names are those that all clients take."""
    tools = tools_of(kernel)
    find = tools["shop_find"]
    assert find.title == "shop.find"
    assert find.description == "Find an order."
    assert find.input_schema["properties"]["number"] == {"type": "integer", "title": "Number"}
    assert find.output_schema["type"] == "object"
    assert find.annotations.read_only_hint and find.annotations.idempotent_hint
    assert not find.annotations.destructive_hint
    assert tools["shop_refund"].annotations.destructive_hint
    assert "approve" in tools["shop_refund"].description
    assert tools["shop_big"].output_schema["properties"]["result"]["type"] == "string"


def test_a_client_gets_no_pattern_that_it_reads_otherwise(kernel: Kernel) -> None:
    """It may not even compile it, and then the tool can't be used there."""

    output = {"type": "string", "pattern": r"(?i)^a\z"}

    @kernel.action("shop.note", output_schema=output)
    def note(
        day: Annotated[str, Field(pattern=r"^\d{4}$")],
        text: Annotated[str, Field(pattern="(?i)^a")],
    ) -> str:
        return text

    tool = tools_of(kernel)["shop_note"]
    assert tool.input_schema["properties"]["day"]["pattern"] == r"^\d{4}$"
    assert "pattern" not in tool.input_schema["properties"]["text"]
    assert "pattern" not in tool.output_schema["properties"]["result"]
    assert call(kernel, "shop_note", {"day": "2026", "text": "A"}).structured_content == {
        "result": "A"
    }
    refused = call(kernel, "shop_note", {"day": "2026", "text": "b"})
    assert refused.is_error and "text" in str(refused.structured_content)


def test_only_named_operations_are_there(kernel: Kernel, shop: Shop) -> None:
    """A pattern doesn't reach a destructive one; and what isn't offered is as what isn't there."""
    tools = tools_of(kernel, operations=["shop.*"])
    assert "shop_find" in tools
    assert "shop_refund" not in tools and "internal_wipe" not in tools
    messages = []
    for name in ("internal_wipe", "shop_refund", "nobody_knows"):
        with pytest.raises(MCPError) as caught:
            call(kernel, name, {}, operations=["shop.*"])
        messages.append((caught.value.code, caught.value.message.replace(name, "…").split(" (")[0]))
    assert len(set(messages)) == 1
    assert shop.refunds == []


def test_a_scope_is_needed(kernel: Kernel, shop: Shop) -> None:
    """Without it a tool is not there, neither in the list nor to be called."""
    reader = Caller("reader", None, frozenset({"executions:read"}))
    assert set(tools_of(kernel, reader)) == {"execution_status", "execution_wait"}
    with pytest.raises(MCPError, match="there is no tool 'shop_find'"):
        call(kernel, "shop_find", {"number": 1}, caller=reader)


def test_a_call_gives_structured_output(kernel: Kernel, shop: Shop, mode: str) -> None:
    """And the same as text, for clients that know no other."""
    result = call(kernel, "shop_find", {"number": 7}, mode)
    assert not result.is_error
    assert result.structured_content == {"number": 7, "total": 40}
    assert json.loads(result.content[0].text) == {"number": 7, "total": 40}


def test_wrong_input_is_told_by_field(kernel: Kernel, shop: Shop) -> None:
    """So a model can correct it."""
    result = call(kernel, "shop_find", {"number": "seven"})
    assert result.is_error
    error = result.structured_content["error"]
    assert (error["code"], error["retryable"]) == ("INVALID_ARGUMENT", False)
    assert error["problems"][0]["field"] == "number"


def test_a_number_that_readers_make_infinite_is_refused(kernel: Kernel, shop: Shop) -> None:
    """Python reads ``1e400`` as such a one, and whole numbers of any length."""
    result = call(kernel, "shop_find", {"number": 10**400})
    problems = result.structured_content["error"]["problems"]
    assert [each["field"] for each in problems] == ["number"]
    assert "larger than the numbers that JSON readers take" in problems[0]["message"]


def test_an_error_has_its_code_and_hint(kernel: Kernel, shop: Shop) -> None:
    """And whether a retry can help, and after how long."""
    result = call(kernel, "shop_fail", {"code": "UNAVAILABLE"})
    error = result.structured_content["error"]
    assert result.is_error
    assert (error["code"], error["hint"], error["retryable"]) == ("UNAVAILABLE", "wait", True)
    assert error["retry_after"] == 3
    assert "it went wrong with" in error["message"] and SECRET not in str(result)


@pytest.mark.parametrize("code", ["BUG", "SETUP"])
def test_a_fault_of_ours_stays_ours(kernel: Kernel, shop: Shop, code: str) -> None:
    """Its words may tell of secrets, and help no client."""
    result = call(kernel, "shop_fail", {"code": code})
    assert result.is_error
    assert SECRET not in str(result) and "NOT_THERE" not in str(result)


def test_a_clients_text_is_no_reference_to_a_secret(kernel: Kernel, shop: Shop) -> None:
    """A model can't have a secret sent anywhere by writing its name."""
    for text in ("$secret:API_KEY", "{{ secrets.API_KEY }}", "$env:HOME"):
        result = call(kernel, "shop_token", {"text": text})
        assert result.structured_content["said"] == text
        assert SECRET not in str(result)


Written = Annotated[str, Field(json_schema_extra={"x-written": True})]


def test_what_an_author_has_to_write_is_offered_to_no_client(kernel: Kernel) -> None:
    """The text of a query is code, and a client's is a model's, most likely."""
    asked = []

    def find(query: Written) -> None:
        asked.append(query)

    def count(table: str, where: Written = "1 = 1") -> str:
        asked.append(where)
        return f"{table}: 4"

    kernel.action("shop.query")(find)
    kernel.action("shop.count")(count)

    async def tools() -> dict[str, Any]:
        async with Client(server(kernel)) as client:
            return {each.name: each.input_schema for each in (await client.list_tools()).tools}

    listed = run(tools())
    assert "shop_query" not in listed
    assert list(listed["shop_count"]["properties"]) == ["table"]
    assert call(kernel, "shop_count", {"table": "orders"}).structured_content == {
        "result": "orders: 4"
    }
    answer = call(kernel, "shop_count", {"table": "orders", "where": "DROP TABLE orders"})
    assert answer.is_error and "'where' is made by a template or a model" in answer.content[0].text
    with pytest.raises(MCPError, match="no tool"):
        call(kernel, "shop_query", {"query": "DROP TABLE orders"})
    assert asked == ["1 = 1"]
    with pytest.raises(ConfigError, match=r"'shop.query' can't be a tool.*'query'"):
        server(kernel, operations=["shop.query"])


def test_progress_is_told_while_a_call_runs(kernel: Kernel, shop: Shop, mode: str) -> None:
    """It grows, as MCP wants it."""
    told: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    async def ask() -> Any:
        async with Client(server(kernel), mode=mode) as client:
            return await client.call_tool("shop_slow", {"seconds": 0.5}, progress_callback=note)

    assert run(ask()).structured_content == {"result": "done"}
    assert len(told) >= 3
    assert [each[0] for each in told] == sorted({each[0] for each in told})
    assert told[-1] == (1.0, 1.0, "step 10")


def test_a_cancelled_call_stops(kernel: Kernel, shop: Shop, mode: str) -> None:
    """The operation is cancelled as the client leaves it."""

    async def ask() -> None:
        async with Client(server(kernel), mode=mode) as client:
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "shop_slow", {"seconds": 60})
                with anyio.fail_after(20):
                    while not shop.begun:
                        await anyio.sleep(0.01)
                group.cancel_scope.cancel()
            with anyio.fail_after(20):
                while not shop.cancelled:
                    await anyio.sleep(0.01)
            # The connection lives on.
            assert not (await client.call_tool("shop_find", {"number": 1})).is_error

    run(ask())


def test_a_call_knows_tenant_and_idempotency_key(kernel: Kernel, shop: Shop) -> None:
    """The tenant is the token's; the key comes in the request."""
    callers = [
        Caller(name, tenant, frozenset({"*"}))
        for name, tenant in [("c", "acme"), ("c", "acme"), ("d", "acme"), ("c", "other")]
    ]
    seen = [
        call(kernel, "shop_keyed", {}, caller=each, meta={IDEMPOTENCY_KEY: "once"})
        for each in callers
    ]
    assert [each.structured_content["tenant"] for each in seen] == [c.tenant_id for c in callers]
    keys = [each.structured_content["key"] for each in seen]
    # Of two clients with the same key none gets what the service did for the other.
    assert keys[0] == keys[1] and len(set(keys)) == 3
    refused = call(kernel, "shop_keyed", {}, meta={IDEMPOTENCY_KEY: ["no text"]})
    assert refused.structured_content["error"]["code"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("fails", [True, False])
def test_a_clients_own_secret_is_in_no_error_output_or_log(
    kernel: Kernel, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    """It is a field that its schema calls a password."""

    @kernel.action(name="login")
    def login(password: SecretStr) -> str:
        """Log in."""
        text = f"logged in with {password.get_secret_value()}"
        get_logger("automate_kernel.login").warning(text)
        if fails:
            raise AutomateError(ErrorCodes.FAILED_PRECONDITION, text, hint=text)
        return text

    result = call(kernel, "login", {"password": "correct-horse"}, operations=["login"])
    assert result.is_error == fails and "logged in with" in str(result)
    assert "correct-horse" not in str(result)
    assert "logged in with" in caplog.text and "correct-horse" not in caplog.text


def test_a_clients_own_secret_is_in_no_progress(kernel: Kernel) -> None:
    """What is told while the call runs is kept in transcripts, too."""

    @kernel.action(name="login")
    async def login(password: SecretStr, call: Call) -> str:
        """Log in."""
        call.progress(0.5, f"logging in with {password.get_secret_value()}")
        return "done"

    told: list[str | None] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async def ask() -> None:
        async with Client(server(kernel, operations=["login"])) as client:
            await client.call_tool("login", {"password": "correct-horse"}, progress_callback=tell)

    run(ask())
    assert told == ["logging in with [secret]"]


def test_sizes_are_bounded(kernel: Kernel, shop: Shop) -> None:
    """Of what comes in and of what goes out."""
    bounds = {"max_input_bytes": 1_000, "max_output_bytes": 1_000}
    huge = call(kernel, "shop_big", {"size": 5_000}, **bounds)
    assert huge.structured_content["error"]["code"] == "RESOURCE_EXHAUSTED"
    assert not huge.structured_content["error"]["retryable"]
    assert len(str(huge)) < 2_000
    refused = call(kernel, "shop_token", {"text": "x" * 2_000}, **bounds)
    assert "takes 2,0" in refused.structured_content["error"]["message"]


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]], ids=["NaN", "infinity"])
def test_an_output_that_json_has_not_becomes_no_null(kernel: Kernel, value: Any) -> None:
    """As the SDK writes it."""
    kernel.action("shop.odd")(lambda: {"total": value})
    result = call(kernel, "shop_odd", {}, operations=["shop.odd"])
    assert result.is_error and result.structured_content["error"]["code"] == "INVALID_ARGUMENT"
    assert "total" in result.structured_content["error"]["message"]


def test_only_so_many_calls_run_at_once(kernel: Kernel, shop: Shop) -> None:
    """Any further one is turned away, and told when to come back."""

    async def ask() -> list[Any]:
        async with Client(server(kernel, most_calls=2)) as client:
            calls = [
                asyncio.ensure_future(client.call_tool("shop_slow", {"seconds": 60}))
                for _ in range(3)
            ]
            ended, running = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            for each in running:
                each.cancel()
            await asyncio.wait(running)
            return [each.result() for each in ended]

    refused = run(ask())
    assert len(refused) == 1 and refused[0].is_error
    assert refused[0].structured_content["error"]["code"] == "RESOURCE_EXHAUSTED"
    assert refused[0].structured_content["error"]["retryable"]


def test_a_call_has_a_time_limit(kernel: Kernel, shop: Shop) -> None:
    """And is cancelled then."""
    # A busy machine may let its time pass before it begins.
    while not shop.begun:
        result = call(kernel, "shop_slow", {"seconds": 30}, timeout_seconds=0.3)
        assert result.structured_content["error"]["code"] == "DEADLINE_EXCEEDED"
    until(lambda: shop.cancelled == shop.begun)


def test_names_that_clients_cant_take_are_made_fit(kernel: Kernel) -> None:
    """Two that would be one stay two."""
    kernel.action("a.b_c")(lambda: 1)
    kernel.action("a.b.c")(lambda: 2)
    kernel.action("a." + "long" * 30)(lambda: 3)
    tools = [name for name in tools_of(kernel, operations=["a.*"]) if name.startswith("a_")]
    assert len(tools) == 3
    assert all(len(name) <= 64 and name.replace("_", "").isalnum() for name in tools)


def test_settings_refuse_what_they_dont_know() -> None:
    """A scope or a plain token, too."""
    with pytest.raises(ValueError, match="there are the scopes"):
        ServeSettings(tokens=[{"name": "a", "token": "$secret:X", "scopes": ["all"]}])
    with pytest.raises(ValueError, match="never the token itself"):
        ServeSettings(tokens=[{"name": "a", "token": "abc", "scopes": ["*"]}])
    with pytest.raises(ValueError, match="extra"):
        ServeSettings(operation=["x"])


def test_an_error_code_survives_both_ways(kernel: Kernel, shop: Shop) -> None:
    """What our server tells, our client raises."""
    from automate_mcp.results import failure_of

    error = failure_of(call(kernel, "shop_fail", {"code": "ABORTED"}), "shop_fail")
    assert isinstance(error, AutomateError)
    assert (error.code, error.hint, error.retry_after) == (ErrorCodes.ABORTED, "wait", 3.0)
