"""Labels that a workflow gives its executions: at the start, and while they run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import until
from workers import working
from automate_kernel import Call, Kernel, current_call
from automate_kernel.base.errors import PayloadError, WorkflowError
from automate_kernel.storage import Storage
from automate_kernel.workflows.code import WorkflowContext
from automate_kernel.workflows.definition.loader import loads
from automate_kernel.workflows.execution import Execution, ExecutionStatus

pytestmark = pytest.mark.any_storage

LABELS = {"customer": "{{ event.payload.customer }}", "kind": "order", "number": 7}


@pytest.fixture
def kernel(storage: Storage) -> Iterator[Kernel]:
    with Kernel(storage, discover=False, secrets={"KEY": "s3cr3t-value-of-the-key"}) as kernel:
        yield kernel


def add(kernel: Kernel, *steps: dict[str, Any], **more: Any) -> None:
    more.setdefault("trigger", {"type": "manual"})
    steps = steps or ({"id": "a", "sleep": 0},)
    kernel.add_workflow({"name": "flow", "steps": list(steps), **more})


def got(kernel: Kernel, execution_id: str) -> Execution:
    found = kernel.executions.get(execution_id)
    assert found is not None
    return found


def found(kernel: Kernel, *labels: str) -> list[str]:
    return [each.id for each in kernel.executions.page(labels=labels).executions]


# -- at the start ----------------------------------------------------------------------------------


@pytest.mark.every_storage
def test_a_definition_labels_its_executions(kernel: Kernel) -> None:
    """However they start; they are found by several labels at once."""
    triggers = [{"type": "manual"}, {"type": "event", "event": "order.created"}]
    add(kernel, trigger=triggers, labels=LABELS)
    here = kernel.run("flow", {"customer": "ann"}).id
    with working(kernel):
        kernel.emit("order.created", {"customer": "bob"}, labels={"kind": "mine", "order": 1})
        until(lambda: found(kernel, "customer=bob"))
    assert got(kernel, here).labels == {"customer": "ann", "kind": "order", "number": "7"}
    (by_event,) = found(kernel, "customer=bob", "order=1", "kind=order")
    assert got(kernel, by_event).labels["order"] == "1"
    assert got(kernel, by_event).event.labels == {"kind": "mine", "order": "1"}
    assert set(found(kernel, "kind=order", "number=7")) == {here, by_event}
    assert found(kernel, "kind=mine") == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (1.5, "labels.a: must be text or a whole number, not a decimal number (put it in quotes)"),
        (True, "labels.a: must be text or a whole number, not true or false"),
        (None, "labels.a: must be text or a whole number, not nothing"),
        ([1], "labels.a: must be text or a whole number, not a list"),
    ],
)
def test_a_value_that_can_be_no_label_is_one_problem(value: Any, problem: str) -> None:
    """It is refused where it is written, in one line."""
    with pytest.raises(WorkflowError) as caught:
        add(Kernel(discover=False), labels={"a": value})
    assert str(caught.value).splitlines()[1:] == [f"  workflow: {problem}"]


def test_a_debounced_execution_has_the_labels_of_the_last_event(kernel: Kernel) -> None:
    add(
        kernel, trigger={"type": "event", "event": "e"}, labels=LABELS,
        debounce={"for": "1h"},
    )  # fmt: skip
    for customer in ("ann", "bob"):
        kernel.emit("e", {"customer": customer})
        kernel.run_until_idle()
    (one,) = found(kernel, "customer=bob")
    assert got(kernel, one).labels["customer"] == "bob"
    assert found(kernel, "customer=ann") == []


def test_a_sub_workflow_and_a_copy_have_labels_too(kernel: Kernel) -> None:
    """A sub-workflow has its parent's, beside its own."""
    child = {"name": "child", "trigger": {"type": "manual"}, "labels": {"kind": "child"}}
    kernel.add_workflow({**child, "steps": [{"id": "a", "sleep": 0}]})
    add(kernel, {"id": "sub", "workflow": "child"}, {"id": "b", "sleep": 0}, labels=LABELS)
    one = kernel.run("flow", {"customer": "ann"}).id
    (sub,) = found(kernel, "kind=child", "customer=ann")
    assert got(kernel, sub).parent_id == one
    copy = kernel.executions.fork(one, "b")
    assert got(kernel, copy).labels == {**got(kernel, one).labels, "forked_from": one}


@pytest.mark.parametrize(
    "payload", [{}, {"customer": "x" * 201}, {"customer": [1]}, {"customer": " "}],
    ids=["missing", "long", "list", "blank"],
)  # fmt: skip
def test_work_is_not_lost_for_want_of_a_label(
    payload: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with Kernel(discover=False, secrets={}) as kernel:
        add(kernel, labels=LABELS)
        with caplog.at_level(logging.WARNING, "automate_kernel"):
            execution = kernel.run("flow", payload)
        assert execution.status is ExecutionStatus.COMPLETED
        assert got(kernel, execution.id).labels == {"kind": "order", "number": "7"}
        assert "has no label 'customer'" in caplog.text


def test_no_secret_is_a_label(kernel: Kernel) -> None:
    add(kernel, labels={"key": "{{ secrets.KEY }}", "said": "{{ event.payload }}"})
    kernel.secrets.get("KEY")
    one = kernel.run("flow", "it is s3cr3t-value-of-the-key").id
    assert "s3cr3t" not in repr(got(kernel, one))
    assert "key" not in got(kernel, one).labels
    assert "said" in got(kernel, one).labels
    assert found(kernel, "said=it is s3cr3t-value-of-the-key") == []


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ({"bad name": "x"}, "can't be a label's name"),
        ({"a": "x" * 201}, "too long"),
        ({f"l{n}": n for n in range(11)}, "11 labels of at most 10"),
        ({"a": "{{ steps.a.output }}"}, "a label can't see steps"),
        ({"a": "{{ evnt.payload }}"}, "evnt"),
        ({"a": "{{ event.payload"}, "labels"),
    ],
    ids=["name", "value", "many", "steps", "unknown", "syntax"],
)
def test_labels_are_checked_at_load(labels: dict[str, Any], problem: str) -> None:
    text = {"name": "flow", "trigger": {"type": "manual"}, "steps": [{"id": "a", "sleep": 1}]}
    with Kernel(discover=False, secrets={}) as kernel, pytest.raises(WorkflowError) as refused:
        kernel.add_workflow({**text, "labels": labels})
    assert problem in str(refused.value)


