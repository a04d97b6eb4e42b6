"""Workflows in code, through a kernel: what their authors see."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pytest
from waiting import PATIENCE
from logged import logged
from workers import working
from automate_kernel import (
    Automation,
    AutomateError,
    ErrorCodes,
    Execution,
    Kernel,
    StepFailedError,
    SyncWorkflowContext,
    WorkflowContext,
    WorkflowError,
    WorkflowInterruptedError,
    current_call,
)
from automate_cli.session import set_up
from automate_kernel.workflows import EventTrigger, ManualTrigger, RetryPolicy, Step, Workflow
from automate_kernel.workflows.definition.graph import to_mermaid, to_svg, to_text
from automate_kernel.workflows.decide.program import step_input
from automate_kernel.workflows.decide.record import CallPlace
from automate_kernel.workflows.execution import ExecutionStatus
from pydantic import BaseModel
from defined import define

FAST = RetryPolicy(attempts=3, backoff="fixed", delay=0.01, jitter=False)


class Order(BaseModel):
    """An order, as the host has it."""

    id: int
    lines: list[str] = []
    due: date | None = None


@dataclasses.dataclass
class Reserved:
    """What a step returns."""

    lines: tuple[str, ...]
    price: Decimal


calls: list[Any] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


def reserve(lines: list[str], price: Decimal = Decimal("1.50")) -> Reserved:
    calls.append(("reserve", lines))
    return Reserved(tuple(lines), price)


async def send(order: Order, reserved: Reserved) -> str:
    calls.append(("send", order, reserved))
    return f"order {order.id}: {len(reserved.lines)} lines"


def refuse(order: Order) -> str:
    calls.append(("refuse", order.id))
    raise AutomateError(ErrorCodes.INVALID_ARGUMENT, f"no order {order.id}")


def release(reserved: Reserved) -> None:
    calls.append(("release", reserved.lines))


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(discover=False, secrets={"TOKEN": "s3cret-value"}) as made:
        yield made


def stored(kernel: Kernel, execution: Execution) -> Execution:
    found = kernel.executions.get(execution.id)
    assert found is not None
    return found


def statuses(kernel: Kernel, execution: Execution) -> dict[str, str]:
    return {run.step_id: run.status.value for run in stored(kernel, execution).steps}


# -- steps and types -------------------------------------------------------------------------------


def test_values_keep_their_types_through_the_record(kernel: Kernel) -> None:
    """A step's argument and result are what their annotations say, though JSON is stored."""

    @kernel.workflow(on="order.created")
    async def fulfil(ctx: WorkflowContext, order: Order) -> str:
        assert order.due == date(2026, 5, 4)
        reserved = await ctx.step(reserve, order.lines)
        assert reserved == Reserved(("a", "b"), Decimal("1.50"))
        return await ctx.step(send, order, reserved)

    kernel.emit("order.created", {"id": 7, "lines": ["a", "b"], "due": "2026-05-04"})
    kernel.run_until_idle()
    (execution,) = kernel.executions.find()
    assert execution.status is ExecutionStatus.COMPLETED, execution.error
    assert execution.output == "order 7: 2 lines"
    assert [run.output for run in execution.steps] == [
        {"lines": ["a", "b"], "price": "1.50"},
        "order 7: 2 lines",
    ]
    assert calls[1] == (
        "send",
        Order(id=7, lines=["a", "b"], due=date(2026, 5, 4)),
        Reserved(("a", "b"), Decimal("1.50")),
    )


def test_a_function_that_changes_what_it_got_changes_no_record(kernel: Kernel) -> None:
    def lines() -> dict[str, Any]:
        return {"lines": "a"}

    @kernel.workflow
    async def lists(ctx: WorkflowContext) -> dict[str, Any]:
        return {"lines": "a"}

    @kernel.workflow
    async def changing(ctx: WorkflowContext) -> None:
        seen: list[Any] = []
        calls.append(seen)

        def change(got: Any) -> None:
            seen.append(repr(got))
            got["more"] = 1

        change(await ctx.step(lines))
        change(await ctx.child(lists))
        answer = await ctx.approve("Go on?", form=[{"name": "lines", "type": "text"}])
        change(answer.form)
        change((await ctx.wait_for(signal="go")).payload)
        await ctx.sleep(0.001)

    execution_id = kernel.start(changing)
    kernel.run_until_idle(patience=5)
    kernel.approvals.approve(execution_id, "approve", by="ann", form={"lines": "a"})
    kernel.run_until_idle(patience=5)
    kernel.signal(execution_id, "go", {"lines": "a"})
    kernel.run_until_idle(patience=5)

    assert len(calls) > 3
    assert calls[-1] == ["{'lines': 'a'}"] * 4
    assert all(seen == calls[-1][: len(seen)] for seen in calls)
    execution = kernel.executions.get(execution_id)
    assert execution is not None and execution.status is ExecutionStatus.COMPLETED
    assert "more" not in str([run.output for run in execution.steps])


def test_a_function_starts_by_itself(kernel: Kernel) -> None:
    """`start` and `run` take the function, and its argument as it is."""

    @kernel.workflow
    async def greet(ctx: WorkflowContext, order: Order) -> int:
        return order.id

    assert kernel.run(greet, Order(id=3)).output == 3
    execution_id = kernel.start(greet, Order(id=4), labels={"order": 4})
    kernel.run_until_idle()
    found = kernel.executions.get(execution_id)
    assert found is not None and found.output == 4
    with pytest.raises(AutomateError, match="is no workflow of this kernel") as caught:
        kernel.run(reserve, [])
    assert caught.value.code is ErrorCodes.NOT_FOUND


