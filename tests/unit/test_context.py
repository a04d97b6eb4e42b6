"""The current call is known where it is served, and nowhere else."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated, Any

import pytest
from pydantic import Field

from automate_kernel import Connector, Kernel
from automate_kernel.plugins.connectors import action
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.monitoring.diagnosis import workflow_problems
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


def test_a_mapping_is_no_reader_of_secrets() -> None:
    """It would fail only where the plugin reads a secret, with an error of Python's."""
    with pytest.raises(TypeError, match=r"Kernel\(secrets={…}\)"):
        PluginContext(key="x", secrets={"KEY": "value"})  # type: ignore[arg-type]


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


QUERY = "SELECT :name"


@pytest.mark.parametrize("written", [None, {"query": QUERY, "name": "{{ event.payload.name }}"}])
def test_text_that_its_author_wrote_passes(written: Any) -> None:
    """In a workflow, and where no template is rendered at all."""
    Call("sql.query", written=written).require_written("query", QUERY)


@pytest.mark.parametrize("written", [{"query": "SELECT '{{ x }}'"}, {}, "{{ event.payload }}"])
def test_text_that_a_template_made_is_refused_without_a_word_of_it(written: Any) -> None:
    """Data of an event must not become part of a query, not even the whole of it."""
    with pytest.raises(AutomateError, match="'query' is made by a template") as caught:
        Call("sql.query", written=written).require_written("query", QUERY)
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    assert QUERY not in str(caught.value)


@pytest.mark.parametrize(
    "mark", ["{{ 1 }}", "{% if 1 %}{% endif %}", "{# x #}", "$secret:K", "$env:HOME"]
)
def test_a_template_in_a_field_that_must_be_written_is_found_before_it_runs(mark: str) -> None:
    """By the field's schema; a brace or a dollar alone is text."""
    query = {"type": "string", "x-written": True}
    schema = {"type": "object", "properties": {"query": query, "name": {"type": "string"}}}
    with Kernel(discover=False, secrets={}, env_allow=["HOME"]) as kernel:
        kernel.action("sql.query", input_schema=schema)(lambda given: None)
        for name, text in (("good", "SELECT $1, '{}'"), ("bad", f"SELECT {mark}")):
            step = {"id": "a", "action": "sql.query", "input": {"query": text, "name": mark}}
            kernel.add_workflow({"name": name, "trigger": {"type": "manual"}, "steps": [step]})
        assert workflow_problems(kernel, kernel.workflows["good"]) == []
        (problem,) = workflow_problems(kernel, kernel.workflows["bad"])
    assert problem.startswith("steps.a.input.query: sql.query: must be written as it is")


class Library(Connector):
    key = "library"
    display_name = "Library"

    @action(read_only=True)
    def find(self, query: Annotated[str, Field(json_schema_extra={"x-written": True})]) -> str:
        return query

    @action(read_only=True)
    def by_title(self, title: str) -> str:
        return str(self.call_operation("find", {"query": f"title = {title}"}))


@pytest.mark.parametrize("kind", ["connector", "function"])
def test_the_mark_alone_refuses_what_a_template_made(kind: str) -> None:
    """An author who marks a field need not check it."""
    with Kernel(plugins=[Library], discover=False, secrets={}) as kernel:
        schema = {"properties": {"query": {"type": "string", "x-written": True}}}
        kernel.action("find", input_schema=schema)(lambda given: given["query"])
        name = "library.find" if kind == "connector" else "find"
        outputs = []
        for workflow, query in (("fixed", "a = :b"), ("made", "a = '{{ event.payload.b }}'")):
            step = {"id": "s", "action": name, "input": {"query": query}}
            kernel.add_workflow({"name": workflow, "trigger": {"type": "manual"}, "steps": [step]})
            execution = kernel.run(workflow, {"b": "' OR 1 = 1"})
            outputs.append(execution.error or execution.step("s").output)
    assert outputs[0] == "a = :b" and "must be written in the workflow" in outputs[1]


def test_code_that_calls_an_operation_has_written_its_input_itself() -> None:
    """In a workflow as outside."""
    with Kernel(plugins=[Library], discover=False, secrets={}) as kernel:
        step = {"id": "s", "action": "library.by_title", "input": {"title": "{{ 'x' }}"}}
        kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": [step]})
        assert kernel.run("w").step("s").output == "title = x"
        assert kernel.invoke("library.find", {"query": "a"}) == "a"
