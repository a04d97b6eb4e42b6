"""The tools of a server as capabilities; of one that misbehaves, too."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from functools import partial
import pytest
from automate_mcp import McpProvider
from automate_mcp.config import McpConfig
from automate_mcp.tool_server import ListedTools, ToolServer
from mcp.types import Tool
from waiting import at_once
from mcp_support import SECRET, until
from waiting import within

from automate_kernel.monitoring.diagnosis import connection_findings
from automate_kernel import AutomateError, Kernel, ProviderContext
from automate_kernel.base.errors import ConfigError, ErrorCodes
from automate_testing.contracts.providers import ProviderContract

SERVER = str(Path(__file__).parent / "support" / "misbehaving_server.py")
Make = Callable[..., Kernel]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make a kernel whose plugin ``bad`` is the misbehaving server, started in a new folder."""
    kernels: list[Kernel] = []

    def make(**config: Any) -> Kernel:
        given = {
            "command": sys.executable, "args": [SERVER], "cwd": str(tmp_path), "tools": ["*"],
            "timeout_seconds": 20, **config,
        }  # fmt: skip
        kernel = Kernel(discover=False, config={"bad": given}, secrets={"API_KEY": SECRET})
        kernel.register(McpProvider, key="bad")
        kernels.append(kernel)
        return kernel

    yield make
    for kernel in kernels:
        kernel.close()
    assert children() == []


def children() -> list[psutil.Process]:
    return [
        each
        for each in psutil.Process().children(recursive=True)
        if "misbehav" in " ".join(_line(each))
    ]


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def starts(tmp_path: Path) -> int:
    file = tmp_path / "starts"
    return len(file.read_text()) if file.exists() else 0


def error_of(call: Callable[[], Any]) -> AutomateError:
    with pytest.raises(AutomateError) as caught:
        call()
    return caught.value


class TestMcpProvider(ProviderContract):
    """The kernel's contract, on a real process."""

    example_inputs = {"add": {"a": 1, "b": 2}, "picture": {}}

    @pytest.fixture
    def provider(self, tmp_path: Path) -> Iterator[McpProvider]:
        config = {
            "command": sys.executable, "args": [SERVER], "cwd": str(tmp_path), "tools": ["*"]
        }  # fmt: skip
        complete = McpProvider.parse_config(config).model_dump()
        provider = McpProvider(complete, ctx=ProviderContext(key="mcp"))
        yield provider
        provider.close()


def test_no_process_is_started_before_it_is_needed(make: Make, tmp_path: Path) -> None:
    """Neither by a kernel, nor by a worker or a workflow that names a tool."""
    kernel = make()
    kernel.add_workflow(
        {"name": "w", "trigger": {"type": "manual"}, "steps": [{"id": "a", "action": "bad.add"}]}
    )
    kernel.worker()
    assert kernel.operations.plugin_problems() == {}
    assert starts(tmp_path) == 0
    assert kernel.invoke("bad.add", {"a": 1, "b": 2}) == {"total": 3}
    assert kernel.invoke("bad.add", {"a": 3, "b": 2}) == {"total": 5}
    assert starts(tmp_path) == 1


def test_one_process_serves_every_thread_and_loop(make: Make, tmp_path: Path) -> None:
    """Whoever calls."""
    kernel = make()
    results: list[int] = []

    def call(number: int) -> None:
        data = {"a": number, "b": 0}
        output = (
            asyncio.run(kernel.ainvoke("bad.add", data))
            if number % 2
            else kernel.invoke("bad.add", data)
        )
        results.append(output["total"])

    at_once(*(partial(call, number) for number in range(8)))
    assert sorted(results) == list(range(8))
    assert starts(tmp_path) == 1


def test_a_tools_schemas_are_kept(make: Make) -> None:
    """Input is checked before a call, and what is wrong is named."""
    kernel = make()
    spec = kernel.operation("bad.add")
    assert spec.json_schema()["properties"]["a"]["type"] == "integer"
    assert spec.output_json_schema()["properties"]["total"]["type"] == "integer"
    assert spec.description == "Add two numbers."
    error = error_of(lambda: kernel.invoke("bad.add", {"a": "one"}))
    assert error.code is ErrorCodes.INVALID_ARGUMENT