def test_a_payload_that_does_not_fit_fails_the_execution(kernel: Kernel) -> None:
    """The error names the field, and shows no value."""

    @kernel.workflow
    async def greet(ctx: WorkflowContext, order: Order) -> int:
        return order.id

    execution = kernel.run("greet", {"id": "s3cret"})
    assert execution.status is ExecutionStatus.FAILED
    assert execution.error_code == "INVALID_ARGUMENT"
    assert "payload of workflow 'greet'" in str(execution.error)
    assert "id" in str(execution.error) and "s3cret" not in str(execution.error)


def test_a_workflow_may_ignore_its_payload_or_have_a_default(kernel: Kernel) -> None:
    @kernel.workflow
    async def alone(ctx: WorkflowContext) -> str:
        return ctx.event.name

    @kernel.workflow
    def defaulted(ctx: SyncWorkflowContext, count: int = 5) -> int:
        return count

    assert kernel.run(alone, {"any": "thing"}).output == "alone"
    assert kernel.run(defaulted).output == 5
    assert kernel.run(defaulted, 6).output == 6


def test_a_result_that_its_annotation_refuses_is_an_error_in_the_workflow(kernel: Kernel) -> None:
    def lie() -> int:
        return "text"  # type: ignore[return-value]

    @kernel.workflow
    async def trust(ctx: WorkflowContext) -> int:
        return await ctx.step(lie)

    execution = kernel.run(trust)
    assert "the result of lie() is not valid" in str(execution.error)


def test_keywords_go_into_a_partial_and_methods_are_functions(kernel: Kernel) -> None:
    class Shop:
        def price(self, line: str, factor: int = 1) -> str:
            return line * factor

    @kernel.workflow
    async def priced(ctx: WorkflowContext) -> list[str]:
        shop = Shop()
        return [
            await ctx.step(partial(shop.price, factor=2), "a"),
            await ctx.step(shop.price, "b", 3),
        ]

    execution = kernel.run(priced)
    assert execution.output == ["aa", "bbb"]
    assert [run.step_id for run in execution.steps] == ["price", "price#2"]


def test_arguments_that_do_not_fit_name_the_function(kernel: Kernel) -> None:
    @kernel.workflow
    async def wrong(ctx: WorkflowContext) -> None:
        await ctx.step(reserve)  # type: ignore[call-arg, arg-type]

    execution = kernel.run(wrong)
    assert "reserve() can't be called so: missing a required argument: 'lines'" in str(
        execution.error
    )
    assert calls == []


def test_actions_are_called_by_function_and_by_name(kernel: Kernel) -> None:
    """A function that is an action keeps its name there, so that tests can replace it."""
    seen: list[str] = []

    @kernel.action("shop.double")
    def double(n: int) -> int:
        call = current_call()
        assert call is not None
        seen.append(f"{call.operation} {call.step_id} {call.attempt}")
        return n * 2

    @kernel.workflow
    async def both(ctx: WorkflowContext) -> list[int]:
        return [await ctx.step(double, 2), await ctx.call("shop.double", n=3, step_name="again")]

    assert kernel.run(both).output == [4, 6]
    assert seen == ["shop.double double 1", "shop.double again 1"]


def test_an_unknown_action_fails_the_step(kernel: Kernel) -> None:
    @kernel.workflow
    async def lost(ctx: WorkflowContext) -> None:
        await ctx.call("shop.doubel", n=1)

    assert "there is no action 'shop.doubel'" in str(kernel.run(lost).error)


def test_a_secret_reaches_the_step_and_nothing_else(kernel: Kernel) -> None:
    seen: list[str] = []

    def call_service(token: str, headers: dict[str, str]) -> str:
        seen.append(token + headers["auth"])
        return f"used {token}"

    @kernel.workflow
    async def secretive(ctx: WorkflowContext) -> str:
        token = ctx.secret("TOKEN")
        assert "s3cret" not in str(token)
        return await ctx.step(call_service, token, {"auth": token})

    execution = kernel.run(secretive)
    assert seen == ["s3cret-value" * 2]
    assert execution.status is ExecutionStatus.COMPLETED, execution.error
    assert "s3cret" not in str(execution.output) and "used" in execution.output
    assert "s3cret" not in str(stored(kernel, execution))


def test_retries_and_timeouts_are_those_of_a_step(kernel: Kernel) -> None:
    attempts: list[int] = []

    def shaky() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "away")
        return "there"

    async def slow() -> None:
        await asyncio.sleep(60)

    @kernel.workflow
    async def patient(ctx: WorkflowContext) -> str:
        found = await ctx.step(shaky, retry=FAST)
        try:
            await ctx.step(slow, timeout=0.05)
        except StepFailedError as error:
            assert error.code is ErrorCodes.DEADLINE_EXCEEDED
            assert error.step_id == "slow"
            return found
        return "no timeout"

    execution = kernel.run(patient)
    assert execution.output == "there", execution.error
    assert [(run.step_id, run.attempts) for run in stored(kernel, execution).steps] == [
        ("shaky", 3),
        ("slow", 1),
    ]


def test_options_that_mean_nothing_are_refused_before_the_call(kernel: Kernel) -> None:
    @kernel.workflow
    async def odd(ctx: WorkflowContext, option: str) -> None:
        if option == "timeout":
            await ctx.step(reserve, [], timeout="soon")
        elif option == "name":
            await ctx.step(reserve, [], name="two words")
        elif option == "function":
            await ctx.step("reserve", [])  # type: ignore[arg-type]
        else:
            await ctx.step(reserve, [], retry=0)

    for option in ("timeout", "name", "function", "retry"):
        execution = kernel.run(odd, option)
        assert execution.status is ExecutionStatus.FAILED, option
        assert execution.steps == [] and calls == []


