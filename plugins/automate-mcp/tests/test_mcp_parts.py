"""The small parts: pauses, names, hints, tokens, results."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from automate_mcp.answers import answer, wrapped_schema
from automate_mcp.asgi import BearerApp
from automate_mcp.config import McpConfig
from automate_mcp.restart_pause import RestartPause
from automate_mcp.results import failure_of, output_of
from automate_mcp.settings import Caller, Token, TokenTable
from automate_mcp.tool_server import AllowedTools, ListedTools, ToolServer
from automate_mcp.tools import RemoteTool, capability_name, remote_tools
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp import types
from mcp.types import Tool
from pydantic import TypeAdapter

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.operations.exposure import tool_name
from automate_kernel.operations.schemas.checks import compile_schema
from automate_kernel.operations.spec import NAME_PATTERN
from automate_kernel.workflows.definition.fields import OperationName

CALLABLE: TypeAdapter[str] = TypeAdapter(OperationName)
ROOT = Path(__file__).parents[3]


def test_pauses_double_up_to_a_minute_and_end_with_success() -> None:
    """By the clock that it is given."""
    now = [100.0]
    pause_of = RestartPause(lambda: now[0])
    assert pause_of.remaining == 0
    pauses = []
    for _ in range(12):
        pause_of.failed()
        pauses.append(pause_of.remaining)
    assert pauses[:4] == [0.25, 0.5, 1.0, 2.0]
    assert pauses[-1] == 60.0
    now[0] += 45
    assert pause_of.remaining == 15.0
    pause_of.worked()
    assert pause_of.remaining == 0


@pytest.mark.parametrize(
    ("name", "mapped"),
    [
        ("read_file", "read_file"),
        ("files.read-all", "files.read-all"),
        ("repos/issues/create", "repos.issues.create_"),
        ("2fa", "_2fa_"),
        ("ü//", "__"),
        ("..", "tool_"),
    ],
)
def test_names_of_tools_stay_readable(name: str, mapped: str) -> None:
    """A name that no workflow could write ends with a digest, so that no two become one."""
    found = capability_name(name)
    assert found == mapped if found == name else found.startswith(mapped)
    assert len(found) - len(mapped) == (0 if found == name else 6)


TOOL_NAMES = st.text(max_size=300) | st.text("aZ09_-./ü", max_size=300)


@given(TOOL_NAMES)
def test_every_tool_has_a_name_that_a_workflow_can_write(name: str) -> None:
    """Always the same one, and often its own."""
    mapped = capability_name(name)
    assert CALLABLE.validate_python(f"key.{mapped}") == f"key.{mapped}" and len(mapped) <= 120
    assert capability_name(name) == mapped
    assert capability_name(mapped) == mapped


@given(st.lists(st.from_regex(NAME_PATTERN, fullmatch=True), unique=True, max_size=20))
def test_every_operation_has_a_name_that_a_client_can_take(names: list[str]) -> None:
    """And no two the same."""
    tools: dict[str, str] = {}
    for name in names:
        tools[tool_name(name, tools)] = name
    assert len(tools) == len(names)
    assert all(
        len(each) <= 64 and each.replace("_", "").replace("-", "x").isalnum() or set(each) == {"_"}
        for each in tools
    )


SCHEMAS = st.sampled_from([
    {"type": "object", "properties": {"a": {"type": "integer"}}},
    {"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": {"type": "integer"}}},
    {"type": "string"},
    {},
])  # fmt: skip


@settings(deadline=None)  # the first one imports what checks schemas
@given(SCHEMAS, st.sampled_from([{"a": 1}, [1, 2], "x"]))
def test_what_fits_a_schema_fits_what_clients_are_told(schema: dict, output: object) -> None:
    """Whether it is an object or not."""
    if compile_schema(schema, "s")(output):
        return
    told = wrapped_schema(schema)
    assert told is not None
    structured = answer(output, most=1_000).structured_content
    if not (schema == {} and isinstance(output, dict)):
        assert compile_schema(told, "s")(structured) == []


def test_a_schema_whose_references_would_lead_nowhere_is_left_out() -> None:
    """No client can refuse an output by it."""
    assert wrapped_schema({"type": "array", "items": {"$ref": "#/definitions/A"}}) is None
    assert wrapped_schema(None) is None


def test_tokens_are_kept_as_hashes_and_compared_whole() -> None:
    """A secret by its name, or a hash."""
    secret = "a-token-of-at-least-20-characters"
    hashed = hashlib.sha256(b"another").hexdigest()
    table = TokenTable(
        [
            Token(name="a", token="$secret:A", scopes=["*"]),
            Token(name="b", token=f"sha256:{hashed}", scopes=["executions:*"], tenant_id="t"),
        ],
        {"A": secret}.__getitem__,
    )
    assert secret not in str(vars(table))
    assert table.caller(secret).name == "a"
    caller = table.caller("another")
    assert caller.tenant_id == "t"
    assert caller.allows("executions:write") and not caller.allows("operations:call")
    assert table.caller(secret[:-1]) is table.caller("") is table.caller("\udc80") is None
    with pytest.raises(ConfigError, match="the same name"):
        TokenTable([Token(name="a", token="$secret:A", scopes=[])] * 2, {"A": secret}.__getitem__)


@pytest.mark.parametrize("typed", [True, False])
def test_a_result_that_no_database_takes_is_made_readable(typed: bool) -> None:
    """The tool was called: its step failed as the result was stored, and what it said was lost."""
    result = types.CallToolResult(
        content=[types.TextContent(type="text", text="a\0b")],
        structured_content={"half": "\ud83d", "list": ["\0"]},
    )
    output = output_of(result, typed=typed, most=1_000)
    structured = {"half": "\ufffd", "list": ["\ufffd"]}
    if typed:
        assert output == structured
    else:
        assert (output["text"], output["structured"]) == ("a\ufffdb", structured)
        assert output["content"][0]["text"] == "a\ufffdb"


@pytest.mark.parametrize(
    "told", [{"code": "NO_SUCH"}, {"code": 3}, "text", {"code": ["X"]}, None], ids=repr
)
def test_a_strangers_error_gives_no_code(told: object) -> None:
    """Only what our own servers say is taken over."""
    result = types.CallToolResult(
        content=[types.TextContent(type="text", text="x" * 10_000)],
        structured_content={"error": told},
        is_error=True,
    )
    error = failure_of(result, "t")
    assert (error.code, error.retryable) == (ErrorCodes.FAILED_PRECONDITION, False)
    assert len(error.message) < 2_100


def test_the_sdk_is_not_imported_before_it_is_needed() -> None:
    """A worker that calls no tool doesn't pay for it."""
    code = (
        "import sys; from automate_kernel import Kernel; import automate_mcp;"
        "k = Kernel(discover=False, config={'m': {'command': 'x', 'tools': []}});"
        "k.register(automate_mcp.McpProvider, key='m'); k.provider('m'); k.worker; k.close();"
        "print('mcp' in sys.modules, 'httpx2' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


def test_the_readme_runs(tmp_path: Path) -> None:
    """Each block does what the page says."""
    runner = ROOT / "tests" / "acceptance" / "docs_runner.py"
    readme = Path(__file__).parents[1] / "README.md"
    ran = subprocess.run(
        [sys.executable, runner, readme], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]


def test_two_tenants_callers_of_one_name_are_two() -> None:
    """The SDK lets only who began a session go on with it; it compares what is given here."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["user"].access_token.client_id)

    callers = {"a": Caller("bot", "acme"), "b": Caller("bot", "other"), "c": Caller("bot")}
    for token in callers:
        headers = [(b"authorization", f"Bearer {token}".encode())]
        scope = {"type": "http", "headers": headers}
        asyncio.run(BearerApp(app, callers.get)(scope, None, None))
    assert len(set(seen)) == 3


def test_a_servers_schema_keeps_the_patterns_that_mean_the_same_here() -> None:
    """Others are for the server to check. They are no reason to refuse what it takes."""
    (tool,) = offered(
        {
            "type": "object",
            "properties": {
                "day": {"pattern": r"^\d{4}-\d{2}$"},
                "name": {"pattern": "^(?=a)"},
                "kind": {"oneOf": [{"pattern": r"\Aa"}, {"pattern": r"\Ab"}]},
            },
        }
    )
    spec = tool.spec
    assert spec.json_schema()["properties"]["day"] == {"pattern": r"^\d{4}-\d{2}$"}
    assert spec.json_schema()["properties"]["name"] == {}
    assert spec.validate({"day": "2026-11", "name": "b", "kind": "b"})
    with pytest.raises(AutomateError, match="day: does not satisfy pattern"):
        spec.validate({"day": "November"})


@pytest.mark.timeout(60)
def test_a_servers_patterns_cost_only_so_much_together() -> None:
    """The rest of them is left to the server. Each alone would be fine."""
    patterns = [rf"^\w{{200}}{number}$" for number in range(200)]
    tools = offered(*({"properties": {"x": {"pattern": each}}} for each in patterns))
    kept = [tool for tool in tools if tool.spec.json_schema()["properties"]["x"]]
    assert len(tools) == 200 and len(kept) == 4


def offered(*schemas: dict[str, Any]) -> list[RemoteTool]:
    tools = [Tool(name=f"act{n}", input_schema=schema) for n, schema in enumerate(schemas)]
    config = McpConfig(command="x", tools=["*"])
    return list(remote_tools(tools, config, print).values())


CIRCLE = {"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"anyOf": [{"$ref": "#/$defs/A"}]}}}


@pytest.mark.parametrize(
    ("schema", "used"),
    [
        ({"properties": {"x": {"$ref": "#/nowhere"}}}, False),
        ({"properties": {"x": {"$ref": "https://example.com/x.json"}}}, False),
        ({"properties": {"x": {"$ref": "#/$defs/A"}}, **CIRCLE}, False),
        ({"properties": {"x": {"$ref": "#/properties/x"}}}, False),
        # A tree has a circle too, and each level of a value is one step further.
        (
            {"properties": {"x": {"$ref": "#"}, "y": {"type": "array", "items": {"$ref": "#"}}}},
            True,
        ),
        ({"properties": {"x": {"$ref": "#/$defs/a~1b%25"}}, "$defs": {"a/b%": {}}}, True),
        ({"properties": {"x": {"$ref": "#/allOf/0"}}, "allOf": [{"minProperties": 0}]}, True),
        ({"properties": {"$ref": {"type": "string"}, "enum": {"const": {"$ref": 1}}}}, True),
        ({"properties": {"x": {"$ref": "#a"}}, "$defs": {"A": {"$anchor": "a"}}}, True),
    ],
)
def test_a_schema_whose_references_lead_nowhere_is_left_to_the_server(
    schema: dict[str, Any], used: bool
) -> None:
    """Else no call whose input gets there could be made."""
    [tool] = offered({"type": "object", **schema})
    assert ("properties" in tool.spec.json_schema()) is used
    assert tool.spec.validate({"x": {"x": {}}}) == {"x": {"x": {}}}


def test_the_tools_of_a_list_are_made_beside_the_event_loop() -> None:
    """Of thousands it takes seconds."""
    asked = ListedTools([Tool(name="act", input_schema={"type": "object"})])

    class Listing:
        key = "far"

        async def use(self, work: Any) -> ListedTools:
            return asked

    class Watched(ToolServer):
        def allowed_of(self, listed: ListedTools) -> AllowedTools:
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            return super().allowed_of(listed)

    config, logger = McpConfig(command="x", tools=["*"]), logging.getLogger("far")
    connection: Any = Listing()
    server = Watched(config, logger, lambda _: connection)
    assert list(asyncio.run(server.allowed()).by_name) == ["act"]


def test_a_tool_that_is_listed_twice_is_there_once() -> None:
    """The pages of a list that changes may overlap."""
    tool = Tool(name="act", input_schema={"type": "object"})
    found = remote_tools([tool, tool], McpConfig(command="x", tools=["*"]), print)
    assert list(found) == ["act"]
