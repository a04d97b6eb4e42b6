"""``automate mcp serve`` as a process, on standard input and output and over HTTP."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_support import recorded, run, until

API_KEY = "sk-live-never-to-be-seen-31415926"
TOKENS = {"CLAUDE": "token-of-claude-" + "c" * 20, "ANN": "token-of-ann-" + "a" * 20}
HASHED = "token-of-acme-" + "h" * 20

APP = """
import asyncio

from automate_kernel import Call


def configure(kernel):
    @kernel.action("shop.find", read_only=True)
    def find(number: int) -> dict:
        print("noise on standard output")
        return {"number": number}

    @kernel.action("shop.pay")
    def pay(note: str) -> dict:
        key = kernel.secrets.get("API_KEY")
        if note == "fail":
            raise ValueError(f"refused for {key}")
        return {"note": note, "with": key, "header": f"Bearer {key}"}

    @kernel.action("shop.refund", destructive=True)
    def refund(amount: int) -> dict:
        with open("refunds", "a") as file:
            file.write(f"{amount}\\n")
        return {"refunded": amount}

    @kernel.action("shop.slow")
    async def slow(call: Call) -> str:
        try:
            for step in range(10_000):
                call.progress(step / 10_000, kernel.secrets.get("API_KEY"))
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            open("cancelled", "w").close()
            raise
        return "done"
"""

SETTINGS = f"""
app = "shop_app:configure"
database = "sqlite:///shop.sqlite3"

[commands.mcp]
operations = ["shop.*", "shop.refund"]
workflows = ["*"]
wait_seconds = 1.0

[commands.mcp.local]
scopes = ["*"]

[[commands.mcp.tokens]]
name = "claude"
token = "$secret:CLAUDE"
scopes = ["operations:call", "workflows:start", "executions:read"]

[[commands.mcp.tokens]]
name = "ann"
token = "$secret:ANN"
scopes = ["approvals:*"]

[[commands.mcp.tokens]]
name = "acme"
token = "sha256:{hashlib.sha256(HASHED.encode()).hexdigest()}"
tenant_id = "acme"
scopes = ["*"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop_app.py").write_text(APP)
    (tmp_path / "automate.toml").write_text(SETTINGS)
    return tmp_path


def environment() -> dict[str, str]:
    secrets = {f"AUTOMATE_SECRET_{name}": value for name, value in TOKENS.items()}
    return {**os.environ, **secrets, "AUTOMATE_SECRET_API_KEY": API_KEY}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "automate_cli", "mcp", "serve", *arguments]


def on_stdio(project: Path, *arguments: str) -> Any:
    program, *rest = command(*arguments)
    log = open(project / "log", "w")  # noqa: SIM115  (the process has it)
    server = StdioServerParameters(command=program, args=rest, cwd=project, env=environment())
    return stdio_client(server, errlog=log)


@pytest.fixture
def http(project: Path) -> Iterator[Callable[..., str]]:
    """Start the server over HTTP, and return its URL."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> str:
        process = subprocess.Popen(
            command("--http", "--port", "0", *arguments), cwd=project, env=environment(),
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stderr is not None
        end = time.monotonic() + 30
        while time.monotonic() < end:
            line = process.stderr.readline()
            if found := re.search(r"MCP at (\S+)", line):
                return found[1]
            assert process.poll() is None, line
        raise AssertionError("it did not start")

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
        for pipe in (process.stdout, process.stderr):
            pipe.close()  # type: ignore[union-attr]


def with_token(url: str, token: str) -> Any:
    client = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30)
    return streamable_http_client(url, http_client=client)


def assert_without_secrets(texts: list[str]) -> None:
    """No value of a secret, whole or in part, and the name of none."""
    whole = "\n".join(texts)
    for value in (API_KEY, API_KEY[:20], *TOKENS.values()):
        assert value not in whole


async def _use_everything(client: Client, transcript: list[str]) -> None:
    """List, call, fail, see progress, cancel, be denied, and wait for an approval."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert {"shop_find", "shop_pay", "shop_refund", "shop_slow"} <= set(tools)
    found = await client.call_tool("shop_find", {"number": 4})
    assert found.structured_content == {"number": 4}
    paid = await client.call_tool("shop_pay", {"note": "$secret:API_KEY"})
    assert paid.structured_content["note"] == "$secret:API_KEY"
    failed = await client.call_tool("shop_pay", {"note": "fail"})
    assert failed.is_error

    told: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append(progress)
        if len(told) == 3:
            enough.cancel()

    with anyio.move_on_after(60.0) as enough:
        await client.call_tool("shop_slow", {}, progress_callback=note)
    assert len(told) >= 3
    try:
        await client.call_tool("internal_wipe", {})
    except MCPError as error:
        transcript.append(str(error))
    else:
        raise AssertionError("it was not denied")
    waiting = await client.call_tool("shop_refund", {"amount": 5})
    state = waiting.structured_content
    assert not state["finished"]
    transcript.append(state["execution_id"])


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_everything_on_standard_input_and_output(project: Path, mode: str) -> None:
    """With a worker beside; and no secret is anywhere in the transcript."""
    transcript: list[str] = []

    async def talk() -> None:
        transport = recorded(on_stdio(project, "--worker"), transcript)
        async with Client(transport, mode=mode) as client:
            await _use_everything(client, transcript)
            until((project / "cancelled").exists)
            execution_id = transcript[-1]
            approved = await client.call_tool(
                "approve", {"execution_id": execution_id, "step_id": "approval"}
            )
            assert approved.structured_content["error"]["code"] == "NOT_FOUND"
            assert not (project / "refunds").exists()
            # A person decides elsewhere, by the host's own ways.
            decided = await anyio.run_process(
                [sys.executable, "-m", "automate_cli", "approvals", "decide",
                 execution_id, "approval", "approve", "--by", "boss"],
                cwd=project, env=environment(), check=False,
            )  # fmt: skip
            assert decided.returncode == 0, decided.stderr
            for _ in range(20):
                ended = await client.call_tool(
                    "execution_wait", {"execution_id": execution_id, "seconds": 1}
                )
                if ended.structured_content["finished"]:
                    break
            assert ended.structured_content["output"] == {"refunded": 5}

    run(talk(), 90)
    assert (project / "refunds").read_text() == "5\n"
    assert len(transcript) > 20
    log = (project / "log").read_text()
    assert "noise on standard output" in log
    assert_without_secrets([*transcript, log])


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_everything_over_http(project: Path, http: Callable[..., str], mode: str) -> None:
    """Each client has the rights of its token."""
    url, transcript = http("--worker"), []

    async def talk() -> None:
        async with Client(
            recorded(with_token(url, TOKENS["CLAUDE"]), transcript), mode=mode
        ) as claude:
            await _use_everything(claude, transcript)
            until((project / "cancelled").exists)
            execution_id = transcript[-1]
        async with Client(recorded(with_token(url, TOKENS["ANN"]), transcript), mode=mode) as ann:
            tools = {tool.name for tool in (await ann.list_tools()).tools}
            assert tools == {"approvals_list", "approve", "reject"}
            await ann.call_tool("approve", {"execution_id": execution_id, "step_id": "approval"})
        async with Client(with_token(url, HASHED), mode=mode) as acme:
            hidden = await acme.call_tool("execution_status", {"execution_id": execution_id})
            assert hidden.structured_content["error"]["code"] == "NOT_FOUND"

    run(talk(), 90)
    refunds = project / "refunds"
    until(lambda: refunds.exists() and refunds.read_text() != "")
    assert refunds.read_text() == "5\n"
    assert_without_secrets(transcript)


