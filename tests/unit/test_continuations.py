"""Continue-as-new, on a kernel: chains of executions, their parents, and what operators can do."""

from __future__ import annotations

from typing import Any

import pytest
from defined import see
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes, WorkflowError
from automate_kernel.workflows import loads
from automate_kernel.workflows.code import SyncWorkflowContext, WorkflowContext
from automate_kernel.workflows.definition.graph import to_text
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.execution import Execution, ExecutionStatus

COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
CANCELLED = ExecutionStatus.CANCELLED


def define(*steps: dict[str, Any], name: str = "pages", **more: Any) -> Workflow:
    definition = {"name": name, "trigger": {"type": "manual"}, "steps": [*steps], **more}
    return Workflow.model_validate(definition)


READ = {"id": "read", "action": "read", "input": {"page": "{{ event.payload.page }}"}}
NEXT = {
    "id": "next",
    "if": "{{ event.payload.page < event.payload.last }}",
    "continue_as_new": {
        "page": "{{ event.payload.page + 1 }}",
        "last": "{{ event.payload.last }}",
    },
}
OUTPUT = "{{ steps.read.output }}"


class Book:
    """A kernel that reads pages, one execution each."""

    def __init__(self) -> None:
        self.kernel = Kernel(discover=False, secrets={})
        self.read: list[int] = []
        self.broken: set[int] = set()
        self.kernel.action("read")(self.page)

    def page(self, page: int) -> str:
        if page in self.broken:
            raise AutomateError(ErrorCodes.FAILED_PRECONDITION, f"page {page} is torn")
        self.read.append(page)
        return f"page {page}"

    def see(self, execution_id: str) -> Execution:
        return see(self.kernel, execution_id)

    def chain(self, execution_id: str | None) -> list[Execution]:
        found = []
        while execution_id is not None:
            found.append(self.see(execution_id))
            execution_id = found[-1].successor_id
        return found


@pytest.fixture
def book() -> Book:
    return Book()


def start(book: Book, last: int, **options: Any) -> str:
    return book.kernel.start("pages", {"page": 1, "last": last}, **options)


def test_each_execution_of_a_chain_follows_the_one_before(book: Book) -> None:
    book.kernel.add_workflow(define(READ, NEXT, output=OUTPUT))
    first = start(book, 3, labels={"order": "7"}, tenant_id="acme")
    book.kernel.run_until_idle()
    chain = book.chain(first)
    assert book.read == [1, 2, 3]
    assert [one.output for one in chain] == ["page 1", "page 2", "page 3"]
    assert [one.status for one in chain] == [COMPLETED] * 3
    assert [one.predecessor_id for one in chain] == [None, chain[0].id, chain[1].id]
    assert [one.chain_id for one in chain] == [None, first, first]
    assert {one.tenant_id for one in chain} == {"acme"}
    assert len(book.kernel.executions.labelled("order=7")) == 3
    assert chain[2].event.payload == {"page": 3, "last": 3}
    step = chain[0].step("next")
    assert step is not None and step.output["execution_id"] == chain[1].id
    last = chain[2].step("next")
    assert last is not None and last.status == "SKIPPED"


def test_priority_and_concurrency_key_go_along(book: Book) -> None:
    book.kernel.add_workflow(
        define(READ, NEXT, concurrency={"limit": 1, "key": "{{ event.payload.last }}"})
    )
    first = start(book, 2, priority=5)
    book.kernel.run_until_idle()
    items = [book.kernel.outbox.get(one.item_id or "") for one in book.chain(first)]
    assert len(items) == 2
    keys = {(item.priority, item.concurrency_key, item.concurrency_limit) for item in items if item}
    assert len(keys) == 1 and keys.pop()[0] == 5


def test_a_failure_beside_it_or_under_finally_lets_nothing_follow(book: Book) -> None:
    book.broken = {1}
    beside = {**READ, "needs": []}
    book.kernel.add_workflow(define({**NEXT, "needs": []}, beside))
    failed = book.see(start(book, 2))
    book.kernel.run_until_idle()
    failed = book.see(failed.id)
    assert failed.status is FAILED and failed.successor_id is None
    step = failed.step("next")
    assert step is not None and step.status == "COMPLETED"
    book.broken.clear()
    assert book.kernel.executions.resume(failed.id)
    book.kernel.run_until_idle()
    chain = book.chain(failed.id)
    step = chain[0].step("next")
    assert len(chain) == 2 and step is not None
    assert step.output["execution_id"] == chain[1].id