def test_a_servers_word_counts_only_if_it_is_trusted(make: Make) -> None:
    """Else each tool is one that destroys and can't be repeated; the host's word counts most."""
    nature = lambda spec: (spec.read_only, spec.destructive, spec.idempotent)  # noqa: E731
    kernel = make()
    assert nature(kernel.operation("bad.add")) == (False, True, False)
    trusted = make(trust_annotations=True, hints={"steps": {"destructive": False}})
    assert nature(trusted.operation("bad.add")) == (True, False, True)
    assert nature(trusted.operation("bad.die_once")) == (False, False, True)
    assert nature(trusted.operation("bad.die")) == (False, True, False)
    assert nature(trusted.operation("bad.steps")) == (False, False, False)
    own = make(hints={"add": {"read_only": True}, "die": {"idempotent": True}})
    assert nature(own.operation("bad.add")) == (True, False, True)
    assert nature(own.operation("bad.die")) == (False, True, True)


def test_only_allowed_tools_are_there(make: Make) -> None:
    """By name or pattern; the config must say which."""
    kernel = make(tools=["add", "pic*"])
    assert list(kernel.operations.matching("bad.*")) == ["bad.add", "bad.picture"]
    error = error_of(lambda: kernel.invoke("bad.fail", {"text": "x"}))
    assert (error.code, error.retryable) == (ErrorCodes.INVALID_ARGUMENT, False)
    assert "it has: add, picture" in str(error)
    with pytest.raises(ConfigError, match="tools"):
        Kernel(plugins=[McpProvider], config={"mcp": {"command": "x"}}).provider("mcp")


def test_content_comes_as_json(make: Make) -> None:
    """Texts together, and each block as the protocol has it."""
    output = make().invoke("bad.picture")
    assert output["text"] == "a picture"
    assert output["content"][1] == {"type": "image", "data": "aGk=", "mimeType": "image/png"}


def test_a_name_that_cant_be_written_is_mapped(make: Make) -> None:
    """And stays the same."""
    kernel = make()
    (name,) = [each for each in kernel.operations.matching("bad.odd*")]
    assert name.startswith("bad.odd_name.with_nicode_")
    assert kernel.invoke(name)["result"] == "odd"


def test_an_error_of_a_tool_is_not_tried_again(make: Make) -> None:
    """It has answered: the same call fails again."""
    error = error_of(lambda: make().invoke("bad.fail", {"text": f"no such file {SECRET}"}))
    assert (error.code, error.retryable) == (ErrorCodes.FAILED_PRECONDITION, False)
    assert "no such file" in error.message


def test_a_result_that_its_own_schema_refuses_is_an_error(make: Make) -> None:
    """Which doesn't quote it."""
    error = error_of(lambda: make().invoke("bad.wrong"))
    assert (error.code, error.retryable) == (ErrorCodes.DATA_LOSS, False)
    assert "4711" not in str(error)


@pytest.mark.timeout(60)
def test_patterns_of_a_server_take_no_longer_than_their_text(make: Make) -> None:
    """One could hold all threads of the process for as long as its author likes."""
    kernel = make()
    assert kernel.invoke("bad.patterned", {"code": "a" * 50_000}) == {"total": 50_000}
    with pytest.raises(AutomateError, match="code: does not satisfy pattern"):
        kernel.invoke("bad.patterned", {"code": "a" * 50_000 + "!"})


def test_the_process_sees_only_what_the_config_names(make: Make, monkeypatch: Any) -> None:
    """Not the secrets of the host, and no HOME."""
    monkeypatch.setenv("HOST_PASSWORD", "hunter2-of-the-host")
    monkeypatch.setenv("WANTED", "yes")
    kernel = make(env={"TOKEN": "$secret:API_KEY"}, inherit_env=["WANTED", "NOT_SET"])
    seen = kernel.invoke("bad.environment")
    # The output is redacted; Python itself sets LC_CTYPE.
    assert seen.pop("TOKEN") == "[secret]"
    assert {**seen, "LC_CTYPE": ""} == {"WANTED": "yes", "LC_CTYPE": ""}