def test_requests_without_a_right_token_host_or_origin_are_refused(http) -> None:
    """A page in a browser on this machine can't reach it, whatever name leads here."""
    url = http()
    right = {
        "Authorization": f"Bearer {TOKENS['CLAUDE']}",
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
    }
    body = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {},
                   "clientInfo": {"name": "t", "version": "1"}},
    }  # fmt: skip

    def ask(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with httpx2.Client(trust_env=False) as client:
            return client.post(url, json=body, headers={**right, **named}).status_code

    assert ask() == 200
    assert ask(Authorization="") == 401
    assert ask(Authorization="Bearer wrong") == 401
    assert ask(Authorization=f"Basic {TOKENS['CLAUDE']}") == 401
    assert ask(Host="evil.example") == 421
    assert ask(Origin="https://evil.example") == 403
    assert ask(Origin="http://localhost:3000") == 200


def test_a_session_belongs_to_who_began_it(http) -> None:
    """Its id in another's hands is worth nothing."""
    url = http()
    headers = {"Accept": "application/json, text/event-stream"}
    begin = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {},
                   "clientInfo": {"name": "t", "version": "1"}},
    }  # fmt: skip
    ask = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    with httpx2.Client(trust_env=False, headers=headers) as client:
        mine = {"Authorization": f"Bearer {TOKENS['CLAUDE']}"}
        session = client.post(url, json=begin, headers=mine).headers["mcp-session-id"]
        theirs = {"Authorization": f"Bearer {HASHED}", "mcp-session-id": session}
        assert client.post(url, json=ask, headers=theirs).status_code in (403, 404)
        mine["mcp-session-id"] = session
        assert client.post(url, json=ask, headers=mine).status_code == 200


@pytest.mark.parametrize(
    ("settings", "arguments", "says"),
    [
        ("operations = 1", (), "operations"),
        ("operation = ['shop.price']", (), "is unknown (did you mean 'operations'?)"),
        ("", ("--http",), "no tokens"),
        ('[[commands.mcp.tokens]]\nname = "a"\ntoken = "$secret:SHORT"\nscopes = ["*"]',
         ("--http",), "less than 20 characters"),
        ('[[commands.mcp.tokens]]\nname = "a"\ntoken = "$secret:CLAUDE"\nscopes = ["*"]',
         ("--http", "--host", "0.0.0.0"), "no host is allowed"),
    ],
    ids=["wrong", "misspelt", "no token", "short token", "open"],
)  # fmt: skip
def test_what_can_t_be_safe_does_not_start(project, settings, arguments, says) -> None:
    """With a line on what to do."""
    (project / "automate.toml").write_text(
        'app = "shop_app:configure"\ndatabase = "sqlite:///s.sqlite3"\n[commands.mcp]\n' + settings
    )
    ended = subprocess.run(
        command(*arguments), cwd=project, env={**environment(), "AUTOMATE_SECRET_SHORT": "abc"},
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr and "hint: " in ended.stderr