def test_a_failed_step_fails_the_workflow_as_in_a_file(kernel: Kernel) -> None:
    kernel.action("refuse")(refuse)
    define(
        kernel, {"id": "refuse", "action": "refuse", "input": "{{ event.payload }}"}, name="in-file"
    )

    @kernel.workflow(name="in-code")
    async def in_code(ctx: WorkflowContext, order: Order) -> str:
        return await ctx.step(refuse, order)

    one, other = kernel.run("in-file", {"id": 1}), kernel.run("in-code", {"id": 1})
    assert one.error == other.error == "step 'refuse' failed: no order 1"
    assert one.error_code == other.error_code == "INVALID_ARGUMENT"
    assert one.error_group == other.error_group


# -- side by side ----------------------------------------------------------------------------------


def test_gathered_steps_run_at_the_same_time(kernel: Kernel) -> None:
    meeting = threading.Barrier(3, timeout=20)

    def meet(n: int) -> int:
        meeting.wait()
        return n

    async def twice(ctx: WorkflowContext, n: int) -> int:
        return await ctx.step(meet, n) + await ctx.step(plus, n)

    def plus(n: int) -> int:
        return n + 1

    @kernel.workflow
    async def together(ctx: WorkflowContext) -> list[int]:
        return list(await ctx.gather(ctx.step(meet, 1), ctx.step(meet, 2), twice(ctx, 3)))

    execution = kernel.run(together)
    assert execution.output == [1, 2, 7]
    assert {run.step_id: run.place and run.place.split()[-1] for run in execution.steps} == {
        "meet": "1.1)", "meet#2": "1.2)", "meet@1.3": "1.3.1)", "plus@1.3": "1.3.2)",
    }  # fmt: skip


def test_gather_waits_for_all_and_raises_the_first_in_the_list(kernel: Kernel) -> None:
    @kernel.workflow
    async def together(ctx: WorkflowContext) -> str:
        try:
            await ctx.gather(
                ctx.step(reserve, ["a"]),
                ctx.step(refuse, Order(id=2)),
                ctx.step(refuse, Order(id=1)),
            )
        except StepFailedError as error:
            return error.message
        return ""

    assert kernel.run(together).output == "no order 2"
    assert len(calls) == 3


@pytest.mark.parametrize("wrong", [5, "text"])
def test_gather_refuses_what_can_not_be_awaited(kernel: Kernel, wrong: Any) -> None:
    @kernel.workflow
    async def together(ctx: WorkflowContext) -> None:
        await ctx.gather(wrong)

    assert "ctx.gather can't await" in str(kernel.run(together).error)


def test_nothing_gathered_is_nothing(kernel: Kernel) -> None:
    @kernel.workflow
    async def empty(ctx: WorkflowContext) -> list[Any]:
        return list(await ctx.gather())

    assert kernel.run(empty).output == []


# -- what can't be awaited -------------------------------------------------------------------------


def test_a_step_that_is_not_awaited_is_an_error(kernel: Kernel) -> None:
    """Without it the step would be missing in silence."""

    @kernel.workflow
    async def forgetful(ctx: WorkflowContext) -> None:
        ctx.step(reserve, [])

    execution = kernel.run(forgetful)
    assert execution.status is ExecutionStatus.FAILED
    assert "without the step 'reserve'" in str(execution.error)
    assert "await" in str(execution.error) and "test_code_workflows.py:" in str(execution.error)


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_other_awaitables_are_an_error_that_says_what_to_do(kernel: Kernel, seconds: float) -> None:
    @kernel.workflow
    async def sleepy(ctx: WorkflowContext) -> None:
        await asyncio.sleep(seconds)

    execution = kernel.run(sleepy)
    assert "a workflow awaits nothing but its context's calls" in str(execution.error)
    assert "ctx.step" in str(execution.error)


def test_a_context_is_useless_outside_of_its_workflow(kernel: Kernel) -> None:
    kept: list[WorkflowContext] = []

    @kernel.workflow
    async def leaking(ctx: WorkflowContext) -> None:
        kept.append(ctx)

    kernel.run(leaking)
    with pytest.raises(AutomateError, match="outside of it"):
        kept[0].now()


# -- undoing ---------------------------------------------------------------------------------------


def test_blocks_are_undone_in_reverse_order_by_an_error(kernel: Kernel) -> None:
    @kernel.workflow
    async def saga(ctx: WorkflowContext, order: Order) -> str:
        first = await ctx.step(reserve, ["a"])
        with ctx.compensate(release, first):
            second = await ctx.step(reserve, ["b"])
            with ctx.compensate(release, second, name="release_b"):
                return await ctx.step(refuse, order)

    execution = kernel.run(saga, Order(id=9))
    assert execution.status is ExecutionStatus.FAILED
    assert execution.error == "step 'refuse' failed: no order 9"
    assert calls[-2:] == [("release", ("b",)), ("release", ("a",))]
    places = [CallPlace.read(run.place) for run in execution.steps]
    assert [place and place.undoes for place in places] == [False, False, False, True, True]


def test_nothing_is_undone_after_success(kernel: Kernel) -> None:
    @kernel.workflow
    def saga(ctx: SyncWorkflowContext) -> None:
        with ctx.compensate(release, ctx.step(reserve, ["a"])):
            ctx.step(reserve, ["b"])

    assert kernel.run(saga).status is ExecutionStatus.COMPLETED
    assert [name for name, _ in calls] == ["reserve", "reserve"]


