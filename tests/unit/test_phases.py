"""What cleans up after an execution: undoing, on_failure, on_cancel and finally, in their order."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from automate_kernel.base.errors import ErrorCodes, WorkflowError
from automate_kernel.workflows.definition.loader import load_workflow
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from .test_advance import World, fails, outcome, step, workflow

COMPLETED, FAILED, CANCELLED = (
    ExecutionStatus.COMPLETED,
    ExecutionStatus.FAILED,
    ExecutionStatus.CANCELLED,
)
CLEANERS: dict[str, Any] = {
    "on_failure": [step("mend")],
    "on_cancel": [step("tell")],
    "finally": [step("close")],
}


def undoable(step_id: str, **options: Any) -> dict[str, Any]:
    undo = {"action": f"undo.{step_id}", **options.pop("undo", {})}
    return step(step_id, compensate=undo, **options)


class Cancelled(World):
    """A world that can be cancelled: a worker puts it back and takes it up again."""

    def cancel(self) -> None:
        """Cancel it, and let a worker that knows of it take it up; no call is in flight."""
        assert not self.calls
        self.row.status = ExecutionStatus.CANCELLING
        self.wake()


def finish_all(world: World) -> list[str]:
    """End all calls, one after the other; return the order in which they were made."""
    order = []
    while world.calls:
        assert len(world.calls) == 1
        (key,) = world.calls
        order.append(key[0])
        world.finish(*key[:1], position=key[1])
    return order


# -- failure -----------------------------------------------------------------------------------------


def test_a_failure_undoes_what_was_done_against_its_order() -> None:
    """Completed steps are undone in reverse, then on_failure runs, then finally; then it FAILED."""
    world = World(workflow(undoable("a"), step("b"), undoable("c"), undoable("d"), **CLEANERS))
    for step_id in "abc":
        world.finish(step_id)
    world.finish("d", fails())
    assert finish_all(world) == ["c.compensate", "a.compensate", "mend", "close"]
    assert world.row.status is FAILED
    assert world.row.error == "step 'd' failed: it broke"


@pytest.mark.parametrize(
    ("length", "status"), [(3, StepStatus.CANCELLED), (2, StepStatus.COMPLETED)]
)
def test_what_cleans_up_sees_a_list_that_was_left(length: int, status: StepStatus) -> None:
    """A step of finally that read it failed: nothing had ended the list as a whole."""
    world = World(
        workflow(
            undoable("each", for_each=[*range(length)], needs=[]),
            step("b", needs=[]),
            **{"finally": [step("close", input={"x": "{{ steps.each.status }}"})]},
        )
    )
    world.finish("each", position=0)
    world.finish("b", fails())
    assert world.status("each") is None, "one of its elements still runs"
    world.finish("each", position=1)
    assert world.status("each") is status
    assert finish_all(world) == ["each.compensate", "each.compensate", "close"]
    assert world.status("close") is StepStatus.COMPLETED


def test_a_compensation_sees_the_output_that_it_undoes() -> None:
    """And the error that made it necessary, and the steps."""
    text = "{{ output.id }} {{ error.code }} {{ steps.a.output.id }}"
    world = World(workflow(undoable("a", undo={"input": {"t": text}}), step("b")))
    world.finish("a", {"id": 4711})
    world.finish("b", fails())
    assert world.input("a.compensate") == {"t": "4711 NOT_FOUND 4711"}


def test_elements_are_undone_one_by_one() -> None:
    """Each completed element of a list is undone, the last first, with its item and output."""
    text = "{{ item }} {{ index }} {{ output }}"
    world = World(
        workflow(
            undoable("a", for_each=["x", "y", "z"], undo={"input": {"t": text}}),
            on_failure=[step("mend")],
        )
    )
    world.finish("a", "X", 0)
    world.finish("a", "Y", 1)
    world.finish("a", fails(), 2)
    assert world.in_flight == ["a.compensate[1]"]
    assert world.input("a.compensate", 1) == {"t": "y 1 Y"}
    world.finish("a.compensate", None, 1)
    assert world.in_flight == ["a.compensate[0]"]
    world.finish("a.compensate", None, 0)
    assert world.status("a.compensate") is StepStatus.COMPLETED
    assert world.in_flight == ["mend"]


def test_a_compensation_that_fails_stops_no_other() -> None:
    """The others run all the same, its retries first, and the execution's error says so."""
    retry = {"attempts": 2, "delay": 1, "jitter": False}
    world = World(workflow(undoable("a"), undoable("b", undo={"retry": retry}), step("c")))
    world.finish("a")
    world.finish("b")
    world.finish("c", fails())
    assert world.finish("b.compensate", fails(ErrorCodes.UNAVAILABLE)).wait == 1.0
    world.later(1)
    world.finish("b.compensate", fails(ErrorCodes.UNAVAILABLE))
    assert finish_all(world) == ["a.compensate"]
    assert world.row.error == "step 'c' failed: it broke; not undone: 'b' (it broke)"


