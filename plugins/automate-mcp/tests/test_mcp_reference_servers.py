"""Our client on the reference servers of MCP, and on our own server over HTTP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from automate_mcp import McpProvider

from automate_kernel import AutomateError, Kernel
from automate_kernel.base.errors import ErrorCodes

EXAMPLE = Path(__file__).parents[1] / "src" / "automate_mcp" / "example.yaml"


@pytest.fixture
def connect(reference_servers: dict[str, list[str]]) -> Iterator[Callable[..., Kernel]]:
    """Make a kernel with one of them as its plugin."""
    kernels: list[Kernel] = []

    def connect(name: str, *arguments: str, **config: Any) -> Kernel:
        program, script = reference_servers[name]
        given = {"command": program, "args": [script, *arguments], "tools": ["*"], **config}
        kernel = Kernel(discover=False, config={name: given})
        kernel.register(McpProvider, key=name)
        kernels.append(kernel)
        return kernel

    yield connect
    for kernel in kernels:
        kernel.close()


def test_everything(connect: Callable[..., Kernel]) -> None:
    """Text, numbers, structured content, images, progress and errors."""
    kernel = connect("everything", "stdio", trust_annotations=True)
    assert kernel.invoke("everything.echo", {"message": "hi"})["text"] == "Echo: hi"
    assert "5" in kernel.invoke("everything.get-sum", {"a": 2, "b": 3})["text"]
    weather = kernel.invoke("everything.get-structured-content", {"location": "New York"})
    assert {"temperature", "conditions", "humidity"} == set(weather)
    content = kernel.invoke("everything.get-tiny-image")["content"]
    assert "image/png" in {each.get("mimeType") for each in content}
    links = kernel.invoke("everything.get-resource-links", {"count": 2})["content"]
    assert [each["type"] for each in links].count("resource_link") == 2
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("everything.echo", {"message": 1})
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT

    slow = {"duration": 1, "steps": 4}
    kernel.add_workflow({
        "name": "w", "trigger": {"type": "manual"},
        "steps": [{
            "id": "a", "action": "everything.trigger-long-running-operation", "input": slow,
        }],
    })  # fmt: skip
    execution = kernel.run("w")
    assert execution.status.value == "COMPLETED"
    assert execution.step("a").progress["value"] == 1.0


def test_everything_sees_no_environment(connect: Callable[..., Kernel]) -> None:
    """Not even PATH."""
    kernel = connect("everything", "stdio", env={"ONE": "1"})
    seen = kernel.invoke("everything.get-env")["text"]
    assert '"ONE": "1"' in seen
    assert os.environ["PATH"] not in seen and "HOME" not in seen


def test_filesystem(connect: Callable[..., Kernel], tmp_path: Path) -> None:
    """A workflow writes and reads a file; what is outside is an error of the tool."""
    kernel = connect("filesystem", str(tmp_path))
    kernel.add_workflow(EXAMPLE)
    execution = kernel.run("note", {"folder": str(tmp_path), "text": "hello"})
    assert execution.status.value == "COMPLETED", execution.error
    assert execution.output == "hello"
    assert (tmp_path / "note.txt").read_text() == "hello"
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("filesystem.read_text_file", {"path": "/etc/passwd"})
    assert (caught.value.code, caught.value.retryable) == (ErrorCodes.FAILED_PRECONDITION, False)
    assert "root:" not in str(caught.value)


def test_memory(connect: Callable[..., Kernel], tmp_path: Path) -> None:
    """State lives as long as the process: it is one and the same for all calls."""
    kernel = connect("memory", env={"MEMORY_FILE_PATH": str(tmp_path / "graph.jsonl")})
    ada = {"name": "Ada", "entityType": "person", "observations": ["writes programs"]}
    kernel.invoke("memory.create_entities", {"entities": [ada]})
    found = asyncio.run(kernel.ainvoke("memory.search_nodes", {"query": "Ada"}))
    assert found["entities"][0]["observations"] == ["writes programs"]