def test_what_is_undone_comes_before_the_next_step(kernel: Kernel) -> None:
    """An error that is caught has been undone by the time that the workflow goes on."""

    @kernel.workflow
    async def saga(ctx: WorkflowContext) -> str:
        reserved = await ctx.step(reserve, ["a"])
        try:
            with ctx.compensate(release, reserved):
                await ctx.step(refuse, Order(id=1))
        except StepFailedError:
            await ctx.step(reserve, ["b"])
        return "done"

    assert kernel.run(saga).output == "done"
    assert [name for name, _ in calls] == ["reserve", "refuse", "release", "reserve"]


def test_one_that_can_not_be_undone_holds_up_no_other_and_is_named(kernel: Kernel) -> None:
    @kernel.workflow
    async def saga(ctx: WorkflowContext) -> None:
        reserved = await ctx.step(reserve, ["a"])
        with (
            ctx.compensate(release, reserved),
            ctx.compensate(refuse, Order(id=5), name="unrefuse", retry=FAST),
        ):
            await ctx.step(refuse, Order(id=1))

    execution = kernel.run(saga)
    assert [name for name, _ in calls] == ["reserve", "refuse", "refuse", "release"]
    assert execution.error == (
        "step 'refuse' failed: no order 1; not undone: 'unrefuse' (no order 5)"
    )


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
def test_a_workflow_whose_time_is_over_is_interrupted_and_undone(
    kernel: Kernel, plain: bool
) -> None:
    """The interruption can't be held up by ``except Exception``; what undoes has its time."""

    begun: list[bool] = []

    async def forever() -> None:
        begun.append(True)
        await asyncio.sleep(60)

    seen: list[str] = []

    async def slow(ctx: WorkflowContext) -> None:
        with ctx.compensate(release, Reserved(("a",), Decimal(1))):
            try:
                await ctx.step(forever, retry=FAST)
            except StepFailedError:
                await ctx.step(reserve, ["never"])
            except WorkflowInterruptedError as error:
                seen.append(str(error))
                raise

    def slow_plainly(ctx: SyncWorkflowContext) -> None:
        with ctx.compensate(release, Reserved(("a",), Decimal(1))):
            try:
                ctx.step(forever, retry=FAST)
            except StepFailedError:
                ctx.step(reserve, ["never"])
            except WorkflowInterruptedError as error:
                seen.append(str(error))
                raise

    workflow: Callable[..., Any] = slow_plainly if plain else slow
    kernel.workflow(timeout="100ms", name="slow")(workflow)
    # On a busy machine the time may be over before the step begins, which shows nothing.
    while not begun:
        seen.clear()
        calls.clear()
        execution = kernel.run("slow")
    assert execution.status is ExecutionStatus.FAILED
    assert execution.error_code == "DEADLINE_EXCEEDED"
    assert execution.error == "the workflow took too long"
    assert seen == ["the workflow took too long"]
    assert calls == [("release", ("a",))]
    assert statuses(kernel, execution) == {"forever": "CANCELLED", "release": "COMPLETED"}


# -- facts -----------------------------------------------------------------------------------------


def test_time_chance_and_ids_come_from_the_context(kernel: Kernel) -> None:
    @kernel.workflow
    async def facts(ctx: WorkflowContext) -> list[Any]:
        return [
            ctx.now().isoformat(), ctx.random(), ctx.random(), str(ctx.uuid()), ctx.execution_id,
            ctx.tenant_id,
        ]  # fmt: skip

    execution = kernel.run(facts)
    now, one, other, unique, execution_id, tenant = execution.output
    created = execution.created_at
    assert created is not None and abs((datetime.fromisoformat(now) - created).total_seconds()) < 60
    assert 0 <= one < 1 and 0 <= other < 1 and one != other
    assert len(unique) == 36 and execution_id == execution.id and tenant is None
    assert statuses(kernel, execution) == {"now": "COMPLETED"}


# -- definitions -----------------------------------------------------------------------------------


def test_a_definition_names_its_code(kernel: Kernel) -> None:
    @kernel.workflow(on=["order.created", EventTrigger(event="order.changed")], title="Fulfil")
    async def fulfil(ctx: WorkflowContext) -> None:
        """Send what was ordered.

        And more.
        """

    definition = kernel.workflows["fulfil"]
    assert definition.to_dict() == {
        "name": "fulfil",
        "title": "Fulfil",
        "description": "Send what was ordered.",
        "trigger": [
            {"type": "event", "event": "order.created"},
            {"type": "event", "event": "order.changed"},
        ],
        "code": f"{__name__}:{fulfil.__qualname__}",
    }
    assert Workflow.from_dict(definition.to_dict()) == definition
    assert Workflow.from_dict(definition.to_dict()).hash() == definition.hash()