def test_what_cleans_up_runs_before_the_next_one_begins(book: Book) -> None:
    last = {"id": "close", "action": "read", "input": {"page": "{{ event.payload.page * 10 }}"}}
    book.kernel.add_workflow(define(READ, NEXT, **{"finally": [last]}))
    start(book, 2)
    book.kernel.run_until_idle()
    assert book.read == [1, 10, 2, 20]


def test_one_of_several_cases_may_continue(book: Book) -> None:
    book.kernel.add_workflow(
        define(
            READ,
            {
                "id": "more",
                "switch": "{{ event.payload.page < event.payload.last }}",
                "cases": {"true": [{key: NEXT[key] for key in ("id", "continue_as_new")}]},
                "default": [{"id": "end", "action": "read", "input": {"page": 0}}],
            },
        )
    )
    first = start(book, 2)
    book.kernel.run_until_idle()
    assert book.read == [1, 2, 0] and len(book.chain(first)) == 2


def test_two_that_continue_fail(book: Book) -> None:
    other = {**NEXT, "id": "other", "needs": ["read"]}
    book.kernel.add_workflow(define(READ, NEXT, other))
    execution = book.see(start(book, 2))
    book.kernel.run_until_idle()
    assert "step 'next' continues the execution already" in str(book.see(execution.id).error)


# -- parents ---------------------------------------------------------------------------------------


PARENT = {
    "id": "all",
    "workflow": "pages",
    "input": {"page": 1, "last": "{{ event.payload.last }}"},
}


def test_a_failure_at_the_end_of_the_chain_comes_up(book: Book) -> None:
    book.kernel.add_workflow(define(READ, NEXT))
    book.kernel.add_workflow(define(PARENT, name="parent"))
    book.broken = {3}
    execution = book.see(book.kernel.start("parent", {"last": 4}))
    book.kernel.run_until_idle()
    assert "page 3 is torn" in str(book.see(execution.id).error)


def test_the_first_of_a_chain_leads_to_it_though_it_is_purged(book: Book) -> None:
    """Who has started it knows no other id, and it goes on for years."""
    wait = {"id": "wait", "wait_for": {"signal": "on"}}
    book.kernel.add_workflow(define(READ, wait, NEXT))
    first = book.kernel.start("pages", {"page": 1, "last": 9}, tenant_id="acme")
    book.kernel.run_until_idle()
    for _ in range(2):
        book.kernel.signal(first, "on", tenant_id="acme")
        book.kernel.run_until_idle()
        book.kernel.executions.purge(older_than_seconds=0.0)
    assert book.read == [1, 2, 3]
    assert book.kernel.executions.get(first) is None
    assert not book.kernel.executions.cancel(first, tenant_id="other")
    with pytest.raises(AutomateError, match="there is no execution"):
        book.kernel.signal(first, "on", tenant_id="other")
    (last,) = book.kernel.executions.find(workflow="pages")
    assert book.kernel.executions.cancel(first)
    assert book.see(last.id).status is CANCELLED
    assert not book.kernel.executions.cancel(first)


def test_links_of_a_chain_are_purged_while_the_parent_waits(book: Book) -> None:
    """The first of them too: the parent finds the last one without it."""
    wait = {"id": "wait", "wait_for": {"signal": "go"}, "if": NEXT["if"]}
    book.kernel.add_workflow(define(READ, wait, {**NEXT, "needs": ["wait"]}, output=OUTPUT))
    book.kernel.add_workflow(define(PARENT, name="parent", output="{{ steps.all.output }}"))
    execution = book.see(book.kernel.start("parent", {"last": 3}))
    book.kernel.run_until_idle()
    child = next(one for one in book.kernel.executions.find() if one.parent_id == execution.id)
    live = child
    for _ in range(2):
        book.kernel.signal(live.id, "go")
        book.kernel.run_until_idle()
        live = book.chain(live.id)[-1]
        if live.status is COMPLETED:
            break
        book.kernel.executions.purge(older_than_seconds=0)
        assert book.kernel.executions.get(child.id) is None
    assert book.see(execution.id).output == "page 3"


# -- operators -------------------------------------------------------------------------------------


WAIT = {"id": "wait", "wait_for": {"signal": "go"}}