def test_standard_error_is_logged_without_secrets(make: Make, caplog: Any) -> None:
    """And not without an end."""
    kernel = make(env={"TOKEN": "$secret:API_KEY"})
    with caplog.at_level(logging.INFO):
        kernel.invoke("bad.log", {"text": f"using {SECRET} now"})
        until(lambda: "using" in caplog.text)
        kernel.invoke("bad.log", {"text": "again", "lines": 1_000})
        until(lambda: "logs too much" in caplog.text)
    assert SECRET not in caplog.text
    assert caplog.text.count("again") <= 200


def test_progress_of_a_tool_is_that_of_the_step(make: Make) -> None:
    """As a share of the whole."""
    kernel = make()
    kernel.add_workflow(
        {"name": "w", "trigger": {"type": "manual"}, "steps": [{"id": "a", "action": "bad.steps"}]}
    )
    execution = kernel.run("w")
    assert execution.status.value == "COMPLETED"
    assert execution.step("a").progress == {"value": 1.0, "message": "step 4"}


@pytest.mark.parametrize("cancelled", ["caller", "timeout"])
def test_a_cancelled_call_is_cancelled_there(make: Make, tmp_path: Path, cancelled: str) -> None:
    """Whether its caller goes, or its time is over. The session lives on."""
    kernel = make(hints={"hang": {"timeout_seconds": 3}}) if cancelled == "timeout" else make()

    kernel.invoke("bad.add", {"a": 1, "b": 1})

    async def leave() -> None:
        task = asyncio.create_task(kernel.ainvoke("bad.hang"))
        await asyncio.to_thread(until, (tmp_path / "hangs").exists)
        task.cancel()
        await asyncio.wait([task])

    if cancelled == "caller":
        asyncio.run(leave())
    else:
        # A busy machine may let its time pass before it comes there.
        while not (tmp_path / "hangs").exists():
            error = error_of(lambda: kernel.invoke("bad.hang"))
            assert (error.code, error.retryable) == (ErrorCodes.DEADLINE_EXCEEDED, False)
    until((tmp_path / "cancelled").exists)
    assert kernel.invoke("bad.add", {"a": 1, "b": 1}) == {"total": 2}
    assert starts(tmp_path) == 1


def test_a_server_that_dies_is_started_again(make: Make, tmp_path: Path) -> None:
    """The call that it died in is tried again only if that can do no harm."""
    kernel = make(hints={"die_once": {"idempotent": True}})
    error = error_of(lambda: kernel.invoke("bad.die_once"))
    assert (error.code, error.retryable) == (ErrorCodes.UNAVAILABLE, True)
    assert kernel.invoke("bad.die_once")["result"] == "alive"
    assert starts(tmp_path) == 2
    error = error_of(lambda: kernel.invoke("bad.die"))
    assert (error.code, error.retryable) == (ErrorCodes.UNAVAILABLE, False)
    assert "may have been carried out" in str(error)
    assert kernel.invoke("bad.add", {"a": 1, "b": 1}) == {"total": 2}


def test_a_workflow_goes_on_after_a_death(make: Make, tmp_path: Path) -> None:
    """Its step is retried."""
    kernel = make(hints={"die_once": {"idempotent": True}})
    step = {"id": "a", "action": "bad.die_once", "retry": {"attempts": 3, "delay": "100ms"}}
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": [step]})
    execution = kernel.run("w")
    assert execution.status.value == "COMPLETED"
    assert execution.step("a").attempts == 2


def test_one_that_dies_in_each_call_is_started_less_and_less(make: Make, tmp_path: Path) -> None:
    """Its callers learn when to come back."""
    kernel = make()
    errors = [error_of(lambda: kernel.invoke("bad.die")) for _ in range(8)]
    told = [error.retry_after for error in errors if error.retry_after is not None]
    assert told and all(1 < each <= 60 for each in told)
    assert starts(tmp_path) < 8
    waiting = next(error for error in errors if error.retry_after is not None)
    assert (waiting.code, waiting.retryable) == (ErrorCodes.UNAVAILABLE, True)


def test_one_that_was_killed_between_calls_is_started_again(make: Make, tmp_path: Path) -> None:
    """Nobody notices."""
    kernel = make()
    kernel.invoke("bad.add", {"a": 1, "b": 1})
    for child in children():
        child.kill()
        # Its number is gone, or shown as a zombie's, while its threads have its pipes still.
        with contextlib.suppress(ChildProcessError):  # somebody has waited for it before
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert kernel.invoke("bad.add", {"a": 1, "b": 1}) == {"total": 2}
    assert starts(tmp_path) == 2