def test_a_definition_without_labels_is_the_same_as_before() -> None:
    workflow = loads("name: f\ntrigger: {type: manual}\nsteps: [{id: a, sleep: 1s}]\n")
    assert "labels" not in workflow.to_dict()


# -- while it runs ---------------------------------------------------------------------------------


def test_a_call_labels_its_execution(kernel: Kernel) -> None:
    """With its output, and not at all if it fails."""

    @kernel.action("ship")
    def ship(call: Call) -> int:
        call.label(shipment=100 + call.attempt, attempt=call.attempt)
        if call.attempt == 1:
            raise ConnectionError
        call.label(kind="shipped")
        return 1

    again = {"id": "a", "action": "ship", "retry": {"attempts": 2, "delay": 0}}
    add(kernel, again, labels=LABELS)
    one = kernel.run("flow", {"customer": "ann"}).id
    assert got(kernel, one).labels == {
        "customer": "ann", "kind": "shipped", "number": "7", "shipment": "102", "attempt": "2",
    }  # fmt: skip
    assert found(kernel, "shipment=102", "customer=ann") == [one]
    assert found(kernel, "shipment=101") == found(kernel, "kind=order") == []


@pytest.mark.every_storage
def test_an_async_and_a_transactional_call_label_too(kernel: Kernel) -> None:
    @kernel.action("later")
    async def later() -> None:
        call = current_call()
        assert call is not None
        call.label(a=1)

    @kernel.action("inside", transactional=True)
    def inside(call: Call) -> None:
        call.label(b=2)

    add(kernel, {"id": "a", "action": "later"}, {"id": "b", "action": "inside"})
    with working(kernel):
        one = kernel.start("flow")
        until(lambda: got(kernel, one).status.finished)
    assert got(kernel, one).labels == {"a": "1", "b": "2"}


@pytest.mark.parametrize("transactional", [False, True])
def test_labels_of_a_call_that_are_too_many_are_left_out(
    kernel: Kernel, transactional: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """All of them, and the call counts; a warning says so once."""

    @kernel.action("work", transactional=transactional)
    def work(call: Call) -> None:
        call.label(**{f"l{n}": n for n in range(8)})

    add(kernel, {"id": "a", "action": "work"}, labels=LABELS)
    execution = kernel.run("flow", {"customer": "ann"})
    assert execution.status is ExecutionStatus.COMPLETED
    assert got(kernel, execution.id).labels == {"customer": "ann", "kind": "order", "number": "7"}
    assert found(kernel, "l1=1") == []
    assert len([each for each in caplog.messages if "labels" in each]) == 1


def test_transactional_calls_beside_each_other_keep_all_labels(kernel: Kernel) -> None:
    """Each was saved in a transaction of its own, which knew nothing of the others'."""

    @kernel.action("work", transactional=True)
    def work(call: Call, name: str) -> None:
        call.label(**{name: 1})

    names = ("a", "b", "c")
    steps = [{"id": f"s{n}", "action": "work", "input": {"name": n}, "needs": []} for n in names]
    add(kernel, *steps)
    one = kernel.run("flow").id
    assert got(kernel, one).labels == dict.fromkeys(names, "1")
    assert found(kernel, *[f"{name}=1" for name in names]) == [one]


def test_a_workflow_in_code_labels_its_execution(kernel: Kernel) -> None:
    """Before its next step begins; a replay changes nothing."""
    seen: list[Any] = []

    def look(call: Call) -> None:
        seen.append(got(kernel, call.execution_id or "").labels)

    @kernel.workflow
    async def flow(ctx: WorkflowContext, payload: Any) -> None:
        ctx.label(order=payload, state="new")
        await ctx.step(look)
        ctx.label(state="looked")
        await ctx.sleep(0.01)
        ctx.label(state="done")

    one = kernel.start(flow, 4711)
    kernel.run_until_idle(patience=5)
    execution = got(kernel, one)
    assert execution.status is ExecutionStatus.COMPLETED
    assert seen == [{"order": "4711", "state": "new"}]
    assert execution.labels == {"order": "4711", "state": "done"}
    assert found(kernel, "state=done", "order=4711") == [one]
    assert found(kernel, "state=looked") == []


def test_too_many_labels_are_an_error(kernel: Kernel) -> None:
    @kernel.workflow
    async def flow(ctx: WorkflowContext, payload: Any) -> str:
        ctx.label(**{f"l{n}": n for n in range(10)})
        try:
            ctx.label(one_more=1)
        except PayloadError as error:
            return str(error)
        return ""

    execution = kernel.run(flow)
    assert "11 labels of at most 10" in execution.output
    assert len(got(kernel, execution.id).labels) == 10