def _waiting(book: Book, links: int) -> tuple[str, Execution]:
    """Return the first of a chain, and the one that goes on, which waits."""
    wait = {**WAIT, "if": "{{ event.payload.page > " + str(links) + " }}"}
    book.kernel.add_workflow(define(READ, wait, {**NEXT, "needs": ["wait"]}))
    first = start(book, 99)
    book.kernel.run_until_idle()
    return first, book.chain(first)[-1]


def test_a_cancelled_chain_ends(book: Book) -> None:
    """Whichever of its executions is named; of another tenant it isn't there."""
    first, live = _waiting(book, 2)
    assert live.status is ExecutionStatus.RUNNING
    assert not book.kernel.executions.cancel(first, tenant_id="other")
    assert book.kernel.executions.cancel(first)
    assert book.see(live.id).status is CANCELLED
    assert not book.kernel.executions.cancel(first)
    assert book.see(first).status is COMPLETED


def test_a_cancelled_parent_cancels_the_chain(book: Book) -> None:
    wait = {**WAIT, "if": "{{ event.payload.page > 2 }}"}
    book.kernel.add_workflow(define(READ, wait, {**NEXT, "needs": ["wait"]}))
    book.kernel.add_workflow(define(PARENT, name="parent"))
    parent = book.kernel.start("parent", {"last": 99})
    book.kernel.run_until_idle()
    (live,) = book.kernel.executions.find(status="RUNNING", workflow="pages")
    assert book.kernel.executions.cancel(parent)
    book.kernel.run_until_idle()
    assert book.see(live.id).status is CANCELLED


def test_a_step_whose_time_is_over_cancels_the_chain_that_it_waits_for(book: Book) -> None:
    wait = {**WAIT, "if": "{{ event.payload.page > 2 }}"}
    book.kernel.add_workflow(define(READ, wait, {**NEXT, "needs": ["wait"]}))
    book.kernel.add_workflow(define({**PARENT, "timeout": "50ms"}, name="parent"))
    parent = book.kernel.start("parent", {"last": 99})
    book.kernel.run_until_idle(patience=5)
    assert book.see(parent).status is FAILED
    assert [one.status for one in book.kernel.executions.find(workflow="pages")][0] is CANCELLED


def test_what_was_continued_is_not_resumed(book: Book) -> None:
    first, live = _waiting(book, 1)
    with pytest.raises(AutomateError, match="was continued as"):
        book.kernel.executions.resume(first, step_id="read")
    copied = book.kernel.executions.fork(first, "read")
    book.kernel.run_until_idle()
    fork = book.see(copied)
    assert fork.chain_id is None and fork.successor_id not in (None, live.id)


def test_a_signal_to_a_chain_reaches_the_execution_that_goes_on(book: Book) -> None:
    first, live = _waiting(book, 2)
    with pytest.raises(AutomateError, match="there is no execution"):
        book.kernel.signal(first, "go", tenant_id="other")
    book.kernel.signal(first, "go")
    book.kernel.run_until_idle()
    assert book.see(live.id).successor_id is not None
    (live,) = book.kernel.executions.find(status="RUNNING")
    assert book.kernel.executions.cancel(live.id)
    with pytest.raises(AutomateError, match="has ended: it is COMPLETED"):
        book.kernel.signal(first, "go")


@pytest.mark.parametrize("coded", [False, True])
def test_no_signal_to_a_chain_is_lost_or_taken_twice(book: Book, coded: bool) -> None:
    """Neither one that came before the next execution began, nor one that is on its way then."""
    if coded:

        @book.kernel.workflow(name="pages")
        async def pages(ctx: WorkflowContext, given: dict[str, int]) -> None:
            for _ in range(2):
                signal = await ctx.wait_for(signal="go")
                await ctx.step(book.page, signal.payload)
            ctx.continue_as_new({"page": given["page"] + 1})
    else:
        take = {"id": "take", "wait_for": {"signal": "go"}}
        page = {"page": "{{ steps.take.output.payload }}"}
        read = {"id": "read", "action": "read", "input": page}
        rounds = {"id": "rounds", "until": "{{ index == 1 }}", "steps": [take, read]}
        again = {"page": "{{ event.payload.page + 1 }}"}
        book.kernel.add_workflow(define(rounds, {"id": "next", "continue_as_new": again}))
    first = start(book, 1)
    for number in range(3):
        book.kernel.signal(first, "go", number)
    book.kernel.run_until_idle()
    book.kernel.signal(first, "go", 3, idempotency_key="three")
    book.kernel.run_until_idle()
    for number in range(4, 9):
        book.kernel.signal(first, "go", number)
    book.kernel.signal(first, "go", 3, idempotency_key="three")
    book.kernel.run_until_idle()
    assert book.read == list(range(9))
    assert len(book.chain(first)) == 5