def test_one_that_stopped_answering_is_started_again(make: Make, tmp_path: Path) -> None:
    """After a call without an answer it is asked before the next one."""
    # Little time for that call alone: a busy machine may need more for the others.
    kernel = make(hints={"log": {"timeout_seconds": 1}})
    kernel.invoke("bad.add", {"a": 1, "b": 1})
    (child,) = children()
    child.suspend()
    error = error_of(lambda: kernel.invoke("bad.log", {"text": "here"}))
    assert error.code is ErrorCodes.DEADLINE_EXCEEDED
    assert kernel.invoke("bad.add", {"a": 1, "b": 1}) == {"total": 2}
    assert starts(tmp_path) == 2


@pytest.mark.parametrize(
    ("variable", "code", "seconds"),
    [
        ("DEAD_ON_ARRIVAL", ErrorCodes.UNAVAILABLE, 10),
        ("SLOW_START", ErrorCodes.DEADLINE_EXCEEDED, 15),
    ],
)
def test_one_that_does_not_come_up_is_an_error(
    make: Make, variable: str, code: ErrorCodes, seconds: float
) -> None:
    """Within its time, and worth another attempt."""

    def fails() -> AutomateError:
        kernel = make(env={variable: "1"}, start_timeout_seconds=2 if "SLOW" in variable else 20)
        return error_of(lambda: kernel.invoke("bad.add", {"a": 1, "b": 1}))

    error = within(seconds, fails)
    assert (error.code, error.retryable) == (code, True)


def test_a_program_that_is_not_there_is_a_mistake_of_the_config(make: Make) -> None:
    """Not tried again."""
    error = error_of(lambda: make(command="no-such-program").invoke("bad.add"))
    assert not error.retryable
    assert "there is no program 'no-such-program'" in str(error)


def test_noise_on_standard_output_does_no_harm(make: Make) -> None:
    """A line that is no message is passed over."""
    assert make().invoke("bad.flood", {"lines": 500})["result"] == "done"


def test_an_endless_line_ends_the_session_and_fills_no_memory(make: Make) -> None:
    """Of a line only so much is read."""
    kernel = make(max_result_bytes=100_000)
    kernel.invoke("bad.add", {"a": 1, "b": 1})
    before = psutil.Process().memory_info().rss
    error = error_of(lambda: kernel.invoke("bad.endless_line"))
    assert (error.code, error.retryable) == (ErrorCodes.RESOURCE_EXHAUSTED, False)
    assert "more than 100,000 bytes" in str(error) and "max_result_bytes" in str(error)
    assert psutil.Process().memory_info().rss - before < 50_000_000
    assert kernel.invoke("bad.add", {"a": 1, "b": 1}) == {"total": 2}


def test_a_lost_session_leaves_no_process_when_all_is_closed_at_once(make: Make) -> None:
    """Its process is ended first, although another session would have taken its place."""
    kernel = make(max_result_bytes=100_000)
    error_of(lambda: kernel.invoke("bad.endless_line"))
    kernel.close()
    assert children() == []


def test_a_server_that_is_still_starting_is_ended_too(make: Make, tmp_path: Path) -> None:
    """Whoever closes the provider doesn't wait for it to come up."""
    kernel = make(env={"SLOW_START": "1"})
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(kernel.invoke, "bad.add", {"a": 1, "b": 1})
        until(lambda: starts(tmp_path) == 1)
        kernel.provider("bad").close()
        assert children() == []
        assert isinstance(call.exception(30), AutomateError)


@pytest.mark.parametrize(
    "value",
    ["a\ud83d", {"x\ud83d": 1}, [float("nan")], 10**5000],
    ids=["half a character", "in a key", "NaN", "digits"],
)
def test_an_input_that_cant_be_sent_ends_no_session(make: Make, tmp_path: Path, value: Any) -> None:
    """It ended the process, for all others who were calling, and NaN became null in silence."""
    kernel = make()
    kernel.invoke("bad.add", {"a": 1, "b": 1})
    error = error_of(lambda: kernel.invoke("bad.add", {"a": 1, "b": 1, "c": value}, literal=True))
    assert (error.code, error.retryable) == (ErrorCodes.INVALID_ARGUMENT, False)
    assert "input of 'add' can't be sent: c" in str(error)
    kernel.invoke("bad.add", {"a": 1, "b": 1, "c": date(2026, 1, 2)}, literal=True)
    assert starts(tmp_path) == 1


