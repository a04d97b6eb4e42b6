"""
What blocks and loops mean to `advance`: random nested workflows, against an interpreter that just
recurs.

The driver keeps rows as the database does. It ends calls in any order, lets time pass, and lets the
worker die before or after a turn was saved.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.templates import EnvironmentResolver, TemplateContext, TemplateEngine
from automate_kernel.workflows.definition.blocks import plain_id
from automate_kernel.workflows.definition.model import Step, Workflow
from automate_kernel.workflows.decide import advance as engine_advance
from automate_kernel.workflows.decide.activation import Activation
from automate_kernel.workflows.decide.advance import advance
from automate_kernel.workflows.decide.turn import CallOutcome, StepCall, Turn
from automate_kernel.workflows.decide.program import WorkflowProgram
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

# Of a loop the fewest rounds are kept that may be, so that each forgetting is seen.
pytestmark = pytest.mark.usefixtures("one_round_kept")

ENGINE, ENVIRONMENT = TemplateEngine(), EnvironmentResolver(())
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
Key = tuple[str, int]
CASES = ("red", "blue")


@pytest.fixture(scope="module")
def one_round_kept() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_advance, "KEPT_ROUNDS", 1)
        yield


def context(event: Any, execution: Any, steps: Any, extra: Any) -> TemplateContext:
    return TemplateContext(event, execution, steps, ENVIRONMENT, extra)


# -- random definitions ----------------------------------------------------------------------------


class Author:
    """Writes random workflows; *failing* says whether their steps may fail."""

    def __init__(self, dice: random.Random, *, failing: bool) -> None:
        self.dice, self.failing, self.count = dice, failing, 0

    def workflow(self) -> Workflow:
        steps = self.steps([], depth=0, elements=[])
        last = steps[-1]["id"]
        return Workflow.model_validate(
            {
                "name": "w",
                "trigger": {"type": "manual"},
                "steps": steps,
                "output": "{{ steps." + last + ".output }}",
            }
        )

    def steps(self, seen: list[str], depth: int, elements: list[str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        own: list[str] = []
        for n in range(self.dice.randint(1, 4)):
            self.count += 1
            one: dict[str, Any] = {"id": f"s{self.count}"}
            if n and self.dice.random() < 0.4:
                one["needs"] = self.dice.sample(own, self.dice.randint(0, len(own)))
                visible = [*seen, *self.before(found, one["needs"])]
            else:
                visible = [*seen, *(self.before(found, own[-1:]) if n else [])]
            if self.dice.random() < 0.15:
                one["if"] = self.dice.choice([False, True, "{{ event.payload.yes }}"])
            self.fill(one, visible, depth, elements)
            own.append(one["id"])
            found.append(one)
        return found

    def before(self, steps: list[dict[str, Any]], needs: list[str]) -> list[str]:
        """Return *needs* and all that these wait for."""
        found = dict.fromkeys(needs)
        for place in range(len(steps) - 1, -1, -1):
            step = steps[place]
            if step["id"] in found:
                around = [steps[place - 1]["id"]] if place else []
                found |= dict.fromkeys(step.get("needs", around))
        return list(found)

    def fill(
        self, one: dict[str, Any], visible: list[str], depth: int, elements: list[str]
    ) -> None:
        if self.failing and self.dice.random() < 0.3:
            one["on_failure"] = "continue"
        if self.dice.random() < 0.4:
            size = self.dice.randint(0, 3 if depth < 2 else 2)
            one["for_each"] = list(range(size))
            one["concurrency"] = self.dice.randint(1, 3)
            elements = [*elements, "item"]
        elif self.dice.random() < 0.4:
            self.loop(one, self.dice.randint(0, 3 if depth < 2 else 2))
            elements = [*elements, "last"]
        kind = self.dice.choice(["action"] * 3 + ["sleep"] + ["steps", "steps", "switch"] * 2)
        if (depth == 3 or self.count > 12) and kind in ("steps", "switch"):
            kind = "action"
        if kind == "action":
            fails = self.failing and self.dice.random() < 0.3
            one["action"] = "fail" if fails else "echo"
            names = [*elements[-1:], "index"] if elements else []
            names += [f"outer.{each}" for each in elements[-2:-1]]
            one["input"] = {
                "names": ["{{ " + name + " }}" for name in names],
                "seen": ["{{ steps." + each + ".output }}" for each in visible],
            }
        elif kind == "sleep":
            one["sleep"] = f"{self.dice.randint(0, 5)}s"
        elif kind == "steps":
            one["steps"] = self.steps(visible, depth + 1, elements)
        else:
            values = [*CASES, "green"]
            one["switch"] = "{{ event.payload.colors[" + ("index" if elements else "0") + "] }}"
            one["cases"] = {
                case: self.steps(visible, depth + 1, elements)
                for case in self.dice.sample(values, self.dice.randint(1, 2))
            }
            if self.dice.random() < 0.5:
                one["default"] = self.steps(visible, depth + 1, elements)

    def loop(self, one: dict[str, Any], rounds: int) -> None:
        if rounds and self.dice.random() < 0.6:
            one["until"] = "{{ index == " + str(rounds - 1) + " }}"
        else:
            one["while"] = "{{ index < " + str(rounds) + " }}"
        if self.dice.random() < 0.5:
            one["every"] = self.dice.choice(["2s", "{{ index }}"])
        if self.dice.random() < 0.2:
            one["max_rounds"] = max(1, rounds - 1)
            one["on_max_rounds"] = "fail" if self.failing else "continue"


def payload(dice: random.Random) -> dict[str, Any]:
    return {
        "yes": dice.random() < 0.5,
        "colors": [dice.choice([*CASES, "green", "grey"]) for _ in range(3)],
    }


# -- the interpreter -------------------------------------------------------------------------------

Names = dict[str, Any]
FAILED = object()


class Interpreter:
    """Runs a definition as a plain program: the outputs, and whether it fails."""

    def __init__(self, event: dict[str, Any]) -> None:
        self.event = event
        self.calls: Counter[str] = Counter()

    def list(self, steps: tuple[Step, ...], around: Names, element: Names) -> Any:
        """Return the outputs of the steps, or FAILED."""
        outputs, skipped, before = dict(around), set(), ()
        for step in steps:  # needs come before what needs them
            needs = before if step.needs is None else tuple(step.needs)
            before = (step.id,)
            if self.skips(step, skipped.intersection(needs)):
                skipped.add(step.id)
                outputs[step.id] = None
                continue
            output = self.step(step, outputs, element)
            if output is SKIPPED:
                skipped.add(step.id)
                output = None
            if output is FAILED:
                if step.on_failure == "fail":
                    return FAILED
                output = None
            outputs[step.id] = output
        return outputs

    def skips(self, step: Step, skipped: set[str]) -> bool:
        if skipped and step.skipped_with_needs:
            return True
        if isinstance(step.if_, str):
            return not self.event["yes"]
        return step.if_ is False

    def rounds(self, step: Step) -> int:
        condition = str(step.while_ or step.until)
        return int(condition.split()[3]) + (step.until is not None)

    def step(self, step: Step, outputs: Names, element: Names) -> Any:
        if step.loops:
            last = None
            rounds = self.rounds(step)
            for index in range(min(rounds, step.max_rounds)):
                names = {"last": last, "index": index, "outer": element}
                last = self.once(step, outputs, names)
                if last is FAILED:
                    return FAILED
                last = None if last is SKIPPED else last
            over = rounds <= step.max_rounds or step.on_max_rounds == "continue"
            return last if over else FAILED
        if step.for_each is None:
            return self.once(step, outputs, element)
        found = []
        for index, item in enumerate(step.for_each):
            names = {"item": item, "index": index, "outer": element}
            output = self.once(step, outputs, names)
            if output is FAILED:
                return FAILED
            found.append(None if output is SKIPPED else output)
        return found

    def once(self, step: Step, outputs: Names, element: Names) -> Any:
        if step.sleep is not None:
            return None
        if step.action is not None:
            self.calls[step.id] += 1
            if step.action == "fail":
                return FAILED
            names = [_named(element, text.split()[1].split(".")) for text in step.input["names"]]
            seen = [outputs[text.split(".")[1]] for text in step.input["seen"]]
            return _short({"names": names, "seen": seen})
        steps = step.steps
        if step.switch is not None:
            steps = step.chosen(self.event["colors"][element["index"] if element else 0])
        if steps is None:
            return SKIPPED
        inner = self.list(tuple(steps), outputs, element)
        return FAILED if inner is FAILED else inner[steps[-1].id]


SKIPPED = object()


def _short(output: Any) -> Any:
    """Return *output*, or its hash: a round that sees the output of the last one grows it."""
    text = json.dumps(output)
    return output if len(text) < 2000 else hashlib.sha256(text.encode()).hexdigest()


def _named(element: Names, path: list[str]) -> Any:
    found: Any = element
    for each in path:
        found = found[each]
    return found


# -- the driver ------------------------------------------------------------------------------------


class World:
    """An execution as the database keeps it, and the calls that nobody has ended yet."""

    def __init__(self, definition: Workflow, event: dict[str, Any], dice: random.Random) -> None:
        self.program = WorkflowProgram(definition, ENGINE, context)
        self.row = Execution(
            id="e", name="w", definition_id="d", event=Event(id="v", name="w", payload=event)
        )
        self.dice, self.clock = dice, 0.0
        self.rows: dict[Key, StepRun] = {}
        self.due: dict[Key, float] = {}
        self.completed: Counter[Key] = Counter()
        self.order: list[Key] = []

    def save(self, turn: Turn) -> None:
        for run in turn.saves:
            self.rows[run.key] = copy.deepcopy(run)
            self.due.pop(run.key, None)
            if run.key in turn.delays:
                self.due[run.key] = self.clock + turn.delays[run.key]
            if run.status is StepStatus.COMPLETED:
                self.completed[run.key] += 1
                self.order.append(run.key)
        for key in turn.past:
            self.rows.pop(key, None)
        if turn.failed is not None:
            self.row.error_code, self.row.error = str(turn.failed.code), str(turn.failed)
        if turn.end is not None:
            self.row.status, self.row.output = turn.end, turn.output

    def run(self, crashes: float) -> None:
        for _ in range(3000):
            if self.row.status.finished:
                return
            self.wake_up(crashes)
        raise AssertionError("it never ends")

    def wake_up(self, crashes: float) -> None:
        execution = copy.deepcopy(self.row)
        execution.steps = [copy.deepcopy(run) for run in self.rows.values()]
        waits = {key: max(0.0, due - self.clock) for key, due in self.due.items()}
        now = START + timedelta(seconds=self.clock)
        flow = advance(self.program, Activation(execution=execution, waits=waits, now=now))
        calls: list[StepCall] = []
        turn = next(flow)
        while True:
            if self.dice.random() < crashes:
                return
            self.save(turn)
            if self.dice.random() < crashes:
                return
            if turn.last:
                self.clock += turn.wait or 0.0
                return
            calls += turn.calls
            self.dice.shuffle(calls)
            number = self.dice.randint(0 if turn.next_retry is not None else 1, len(calls))
            ended, calls = calls[:number], calls[number:]
            if ended and self.dice.random() < crashes / 3:
                self.save_alone(ended[0], calls)
                return
            elapsed = 0.0 if ended or turn.next_retry is None else turn.next_retry
            self.clock += elapsed
            turn = flow.send(([self.outcome(call) for call in ended], elapsed))

    def save_alone(self, call: StepCall, others: list[StepCall]) -> None:
        """Save the end of one call in its own transaction, with what was decided; and die."""
        outcome = self.outcome(call)
        if outcome.error is not None:
            return
        done = replace(call.run, status=StepStatus.COMPLETED, output=outcome.output)
        decided = [
            replace(each.run, status=StepStatus.RUNNING)
            for each in others
            if each.step.for_each is None and (each.step.if_ or each.step.while_) is not None
        ]
        self.save(Turn([done, *decided]))

    def outcome(self, call: StepCall) -> CallOutcome:
        if call.action == "fail":
            return CallOutcome(call, error=AutomateError(ErrorCodes.FAILED_PRECONDITION, "no"))
        return CallOutcome(call, output=_short(call.input))


def began_after_needs(world: World) -> None:
    """Within each list, a step has ended only after all that it needs."""
    place = {key: n for n, key in enumerate(world.order)}
    for path, position in world.order:
        if position >= 0 or "." not in path:
            continue
        prefix, _, own = path.rpartition(".")
        block = world.program.workflow.step(plain_id(prefix))
        for need in block.inner_needs()[own]:
            other = place.get((f"{prefix}.{need}", -1))
            assert other is None or other < place[path, -1], (path, need)


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([0.0, 0.1, 0.3]))
def test_nested_workflows_do_what_a_plain_program_does(seed: int, crashes: float) -> None:
    dice = random.Random(seed)
    definition, event = Author(dice, failing=False).workflow(), payload(dice)
    expected = Interpreter(event).list(tuple(definition.steps), {}, {})
    world = World(definition, event, dice)
    world.run(crashes)
    assert world.row.status is ExecutionStatus.COMPLETED, world.row.error
    assert world.row.output == expected[definition.steps[-1].id]
    assert not [key for key, number in world.completed.items() if number != 1]
    assert all(run.status.finished for run in world.rows.values())
    began_after_needs(world)


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([0.0, 0.1, 0.3]))
def test_failures_inside_blocks_go_as_far_as_their_on_failure(seed: int, crashes: float) -> None:
    dice = random.Random(seed)
    definition, event = Author(dice, failing=True).workflow(), payload(dice)
    expected = Interpreter(event).list(tuple(definition.steps), {}, {})
    world = World(definition, event, dice)
    world.run(crashes)
    failed = expected is FAILED
    assert world.row.status is (ExecutionStatus.FAILED if failed else ExecutionStatus.COMPLETED)
    if not failed:
        assert world.row.output == expected[definition.steps[-1].id]
    assert not [key for key, number in world.completed.items() if number != 1]
    assert all(run.status.finished for run in world.rows.values())