def test_an_element_that_cannot_be_undone_stops_no_other() -> None:
    """All elements are tried, and the compensation as a whole has FAILED."""
    world = World(workflow(undoable("a", for_each=[1, 2, 3]), step("b")))
    for position in range(3):
        world.finish("a", None, position)
    world.finish("b", fails())
    world.finish("a.compensate", None, 2)
    world.finish("a.compensate", None, 1)
    world.finish("a.compensate", fails(), 0)
    assert world.status("a.compensate") is StepStatus.FAILED
    assert "not undone: 'a' (element 0: it broke)" in str(world.row.error)


def test_a_failure_under_finally_fails_what_had_succeeded() -> None:
    """It is not undone: its own steps are done. The steps after the failed one run."""
    world = World(workflow(undoable("a"), on_failure=[step("mend")], **{
        "finally": [step("close"), step("sweep")]
    }))  # fmt: skip
    world.finish("a")
    world.finish("close", fails())
    assert finish_all(world) == ["sweep"]
    assert (world.row.status, world.row.error) == (FAILED, "step 'close' failed: it broke")
    world.row.status = ExecutionStatus.RUNNING
    world.crash()
    assert (world.calls, world.row.status) == ({}, FAILED)


def test_finally_sees_whether_it_failed() -> None:
    """``error`` is null there after a success."""
    close = step("close", input={"e": "{{ error }}"})
    world = World(workflow(step("a"), **{"finally": [close]}))
    world.finish("a")
    assert world.input("close") == {"e": None}


def test_the_time_limit_does_not_count_for_finally() -> None:
    """A workflow that took too long is undone, however long that takes."""
    retry = {"attempts": 2, "delay": 5, "jitter": False}
    definition = workflow(undoable("a"), step("b"), **{"finally": [step("close", retry=retry)]})
    world = World(definition, timeout=40)
    world.finish("a")
    world.now = 50
    world.finish("b")  # the last one: it has not failed
    assert world.finish("close", fails(ErrorCodes.UNAVAILABLE)).wait == 5.0
    world.later(5)
    world.finish("close")
    assert world.row.status is COMPLETED


# -- cancelling ----------------------------------------------------------------------------------------


def test_a_cancellation_undoes_and_tells() -> None:
    """Compensations run, then on_cancel, then finally; nothing else begins."""
    retry = {"attempts": 2, "delay": 60, "jitter": False}
    world = Cancelled(workflow(undoable("a"), undoable("b", retry=retry), step("c"), **CLEANERS))
    world.finish("a")
    world.finish("b", fails(ErrorCodes.UNAVAILABLE))
    world.cancel()
    assert world.status("b") is StepStatus.CANCELLED
    assert world.in_flight == ["a.compensate"]
    assert finish_all(world) == ["a.compensate", "tell", "close"]
    assert (world.row.status, world.row.error) == (CANCELLED, None)


def test_what_cleans_up_after_a_cancellation_sees_it() -> None:
    """``error.code`` is CANCELLED."""
    tell = step("tell", input={"e": "{{ error.code }}"})
    world = Cancelled(workflow(step("a", retry={"attempts": 2}), on_cancel=[tell]))
    world.finish("a", fails(ErrorCodes.UNAVAILABLE))
    world.cancel()
    assert world.input("tell") == {"e": "CANCELLED"}


def test_what_is_cancelled_late_is_not_late() -> None:
    """The time limit, which is over by now, is no error of an execution that is cancelled."""
    retry = {"attempts": 2, "delay": 60, "jitter": False}
    definition = workflow(undoable("a"), step("b", retry=retry))
    world = Cancelled(definition, timeout=40)
    world.finish("a")
    world.finish("b", fails(ErrorCodes.UNAVAILABLE))
    world.now = 41
    world.cancel()
    world.finish("a.compensate")
    assert (world.row.status, world.row.error) == (CANCELLED, None)