def test_a_file_can_not_name_code(kernel: Kernel) -> None:
    with pytest.raises(WorkflowError, match="code"):
        kernel.add_workflow({"name": "x", "trigger": {"type": "manual"}, "code": "os:system"})
    with pytest.raises(WorkflowError, match="code"):
        define(kernel, {"id": "a", "action": "b"}, name="x", code="os:system")


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (lambda: None, {}, "takes"),
        (lambda ctx, a, b: None, {}, "takes"),
        (lambda ctx, *a: None, {}, "takes"),
        (lambda ctx: (yield), {}, "generator"),
        (lambda ctx: None, {"name": " x "}, "spaces"),
        (lambda ctx: None, {"on": [5]}, "not as it must be"),
        (lambda ctx: None, {"version": 0}, "not as it must be"),
        (lambda ctx: None, {"timeout": "soon"}, "not as it must be"),
        (lambda ctx: None, {"trigger": "order.created"}, 'write on="order.created"'),
        (lambda ctx: None, {"cron": "0 9 * * *"}, "write on=ScheduleTrigger"),
        (lambda ctx: None, {"concurrency": 1}, "a workflow in YAML has it"),
        (lambda ctx: None, {"titel": "X"}, "did you mean 'title'"),
        ("order.created", {}, "write @kernel.workflow.on='order.created'. above it"),
    ],
)
def test_what_is_no_workflow_is_refused(
    kernel: Kernel, function: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(WorkflowError, match=message):
        kernel.workflow(**{"name": "x", **options})(function)


def test_an_option_that_there_is_not_is_named_where_it_stands() -> None:
    """Not where a kernel takes what a module has collected."""
    with pytest.raises(WorkflowError, match="no option 'trigger'"):
        Automation().workflow(trigger="order.created")


class Row:
    """A row of an ORM: no JSON makes one."""


def by_row(row: Row) -> None:
    raise AssertionError("called")


def of_row() -> list[Row]:
    raise AssertionError("called")


def test_a_type_that_no_json_makes_is_named(kernel: Kernel) -> None:
    """Where it is written, and not by pages of pydantic's; in a step it is no defect of ours."""

    async def payload(ctx: WorkflowContext, row: Row) -> None: ...
    async def result(ctx: WorkflowContext) -> Row: ...

    for function in (payload, result):
        with pytest.raises(
            WorkflowError, match=r"has the type .*\.Row, which is not made from JSON"
        ):
            kernel.workflow(function)
    with pytest.raises(
        AutomateError, match=r"the parameter 'row' of by_row\(\) has the type .*\.Row"
    ):
        kernel.action("rows.by")(by_row)

    @kernel.workflow
    async def giving(ctx: WorkflowContext) -> None:
        await ctx.step(of_row)

    @kernel.workflow
    async def taking(ctx: WorkflowContext) -> None:
        await ctx.step(by_row, Row())

    for function in (giving, taking):
        failed = kernel.run(function)
        assert failed.error_code != "INTERNAL"
        assert "Row, which is not made from JSON (take its id, or a pydantic model" in str(
            failed.error
        )


class Steps(Protocol):
    """What a workflow needs of a context."""

    async def step(self, function: Any, *args: Any) -> Any:
        """Call a function as a step."""


def test_the_first_parameter_is_the_context(kernel: Kernel) -> None:
    """A function whose types say that it takes none is refused; it would fail in its executions."""

    def plain(order: dict[str, Any]) -> Any:
        return order

    async def swapped(order: Order, ctx: WorkflowContext) -> Any:
        return order

    for function in (plain, swapped):
        with pytest.raises(WorkflowError, match="it takes the context, and the event's payload"):
            kernel.workflow(function)

    async def loose(ctx: Steps, order: Order) -> int:
        return order.id

    async def either(ctx: WorkflowContext | None, order: Order) -> int:
        return order.id

    for function in (loose, either):
        assert kernel.run(kernel.workflow(function), Order(id=7)).output == 7


def test_each_sort_of_function_has_its_own_context(kernel: Kernel) -> None:
    """The types of the other one let calls pass that mean something else in it."""

    async def asynchronous(ctx: SyncWorkflowContext) -> Any:
        return ctx.step(reserve, [])

    def plain(ctx: WorkflowContext | None, order: Order) -> Any:
        return ctx and ctx.gather(ctx.step(reserve, order.lines))

    with pytest.raises(WorkflowError, match="is an async def, which gets no SyncWorkflowContext"):
        kernel.workflow(asynchronous)
    with pytest.raises(
        WorkflowError, match="parameter as SyncWorkflowContext, or make it an async"
    ):
        kernel.workflow(plain)

    def both(ctx: WorkflowContext | SyncWorkflowContext) -> str:
        return ctx.execution_id

    execution = kernel.run(kernel.workflow(both))
    assert execution.output == execution.id


def test_two_functions_need_two_names_or_versions(kernel: Kernel) -> None:
    @kernel.workflow(name="fulfil")
    async def one(ctx: WorkflowContext) -> None: ...

    with pytest.raises(WorkflowError, match="two workflows called 'fulfil'"):

        @kernel.workflow(name="fulfil")
        async def two(ctx: WorkflowContext) -> None: ...


def test_executions_go_on_with_the_version_that_they_began_with(kernel: Kernel) -> None:
    @kernel.workflow(name="fulfil", version=1)
    async def fulfil_1(ctx: WorkflowContext) -> str:
        return "old"

    old = kernel.start("fulfil")

    @kernel.workflow(name="fulfil", version=2)
    async def fulfil_2(ctx: WorkflowContext) -> str:
        return "new"

    new = kernel.start("fulfil")
    kernel.run_until_idle()
    found = [kernel.executions.get(each) for each in (old, new)]
    assert [each and each.output for each in found] == ["old", "new"]


def test_the_newest_version_counts_in_whatever_order_they_are_read(kernel: Kernel) -> None:
    @kernel.workflow(name="fulfil", version=2)
    async def fulfil_2(ctx: WorkflowContext) -> str:
        return "new"

    @kernel.workflow(name="fulfil", version=1)
    async def fulfil_1(ctx: WorkflowContext) -> str:
        return "old"

    assert kernel.run("fulfil").output == "new"


# -- pages -----------------------------------------------------------------------------------------


def test_pictures_show_the_steps_that_were_called(kernel: Kernel) -> None:
    @kernel.workflow(on="order.created")
    async def fulfil(ctx: WorkflowContext) -> None:
        await ctx.step(reserve, [])
        await ctx.gather(ctx.step(reserve, ["a"]))

    definition = kernel.workflows["fulfil"]
    assert "event order.created" in to_text(definition) and "fulfil" in to_text(definition)
    execution = kernel.run("fulfil")
    states = {run.step_id: run.status for run in execution.steps}
    assert to_text(definition, states).splitlines()[1:] == ["  ✓ reserve", "  ✓ reserve#2"]
    assert "s0 --> s1" in to_mermaid(definition, states)
    assert "reserve#2" in to_svg(definition, states)
    program = kernel.workflows.program(definition.hash())
    with pytest.raises(AutomateError, match="follow from its code"):
        step_input(program, execution, "reserve")


# -- in a worker -----------------------------------------------------------------------------------


def over(kernel: Kernel, execution_id: str) -> bool:
    found = kernel.executions.get(execution_id)
    return found is not None and found.status.finished


def until_over(kernel: Kernel, ids: list[str]) -> None:
    tick = threading.Event()
    for _ in range(2000):
        if all(over(kernel, each) for each in ids):
            return
        tick.wait(0.01)
    raise AssertionError("they do not end")


def assert_no_workflow_has_a_thread() -> None:
    """Each ends, though it may take a moment."""
    left = [each for each in threading.enumerate() if each.name == "automate-workflow"]
    for each in left:
        each.join(PATIENCE)
    assert not any(each.is_alive() for each in left)


def test_a_worker_drives_many_of_both_kinds_and_keeps_no_thread(kernel: Kernel) -> None:
    async def wait_a_moment(n: int) -> int:
        await asyncio.sleep(0.01)
        return n

    @kernel.workflow
    async def loops(ctx: WorkflowContext, n: int) -> int:
        return await ctx.step(wait_a_moment, n) + await ctx.step(wait_a_moment, n)

    @kernel.workflow
    def plainly(ctx: SyncWorkflowContext, n: int) -> int:
        return ctx.step(wait_a_moment, n) + ctx.step(wait_a_moment, n)

    ids = [kernel.start(each, n) for n in range(30) for each in (loops, plainly)]
    with working(kernel):
        until_over(kernel, ids)
    found = [kernel.executions.get(each) for each in ids]
    assert [each and each.output for each in found] == [2 * n for n in range(30) for _ in "ab"]
    assert_no_workflow_has_a_thread()


def test_a_cancelled_workflow_is_left_and_its_thread_ends(kernel: Kernel) -> None:
    begun = threading.Event()

    async def forever() -> None:
        begun.set()
        await asyncio.sleep(60)

    @kernel.workflow
    def plainly(ctx: SyncWorkflowContext) -> None:
        ctx.step(forever)

    with working(kernel):
        one = kernel.start(plainly)
        assert begun.wait(20)
        assert kernel.executions.cancel(one)
        until_over(kernel, [one])
    found = kernel.executions.get(one)
    assert found is not None and found.status is ExecutionStatus.CANCELLED
    assert_no_workflow_has_a_thread()


def test_what_waits_is_undone_when_it_is_cancelled(kernel: Kernel) -> None:
    """By whoever cancels: the function is interrupted where it waits, and its blocks undo."""

    @kernel.workflow
    async def careful(ctx: WorkflowContext, order: Order) -> None:
        reserved = await ctx.step(reserve, order.lines)
        with ctx.compensate(release, reserved):
            await ctx.wait_for("payment.settled", match={"order": order.id})

    one = kernel.start(careful, Order(id=7, lines=["a"]))
    kernel.run_until_idle()
    assert calls == [("reserve", ["a"])]
    assert kernel.executions.cancel(one)
    kernel.run_until_idle()
    found = kernel.executions.get(one)
    assert found is not None and found.status is ExecutionStatus.CANCELLED
    assert calls == [("reserve", ["a"]), ("release", ("a",))]
    assert all(run.status.finished for run in found.steps)


def test_a_copy_runs_from_one_of_its_calls_on(kernel: Kernel) -> None:
    """And a failed call is tried again by hand, with what follows."""

    @kernel.workflow
    async def careful(ctx: WorkflowContext, order: Order) -> str:
        reserved = await ctx.step(reserve, order.lines)
        if order.id == 13:
            await ctx.step(refuse, order)
        return await ctx.step(send, order, reserved)

    one = kernel.run(careful, Order(id=7, lines=["a"]))
    copy = kernel.executions.fork(one.id, "send")
    kernel.run_until_idle()
    assert [each[0] for each in calls] == ["reserve", "send", "send"]
    assert stored(kernel, kernel.executions.get(copy) or one).output == "order 7: 1 lines"
    calls.clear()
    bad = kernel.run(careful, Order(id=13, lines=["a"]))
    assert bad.status is ExecutionStatus.FAILED
    assert not kernel.executions.retry_step(bad.id, "reserve")
    assert kernel.executions.retry_step(bad.id, "refuse")
    kernel.run_until_idle()
    assert [each[0] for each in calls] == ["reserve", "refuse", "refuse"]


@pytest.mark.parametrize("plain", [False, True])
def test_code_that_takes_long_between_two_steps_holds_up_no_other(
    kernel: Kernel, plain: bool
) -> None:
    """Another thread takes the turns on; what is blocked goes on when it can."""
    blocked, free = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        assert free.wait(20)

    async def blocking(ctx: WorkflowContext) -> str:
        await ctx.step(reserve, ["a"])
        block()
        await ctx.step(reserve, ["b"])
        block()
        return "blocked"

    def blocking_plainly(ctx: SyncWorkflowContext) -> str:
        ctx.step(reserve, ["a"])
        block()
        ctx.step(reserve, ["b"])
        return "blocked"

    @kernel.workflow
    async def quick(ctx: WorkflowContext) -> str:
        await ctx.step(reserve, ["q"])
        return "quick"

    workflow: Callable[..., Any] = blocking_plainly if plain else blocking
    kernel.workflow(name="blocking")(workflow)
    with working(kernel):
        ids = [kernel.start("blocking") for _ in range(3)]
        assert blocked.wait(20)
        others = [kernel.start("quick") for _ in range(20)]
        until_over(kernel, others)
        assert not any(over(kernel, each) for each in ids)
        free.set()
        until_over(kernel, ids)
    found = [kernel.executions.get(each) for each in (*ids, *others)]
    assert [each and each.output for each in found] == ["blocked"] * 3 + ["quick"] * 20


def test_code_that_is_blocked_and_then_fails_ends(kernel: Kernel) -> None:
    blocked, free = threading.Event(), threading.Event()

    @kernel.workflow
    async def blocking(ctx: WorkflowContext) -> str:
        blocked.set()
        assert free.wait(2 * PATIENCE)
        raise SystemExit(3)

    @kernel.workflow
    async def quick(ctx: WorkflowContext) -> None:
        """It has its turn once another thread takes them."""

    with working(kernel):
        one = kernel.start("blocking")
        assert blocked.wait(20)
        until_over(kernel, [kernel.start("quick")])
        free.set()
        until_over(kernel, [one])
    found = kernel.executions.get(one)
    assert found is not None and "SystemExit: 3" in str(found.error)


@pytest.mark.parametrize("plain", [False, True])
def test_steps_on_the_way_out_are_not_begun_when_a_workflow_is_left(
    kernel: Kernel, plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A workflow that waits is left, and its ``finally`` runs at its real end alone."""
    gc.collect()  # what other tests have left behind is none of its complaints
    caplog.clear()
    seen: list[str] = []

    async def tidy(ctx: WorkflowContext) -> str:
        try:
            await ctx.sleep(0.05)
            await ctx.sleep(0.05)
        finally:
            seen.append("left")
            await ctx.step(reserve, ["tidied"])
        return "done"

    def tidy_plainly(ctx: SyncWorkflowContext) -> str:
        try:
            ctx.sleep(0.05)
            ctx.sleep(0.05)
        finally:
            seen.append("left")
            ctx.step(reserve, ["tidied"])
        return "done"

    workflow: Callable[..., Any] = tidy_plainly if plain else tidy
    kernel.workflow(name="tidy")(workflow)
    execution = kernel.run("tidy", patience=20)
    assert execution.output == "done", execution.error
    assert calls == [("reserve", ["tidied"])] and len(seen) == 3
    assert logged(caplog, "automate_kernel.workflows", "automate_kernel.worker") == []
    assert_no_workflow_has_a_thread()


# -- before there is a kernel ----------------------------------------------------------------------


def test_an_automation_is_included_in_any_kernel(kernel: Kernel) -> None:
    automation = Automation()

    @automation.action("shop.double", idempotent=True)
    def double(n: int) -> int:
        return n * 2

    @automation.action
    def triple(n: int) -> int:
        return n * 3

    @automation.workflow(on="order.created")
    async def first(ctx: WorkflowContext) -> int:
        return await ctx.step(double, 2) + await ctx.step(triple, 2)

    @automation.workflow
    def second(ctx: SyncWorkflowContext) -> int:
        return ctx.step(triple, 1)

    for each in (kernel, Kernel(discover=False, secrets={})):
        each.include(automation)
        assert each.operation("shop.double").idempotent
        assert (each.run("first").output, each.run(second).output) == (10, 3)


def test_an_automation_collects_workflows_of_any_form(kernel: Kernel, tmp_path: Path) -> None:
    """They are checked once a kernel takes them, since they may call any of its actions."""
    (tmp_path / "filed.yaml").write_text(
        "{name: filed, trigger: {type: manual}, steps: [{id: a, action: shop.seven}]}"
    )
    automation = Automation()
    calls: dict[str, Any] = {"trigger": {"type": "manual"}, "output": "{{ steps.a.output }}"}
    automation.add_workflow(tmp_path)
    automation.add_workflow(Workflow(
        name="model", trigger=ManualTrigger(), steps=[Step(id="a", action="shop.seven")],
        output="{{ steps.a.output }}",
    ))  # fmt: skip
    define(automation, {"id": "a", "action": "shop.seven"}, name="mapped", **calls)
    automation.action("shop.seven")(lambda: 7)
    kernel.include(automation)
    assert [kernel.run(name).output for name in ("filed", "model", "mapped")] == [None, 7, 7]


SHOP = """
import functools, operator
automation.action("shop.add")(operator.add)
automation.action("shop.one")(functools.partial(int, 1))

@automation.action("shop.run")
def run() -> int:
    return HERE

@automation.action
def bare() -> int:
    return HERE

@automation.workflow
def flow(ctx):
    return ctx.step(run)

automation.add_workflow({"name": "mapped", "steps": [{"id": HERE, "action": "shop.run"}]})
"""


def execute(automation: Automation, source: str, file: str, here: str) -> None:
    names = {"__name__": "shop", "__file__": file, "automation": automation, "HERE": here}
    exec(compile(source, file, "exec"), names)


def test_a_module_that_is_executed_anew_adds_its_own_once() -> None:
    """Python does that with one whose import failed: what the first time had added, goes."""
    automation = Automation()
    other = SHOP.replace('"shop.', '"other.')
    execute(automation, other, "/other/shop.py", "other")  # by the same name, elsewhere
    for here in ("first", "second"):
        execute(automation, SHOP, "/shop/shop.py", here)
    names = [name or function.__name__ for function, name, _ in automation.actions]
    actions = ["add", "one", "run"]
    assert names == [
        *(f"other.{each}" for each in actions), "bare", *(f"shop.{each}" for each in actions), "bare",
    ]  # fmt: skip
    assert [function() for function, name, _ in automation.actions if not name] == [
        "other", "second",
    ]  # fmt: skip
    assert len(automation.workflows) == 2
    assert [each["steps"][0]["id"] for each in automation.definitions] == ["other", "second"]  # type: ignore[index]


def test_a_module_of_the_command_line_may_hold_an_automation(kernel: Kernel) -> None:
    """Only what it has collected is added, under its own names."""
    module = ModuleType("flows")
    automation = Automation()
    automation.workflow(name="flow")(lambda ctx: 5)
    vars(module).update(automation=automation, reserve=reserve)
    set_up(kernel, module)
    assert kernel.run("flow").output == 5
    with pytest.raises(AutomateError):
        kernel.operation("flows.reserve")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda ctx: ctx.step(twice, 1, retry=0), "0 is no retry"),
        (lambda ctx: ctx.step(twice, 1, retry=True), "True is no retry"),
        (lambda ctx: ctx.step(twice, 1, retry=RetryPolicy(attempts=0)), "RetryPolicy is not as"),
        (lambda ctx: ctx.call("shop.count", retry="3"), "'3' is no retry"),
        (lambda ctx: ctx.child("other", retry=1001), "1001 is no retry"),
        (lambda ctx: ctx.step(twice, 1, timeout=0), "the timeout must be above 0"),
        (lambda ctx: ctx.child("other", timeout="0s"), "the timeout must be above 0"),
        (lambda ctx: ctx.step(twice, 1, heartbeat=0), "the heartbeat must be above 0"),
        (lambda ctx: ctx.wait_for("paid", match=7), "wait_for: match is a int"),
        (lambda ctx: ctx.wait_for("order.*"), "(name one event; several steps, each with"),
        (
            lambda ctx: ctx.approve("Go on?", form=[{"name": "a", "typ": "text"}]),
            "approve: form[0].typ: there is no such field (did you mean 'type'?)",
        ),
        (lambda ctx: ctx.wait_for("paid", match={"a": object()}), "the match can't be stored"),
        (lambda ctx: ctx.child("other", object()), "the payload can't be stored"),
        (lambda ctx: ctx.call("shop.count", a={1}), "the input of 'shop.count' can't be stored"),
        (lambda ctx: ctx.step(twice, ctx), "the argument 'order' of twice() can't be stored"),
    ],
)
def test_a_wrong_option_of_a_call_is_named(call: Callable[[Any], Any], says: str) -> None:
    """It is a mistake of the author's, whose remedy is told, and no bug of the engine's."""
    kernel = Kernel(discover=False, secrets={})

    @kernel.workflow
    async def wrong(ctx: WorkflowContext) -> None:
        await call(ctx)

    execution = kernel.run(wrong)
    assert (execution.status, execution.error_code) == ("FAILED", "INVALID_ARGUMENT")
    assert says in str(execution.error)


def twice(order: Any) -> None:
    raise AssertionError("called")


def yielding() -> Iterator[int]:
    yield 1


def test_all_times_may_be_timedeltas(kernel: Kernel) -> None:
    """As those of `ctx.sleep` and `ctx.wait_for`."""
    minute = timedelta(minutes=1)

    @kernel.workflow(timeout=timedelta(hours=1))
    async def timed(ctx: WorkflowContext) -> str:
        await ctx.step(reserve, ["a"], timeout=minute, heartbeat=minute)
        answer = await ctx.approve("Go?", timeout=timedelta(seconds=0.01), on_timeout="continue")
        return str(answer.timed_out)

    assert kernel.workflows["timed"].timeout == 3600
    assert kernel.run(timed, patience=5).output == "True"
    with pytest.raises(WorkflowError, match=r"timeout: must be more than 0 s"):
        kernel.workflow(name="never", timeout=timedelta())(timed)


def test_a_retry_policy_of_a_definition_stands_with_its_other_problems() -> None:
    """Made in code it raises an error of ours; read with a definition it has a place and a line."""
    with pytest.raises(WorkflowError, match=r"attempts: .*it takes attempts, backoff, delay"):
        RetryPolicy(attempts=0)
    steps = [{"id": "a", "action": "x.y", "retry": {"attempts": 0, "delay": "soon"}}]
    with pytest.raises(WorkflowError) as caught:
        define(Kernel(discover=False), *steps, name="x")
    assert "steps.a.retry.attempts" in str(caught.value)
    assert "steps.a.retry.delay" in str(caught.value)


@pytest.mark.parametrize(
    ("function", "arguments", "says"),
    [
        (int, ("7",), "int() tells no parameters: write a function that calls it"),
        (len, ("a",), "by position; input has only names (write a function with named parameters"),
        (yielding, (), "yielding() is a generator, whose values can't be stored one by one (ret"),
    ],
)
def test_a_function_that_is_no_step(
    function: Callable[..., Any], arguments: tuple[Any, ...], says: str
) -> None:
    """It is written in C, or gives its values one by one, and the error says what to do."""
    kernel = Kernel(discover=False, secrets={})

    @kernel.workflow
    async def counting(ctx: WorkflowContext) -> Any:
        return await ctx.step(function, *arguments)

    assert says in str(kernel.run(counting).error)


def test_a_workflow_is_not_replaced_as_an_action() -> None:
    """What it calls is."""
    kernel = Kernel(discover=False, secrets={})

    @kernel.workflow
    async def selling(ctx: WorkflowContext) -> None:
        await ctx.step(twice, 1)

    with pytest.raises(AutomateError, match="selling is a workflow, and no action"):
        kernel.replace(selling, 5)
    with kernel.replace(twice, None):
        assert kernel.run(selling).status == "COMPLETED"
