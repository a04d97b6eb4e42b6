"""What the documentation calls the largest payload is taken, and a byte more is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from automate_kernel import Kernel, PayloadError, WorkflowContext
from automate_kernel.operations.reports import MAX_PROGRESS_BYTES, CallReport
from automate_kernel.outbox.item import NewItem
from automate_kernel.storage.values import MAX_PAYLOAD_BYTES

MANUAL: dict[str, Any] = {"type": "manual"}


def text_of(size: int, letter: str = "x") -> str:
    """A text whose JSON has *size* bytes."""
    wide = len(letter.encode())
    return letter * ((size - 2) // wide) + "y" * ((size - 2) % wide)


@pytest.fixture
def kernel() -> Kernel:
    kernel = Kernel(discover=False)

    @kernel.action("text.make")
    def make(size: int) -> str:
        return text_of(size)

    @kernel.action("text.drop")
    def drop(text: str) -> None:
        pass

    @kernel.workflow
    async def again(ctx: WorkflowContext, text: str) -> str:
        if len(text) > 9:
            return text
        return await ctx.continue_as_new(text_of(int(text)))

    make_step = {"id": "a", "action": "text.make", "input": {"size": "{{ event.payload }}"}}
    kernel.add_workflow({"name": "takes", "trigger": MANUAL} | _dropping("event.name"))
    kernel.add_workflow({"name": "waits", "trigger": MANUAL, "steps": [
        {"id": "w", "wait_for": {"signal": "answer"}}]})  # fmt: skip
    kernel.add_workflow({"name": "outputs", "trigger": MANUAL, "steps": [make_step],
                         "output": "{{ steps.a.output }}"})  # fmt: skip
    kernel.add_workflow({"name": "calls", "trigger": MANUAL, "steps": [
        make_step,
        {"id": "b", "workflow": "takes", "input": "{{ steps.a.output }}"}]})  # fmt: skip
    return kernel


def _dropping(template: str) -> dict[str, Any]:
    return {
        "steps": [{"id": "d", "action": "text.drop", "input": {"text": f"{{{{ {template} }}}}"}}]
    }


def _signalled(kernel: Kernel, payload: str) -> None:
    execution_id = kernel.start("waits")
    kernel.run_until_idle()
    kernel.signal(execution_id, "answer", payload)
    kernel.run_until_idle()
    found = kernel.executions.get(execution_id)
    assert found is not None and found.status == "COMPLETED"


WAYS: dict[str, Callable[[Kernel, str], Any]] = {
    "enqueue": lambda kernel, payload: kernel.outbox.enqueue_many([NewItem("own", payload)]),
    "emit": lambda kernel, payload: kernel.emit("happened", payload),
    "a long name": lambda kernel, payload: kernel.emit("n" * 200, payload, source="s" * 200),
    "start": lambda kernel, payload: kernel.start("takes", payload),
    "run": lambda kernel, payload: kernel.run("takes", payload),
    "signal": _signalled,
}


@pytest.mark.parametrize("letter", ["x", "ü", "\N{GRINNING FACE}"])
@pytest.mark.parametrize("way", WAYS)
def test_a_payload_counts_without_what_the_kernel_puts_around_it(
    kernel: Kernel, way: str, letter: str
) -> None:
    """A million bytes of JSON on every way in."""
    WAYS[way](kernel, text_of(MAX_PAYLOAD_BYTES, letter))
    with pytest.raises(PayloadError, match=r"the payload is too long: over 1,000,000 bytes"):
        WAYS[way](kernel, text_of(MAX_PAYLOAD_BYTES + 1, letter))


@pytest.mark.parametrize("workflow", ["outputs", "calls"])
def test_an_output_has_as_much(kernel: Kernel, workflow: str) -> None:
    """That of a step and of a workflow, and what a sub-workflow is given."""
    assert kernel.run(workflow, MAX_PAYLOAD_BYTES).status == "COMPLETED"
    failed = kernel.run(workflow, MAX_PAYLOAD_BYTES + 1)
    assert failed.status == "FAILED"
    assert "too long" in str(failed.error)


def test_so_has_the_payload_of_an_execution_that_continues(kernel: Kernel) -> None:
    """Its successor begins with it."""
    first = kernel.run("again", str(MAX_PAYLOAD_BYTES))
    kernel.run_until_idle()
    last = kernel.executions.find(workflow="again", limit=1)[0]
    assert (last.id != first.id, last.status, len(last.output)) == (
        True, "COMPLETED", MAX_PAYLOAD_BYTES - 2)  # fmt: skip


@pytest.mark.parametrize(
    ("spare", "message"), [(0, None), (len('"done"'), "done"), (len('"üü"'.encode()), "üü")]
)
def test_progress_counts_its_value_and_its_message(spare: int, message: str | None) -> None:
    """4,000 bytes of JSON, and not what stands around the two."""
    report = CallReport()
    report.report(text_of(MAX_PROGRESS_BYTES - spare), message)
    with pytest.raises(PayloadError, match="the progress is too long: over 4,000 bytes"):
        report.report(text_of(MAX_PROGRESS_BYTES - spare + 1), message)