def test_a_list_that_has_become_shorter() -> None:
    """A compensation for an element that the list no longer has fails, with a reason."""
    world = World(
        workflow(undoable("a", for_each="{{ event.payload }}"), step("b")), payload=[1, 2]
    )
    world.finish("a", None, 0)
    world.finish("a", None, 1)
    world.execution.event.payload.pop()
    world.finish("b", fails())
    assert world.row.status is FAILED
    assert "gave 1 elements" in str(world.row.error)


def test_a_failure_while_cancelling_changes_no_end() -> None:
    """A step that cleans up and fails is recorded; a compensation's failure is the error."""
    world = Cancelled(workflow(undoable("a"), step("b", retry={"attempts": 2}), **CLEANERS))
    world.finish("a")
    world.finish("b", fails(ErrorCodes.UNAVAILABLE))
    world.cancel()
    world.finish("a.compensate", fails())
    world.finish("tell", fails())
    world.finish("close")
    assert (world.row.status, world.row.error) == (CANCELLED, "not undone: 'a' (it broke)")


# -- definitions ---------------------------------------------------------------------------------------


def problems(text: str) -> str:
    with pytest.raises(WorkflowError) as caught:
        load_workflow({**HEAD, **load(text)})
    return str(caught.value)


HEAD = {"name": "w", "trigger": {"type": "manual"}}


def load(text: str) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load(text))


def test_only_the_steps_of_the_workflow_are_undone() -> None:
    """A compensation elsewhere would never be called."""
    found = problems("""
        steps: [{id: a, action: x.y}]
        finally: [{id: b, action: x.y, compensate: {action: x.z}}]
    """)
    assert "finally.b.compensate: only a step under steps is undone (take it out)" in found


def test_names_are_known_where_they_mean_something() -> None:
    """``output`` under compensate alone, ``error`` in all that cleans up."""
    found = problems("""
        steps:
          - {id: a, action: x.y, input: {v: "{{ output }}"}, compensate: {action: x.z, inptu: 1}}
    """)
    assert "did you mean 'input'" in found
    found = problems("""
        steps:
          - {id: a, action: x.y, input: {v: "{{ output }}"},
             compensate: {action: x.z, input: {v: "{{ output }} {{ error }} {{ item }}"}}}
        on_cancel: [{id: b, action: x.y, input: {v: "{{ error.code }} {{ steps.a.output }}"}}]
        finally: [{id: c, action: x.y, needs: [b], input: {v: "{{ steps.b.output }}"}}]
    """)
    assert "'b' belongs to another list of steps" in found
    found = problems("""
        steps:
          - {id: a, action: x.y, input: {v: "{{ output }}"},
             compensate: {action: x.z, input: {v: "{{ output }} {{ error }} {{ item }}"}}}
        finally: [{id: c, action: x.y, input: {v: "{{ error }} {{ steps.a.output }}"}}]
    """)
    assert "2 problems" in found
    assert "steps.a.input.v: 'output' is known under compensate and in until only" in found
    assert "steps.a.compensate.input.v: 'item' is known" in found


def test_a_definition_comes_back_as_it_was() -> None:
    """What was stored of it is read again, and a workflow without the new fields keeps its hash."""
    definition = workflow(undoable("a"), **CLEANERS)
    assert Workflow.from_dict(definition.to_dict()) == definition
    assert {"on_cancel", "finally"} <= set(definition.to_dict())
    assert not {"on_cancel", "finally"} & set(workflow(step("a")).to_dict())


# -- any workflow --------------------------------------------------------------------------------------

RESULT = st.sampled_from([None, None, ErrorCodes.UNAVAILABLE, ErrorCodes.NOT_FOUND])
RETRY = {"attempts": 2, "delay": 1, "jitter": False}