def test_a_huge_result_is_refused(make: Make, tmp_path: Path) -> None:
    """The message itself is bounded; it fails its own call, and the server goes on for others."""
    kernel = make(max_result_bytes=100_000)
    kernel.invoke("bad.add", {"a": 1, "b": 1})
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(kernel.invoke, "bad.hold", {"folder": str(tmp_path)})
        until((tmp_path / "held").exists)
        for size in (1_000_000, 5_000_000):
            error = error_of(lambda size=size: kernel.invoke("bad.huge", {"size": size}))
            assert (error.code, error.retryable) == (ErrorCodes.RESOURCE_EXHAUSTED, False)
            assert "answered with more than 100,000 bytes" in str(error)
            assert "max_result_bytes" in str(error)
        (tmp_path / "go").touch()
        assert other.result(60)["result"] == "released"
    assert len(kernel.invoke("bad.huge", {"size": 10_000})["result"]) == 10_000
    assert starts(tmp_path) == 1


RAW = str(Path(__file__).parent / "support" / "raw_server.py")


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ("no-content", ErrorCodes.DATA_LOSS, "isn't one of the protocol: content"),
        ("strange-content", ErrorCodes.DATA_LOSS, "isn't one of the protocol: content.0"),
        ("own-error", ErrorCodes.UNAVAILABLE, "the server of 'bad': the disk is full"),
    ],
)
def test_an_answer_that_nobody_can_read_makes_no_second_call(
    make: Make, tmp_path: Path, answer: str, code: ErrorCodes, words: str
) -> None:
    """The tool has done its work. And the code of an error of its own is that of a lost session."""
    kernel = make(args=[RAW, answer])
    step = {"id": "work", "action": "bad.work", "retry": {"attempts": 3, "delay": "1s"}}
    kernel.add_workflow({"name": "work", "trigger": {"type": "manual"}, "steps": [step]})
    error = kernel.run("work").error
    assert words in str(error)
    assert (tmp_path / "calls").read_text() == "x"
    raised = error_of(lambda: kernel.invoke("bad.work"))
    assert (raised.code, raised.retryable) == (code, False)


def test_a_list_that_nobody_can_read_is_told(make: Make) -> None:
    """It was a defect of ours, with a traceback."""
    kernel = make(args=[RAW, "no-list"])
    error = error_of(lambda: kernel.operation("bad.work"))
    assert "the server of 'bad' gave an answer that isn't one of the protocol: tools" in str(error)


@pytest.mark.parametrize(
    ("lists", "says"),
    [
        ("bad-schema", "'broken' is left out, as it can't be read: inputSchema: Input should be"),
        ("no-schema", "'broken' is left out, as it can't be read: inputSchema: Field required"),
        ("bad-output", "'broken' is left out, as it can't be read: outputSchema: "),
        ("no-type", "'broken' is left out, as it can't be read: inputSchema.type: Field required"),
        ("too-deep", "'broken' is left out, as it can't be read: it is nested too deep"),
        ("bad-name", "'number 2 of the list' is left out, as it can't be read: name: "),
        ("no-object", "'number 4 of the list' is left out, as it can't be read: it: "),
        ("twice", "'work' is listed twice: the first of them counts"),
    ],
)
def test_a_tool_that_can_not_be_read_hides_no_other(
    make: Make, caplog: pytest.LogCaptureFixture, lists: str, says: str
) -> None:
    """The log and the connection test say which it is, and so does a call of it."""
    kernel = make(args=[RAW, lists])
    assert list(kernel.operations.matching("bad.*")) == ["bad.work"]
    assert kernel.invoke("bad.work")["text"] == ""
    assert says in caplog.text
    assert says in asyncio.run(kernel.provider("bad").check())
    (finding,) = connection_findings(kernel)
    assert says in finding.text and finding.state == "ok"
    assert caplog.text.count(says) == 1, "it is logged once, however often the list is read"
    if "broken" in says:
        error = error_of(lambda: kernel.invoke("bad.broken"))
        assert says.rpartition("read: ")[2] in str(error)
        assert not error.retryable