# -- definitions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        (
            "steps: [{id: a, continue_as_new: {}}, {id: b, action: x.y}]",
            "the execution ends with it, and 'b' comes after it (move 'b' in front of it",
        ),
        (
            "steps: [{id: s, steps: [{id: a, continue_as_new: {}}]}, {id: b, action: x.y}]",
            "the execution ends with it, and 'b' comes after it",
        ),
        (
            "steps: [{id: s, for_each: [1], steps: [{id: a, continue_as_new: {}}]}]",
            "this is inside a for_each or a loop (move it behind that block)",
        ),
        (
            "steps: [{id: s, until: true, steps: [{id: a, continue_as_new: {}}]}]",
            "this is inside a for_each or a loop",
        ),
        (
            "steps: [{id: b, action: x.y}]\nfinally: [{id: a, continue_as_new: {}}]",
            "only a step under steps continues",
        ),
        ("steps: [{id: a, continue_as_new: {}, until: true}]", "an execution is continued once"),
        ("steps: [{id: a, continue_as_new: 7}]", "the input must be a mapping"),
        (
            "steps: [{id: a, continue_as_new: {v: '{{ steps.b.output }}'}}]",
            "names the step 'b', which does not exist",
        ),
    ],
)
def test_a_misplaced_step_is_explained(steps: str, problem: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        loads(f"name: w\ntrigger: {{type: manual}}\n{steps}", source="w")
    assert problem in str(caught.value)


def test_pictures_and_dry_runs_show_it(book: Book) -> None:
    workflow = define(READ, NEXT)
    assert "next  [continue as new; if]" in to_text(workflow)
    book.kernel.add_workflow(workflow)
    dry = book.kernel.dry_run("pages", {"page": 1, "last": 2}).step("next")
    assert dry is not None and dry.problem is None
    assert dry.waits_for == {"continue_as_new": {"page": 2, "last": 2}}


# -- in code ---------------------------------------------------------------------------------------


def test_a_workflow_in_code_continues(book: Book) -> None:
    undone: list[int] = []

    def undo(page: int) -> None:
        undone.append(page)

    @book.kernel.workflow(name="coded")
    async def coded(ctx: WorkflowContext, page: int) -> str:
        with ctx.compensate(undo, page):
            await ctx.step(book.page, page)
            if page < 4:
                ctx.continue_as_new(page + 1)
        return f"read up to {page}"

    book.kernel.add_workflow(
        define({"id": "all", "workflow": "coded", "input": "{{ event.payload }}"}, name="parent",
               output="{{ steps.all.output }}")
    )  # fmt: skip
    execution = book.kernel.run("parent", 1)
    assert execution.output == "read up to 4", execution
    assert book.read == [1, 2, 3, 4] and undone == []
    chain = book.kernel.executions.find(workflow="coded")
    assert [len(one.steps) for one in chain] == [1] * 4


def test_a_plain_workflow_in_code_continues(book: Book) -> None:
    @book.kernel.workflow(name="plain")
    def plain(ctx: SyncWorkflowContext, page: int) -> int:
        ctx.step(book.page, page)
        if page < 3:
            ctx.continue_as_new(page + 1)
        return page

    first = book.kernel.start("plain", 1)
    book.kernel.run_until_idle()
    assert [one.output for one in book.chain(first)] == [None, None, 3]


def test_a_parent_waits_for_the_end_of_the_chain(book: Book) -> None:
    book.kernel.add_workflow(define(READ, NEXT, output=OUTPUT))
    book.kernel.add_workflow(define(PARENT, name="parent", output="{{ steps.all.output }}"))
    execution = book.see(book.kernel.start("parent", {"last": 4}))
    book.kernel.run_until_idle()
    assert book.see(execution.id).output == "page 4"
    assert book.read == [1, 2, 3, 4]
    children = [one for one in book.kernel.executions.find() if one.parent_id == execution.id]
    assert len(children) == 4