@st.composite
def cleaning_workflows(draw: st.DrawFn) -> tuple[Workflow, dict[tuple[str, int], list[Any]]]:
    """A workflow that cleans up, and for each of its calls the results of its attempts."""
    ids = [f"s{n}" for n in range(draw(st.integers(1, 5)))]
    steps = []
    for n, step_id in enumerate(ids):
        needs = draw(st.none() | st.lists(st.sampled_from(ids[:n]), unique=True)) if n else None
        options: dict[str, Any] = {} if needs is None else {"needs": needs}
        if draw(st.integers(0, 3)) == 0:
            options |= {"for_each": list(range(draw(st.integers(0, 3)))), "concurrency": 2}
        if draw(st.booleans()):
            options |= {"retry": RETRY}
        if draw(st.booleans()):
            undo = {"retry": RETRY} if draw(st.booleans()) else {}
            steps.append(undoable(step_id, undo=undo, **options))
        else:
            steps.append(step(step_id, **options))
    groups = {name: draw(st.booleans()) for name in CLEANERS}
    cleaners = {name: CLEANERS[name] for name, there in groups.items() if there}
    definition = workflow(*steps, **cleaners)
    results = {}
    for one in (*definition.every_step(), *definition.compensations.values()):
        count = len(one.for_each) if isinstance(one.for_each, list) else 1
        for position in range(count) if one.for_each is not None else (-1,):
            results[one.id, position] = [*draw(st.lists(RESULT, max_size=2)), None]
    return definition, results


def drive(
    definition: Workflow,
    results: dict[tuple[str, int], list[Any]],
    choose: random.Random,
    crashes: int,
    cancels: bool,
) -> Cancelled:
    """Drive an execution; *choose* says what ends next, when its worker dies, when it is cancelled."""
    world = Cancelled(definition)
    given: Counter[tuple[str, int]] = Counter()
    turns = 0
    while not world.row.status.finished:
        turns += 1
        assert turns < 1000, "it goes on for ever"
        if cancels and choose.random() < 0.1:
            # Its worker has died, or has put it back.
            world.calls, cancels = {}, False
            world.cancel()
        elif crashes and choose.random() < 0.2:
            crashes -= 1
            world.crash()
        elif not world.calls:
            assert world.turn is not None
            assert world.turn.wait is not None
            world.later(world.turn.wait)
        else:
            key = choose.choice(sorted(world.calls))
            world.send(outcome(world, key, results[key], given))
    return world


@settings(max_examples=examples(300), deadline=None)
@given(cleaning_workflows(), st.randoms(use_true_random=False), st.integers(0, 3), st.booleans())
def test_what_was_done_is_undone_once_and_in_reverse(
    drawn: tuple[Workflow, dict[tuple[str, int], list[Any]]],
    choose: random.Random,
    crashes: int,
    cancels: bool,
) -> None:
    """
    Wherever it fails, is cancelled, or its worker dies, each completed call is undone exactly once.

    What is undone first had come last, nothing is undone after a success, and finally runs once.
    """
    definition, results = drawn
    world = drive(definition, results, choose, crashes, cancels)
    assert all(run.status.finished for run in world.rows.values())
    undoing = {one.id: own for own, one in definition.compensations.items()}
    of_elements = {one.id for one in definition.steps if one.for_each is not None}
    tried = {key for key in world.rows if key[0] in undoing}
    done = {
        (one.id, position)
        for (own, position), run in world.rows.items()
        if run.status is StepStatus.COMPLETED
        and (one := definition.step(own).compensation) is not None
        and (position >= 0 or own not in of_elements)
    }
    single = {key for key in tried if key[1] >= 0 or undoing[key[0]] not in of_elements}
    succeeded = world.row.status is COMPLETED or "step 'close'" in str(world.row.error)
    if world.row.status is not CANCELLED and succeeded:
        done = set()
    assert single == done
    saved = [key for key in world.rows if key[0] in undoing and key[1] < 0]
    order = [own for own in reversed(definition.order()) if f"{own}.compensate" in dict(saved)]
    assert [undoing[step_id] for step_id, _ in saved] == order
    if definition.finally_:
        assert world.status("close") is not None
    ran = {name: world.status(steps[0]["id"]) is not None for name, steps in CLEANERS.items()}
    if world.row.status is COMPLETED:
        assert not (ran["on_failure"] or ran["on_cancel"])
    if world.row.status is CANCELLED and definition.on_cancel:
        assert ran["on_cancel"]
    last = [key[0] for key in world.rows if key[0] in undoing or key[0] == "close"]
    if world.row.status is FAILED:
        assert "close" not in last[:-1]