def test_what_a_tool_can_do_without_makes_it_unusable_no_more_than_its_name(make: Make) -> None:
    """A wrong icon, half a character, a name of blanks."""
    assert make(args=[RAW, "bad-icons"]).operation("bad.work").title == "Work"
    found = make(args=[RAW, "odd-names"]).operations.matching("bad.*")
    assert len(found) == 6


def test_a_tool_that_is_gone_is_not_listed_after_a_call_of_it(make: Make, tmp_path: Path) -> None:
    """Many servers tell of no change. Their refusal of a call may be one."""
    kernel = make(args=[RAW, "gone"])
    assert list(kernel.operations.matching("bad.*")) == ["bad.other", "bad.work"]
    (tmp_path / "gone").touch()
    assert "unknown tool" in str(error_of(lambda: kernel.invoke("bad.work")))
    assert "it has: other" in str(error_of(lambda: kernel.invoke("bad.work")))


def test_a_list_of_tools_is_read_again_after_minutes() -> None:
    """Also where no call fails, as for who only looks at what there is."""
    now, lists = [0.0], [["one", "two"], ["one"]]
    reads = []

    class Told:
        key = "bad"

        async def use(self, _: Any) -> ListedTools:
            reads.append(now[0])
            names = lists[len(reads) > 1]
            return ListedTools([Tool(name=each, input_schema={}) for each in names])

    config = McpConfig(command="x", tools=["*"])
    server = ToolServer(config, logging.getLogger(), lambda _: Told(), lambda: now[0])  # type: ignore[arg-type,return-value]
    for seconds, names in ((0, ["one", "two"]), (299, ["one", "two"]), (300, ["one"])):
        now[0] = seconds
        assert list(asyncio.run(server.allowed()).by_name) == names
    assert reads == [0, 300]


def test_a_server_of_another_protocol_is_told(make: Make) -> None:
    """It seemed to have died, and its standard error said nothing."""
    error = error_of(lambda: make(args=[RAW, "old"]).invoke("bad.work"))
    assert "Unsupported protocol version from the server: 1999-01-01" in str(error)


def test_a_tool_that_came_later_is_there(make: Make) -> None:
    """The server says that its list has changed."""
    kernel = make()
    assert "bad.later" not in kernel.operations.matching("bad.*")
    kernel.invoke("bad.change")
    until(lambda: "bad.later" in kernel.operations.matching("bad.*"))
    assert kernel.invoke("bad.later")["result"] == "new"


def test_the_check_says_what_it_found(make: Make) -> None:
    """It connects, and counts the tools."""
    said = asyncio.run(make(tools=["add", "die"]).provider("bad").check())
    assert said.startswith("misbehaving 6.6.6 has ") and said.endswith("2 of them allowed")


def test_a_closed_provider_leaves_no_process(make: Make, tmp_path: Path) -> None:
    """And opens another one if it is called again."""
    kernel = make()
    provider = kernel.provider("bad")
    kernel.invoke("bad.add", {"a": 1, "b": 1})
    assert len(children()) == 1
    provider.close()
    assert children() == []
    kernel.invoke("bad.add", {"a": 1, "b": 1})
    assert starts(tmp_path) == 2


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "give either command or url"),
        ({"command": "x", "url": "https://x"}, "give either command or url"),
        ({"url": "http://mcp.example.com/mcp"}, "use https.*allow_plain_http"),
        ({"url": "https://user:word@example.com"}, "without a password"),
        ({"url": "https://x.example", "args": ["a"]}, "args is for a command"),
        ({"command": "x", "token": "y"}, "token is for a url"),
        ({"command": "x", "tool": ["*"]}, "tool"),
    ],
)
def test_a_wrong_config_is_told(config: dict[str, Any], says: str) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError, match=says):
        McpProvider.parse_config({"tools": ["*"], **config})


def test_a_server_in_a_network_of_ones_own_may_be_asked_over_plain_http() -> None:
    config = {"tools": ["*"], "url": "http://mcp:8000/mcp", "allow_plain_http": True}
    assert McpProvider.parse_config(config).url == config["url"]
