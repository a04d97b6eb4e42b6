"""
Random workflows: as definitions, and as functions.

`workflow_model` says what an execution of one has to come to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import hypothesis.strategies as st
from automate_kernel import Kernel, StepFailedError, WorkflowContext
from automate_kernel.workflows import RetryPolicy, Workflow

HOUR = 3600
FAILS = -1
"""The plan of a call that fails each time; other plans are how often it fails before it succeeds."""
# What a crash spends must not be missing for a call that succeeds in the end.
_PATIENT = {"attempts": 30, "delay": "30s", "backoff": "fixed", "jitter": False}
_BRIEF = {"attempts": 2, "delay": "30s", "backoff": "fixed", "jitter": False}

COMPLETED, FAILED, SKIPPED, CANCELLED = "COMPLETED", "FAILED", "SKIPPED", "CANCELLED"


class _Brief:
    """What shows only the fields that say something."""

    def __repr__(self) -> str:
        said = [one for one in fields(self) if getattr(self, one.name) != one.default]  # type: ignore[arg-type]
        shown = (f"{one.name}={getattr(self, one.name)!r}" for one in said)
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


@dataclass(frozen=True, repr=False)
class Part(_Brief):
    """A step of a random workflow."""

    id: str
    kind: str
    """plain, awaited, sleep, signal, event, approval, child, or loose: nobody waits for the child."""
    needs: tuple[str, ...] | None = None
    condition: bool | tuple[str, str] | None = None
    """True, False, or the id of a step and the status that it must have."""
    continues: bool = False
    plan: int = 0
    plans: tuple[int, ...] | None = None
    """With ``for_each``, the plan of each element; or the seconds of each sleep."""
    concurrency: int = 1
    timeout: bool = False
    late: str = "fail"
    """What a timeout of its wait means: fail or continue; of an approval approve or reject too."""
    may_reject: bool = False
    """True if a rejection is no failure."""
    child: str = ""
    undo: int | None = None
    """The plan of its compensation, if it has one."""

    @property
    def calls(self) -> bool:
        return self.kind in ("plain", "awaited")

    @property
    def on_reject(self) -> str:
        return "continue" if self.may_reject else "fail"

    @property
    def waits(self) -> bool:
        return self.kind in ("signal", "event", "approval")

    @property
    def positions(self) -> list[int]:
        return [-1] if self.plans is None else list(range(len(self.plans)))

    def plan_at(self, position: int) -> int:
        return self.plan if self.plans is None else self.plans[position]

    def mended(self) -> Part:
        """The same step with calls that succeed."""
        plans = self.plans and tuple(0 if plan == FAILS else plan for plan in self.plans)
        return replace(self, plan=0 if self.plan == FAILS else self.plan, plans=plans)

    def definition(self) -> dict[str, Any]:
        made: dict[str, Any] = {"id": self.id}
        if self.needs is not None:
            made["needs"] = list(self.needs)
        if isinstance(self.condition, bool):
            made["if"] = f"{{{{ {self.condition} }}}}".lower()
        elif self.condition is not None:
            step, status = self.condition
            made["if"] = f"{{{{ steps.{step}.status == '{status}' }}}}"
        if self.continues:
            made["on_failure"] = "continue"
        if self.plans is not None:
            made |= {"for_each": list(self.plans), "concurrency": self.concurrency}
        if self.undo is not None:
            at = self._at("undo")
            made["compensate"] = {"action": "plain", "input": {"at": at, "plan": self.undo}}
        return made | self._work()

    def _at(self, prefix: str = "") -> str:
        place = "" if self.plans is None else "/{{ index }}"
        return f"{{{{ event.payload.key }}}}/{prefix}{self.id}{place}"

    def _work(self) -> dict[str, Any]:
        if self.calls:
            plan = self.plan if self.plans is None else "{{ item }}"
            plans = [self.plan_at(position) for position in self.positions]
            retry = _PATIENT if FAILS not in plans else _BRIEF
            return {
                "action": self.kind, "input": {"at": self._at(), "plan": plan},
                **({} if plans == [0] else {"retry": retry}),
            }  # fmt: skip
        if self.kind == "sleep":
            return {"sleep": self.plan if self.plans is None else "{{ item }}"}
        limit = {"timeout": "1h", "on_timeout": self.late} if self.timeout else {}
        if self.kind == "approval":
            return {"approval": {"title": self.id, "on_reject": self.on_reject, **limit}}
        if self.waits:
            name = {"signal": self.id}
            if self.kind == "event":
                name = {"event": "go", "match": {"at": f"{{{{ event.payload.key }}}}/{self.id}"}}
            return {"wait_for": {**name, "if": "{{ signal.payload.ok }}", **limit}}
        return {
            "workflow": self.child,
            "input": {"key": self._at(), "lane": "{{ event.payload.lane }}"},
            **({} if self.kind == "child" else {"wait": False}),
            **({"timeout": "1h"} if self.timeout else {}),
        }


@dataclass(frozen=True, repr=False)
class Made(_Brief):
    """A random workflow."""

    name: str
    steps: tuple[Part, ...]
    on_failure: tuple[Part, ...] = ()
    on_cancel: tuple[Part, ...] = ()
    finally_: tuple[Part, ...] = ()
    concurrency: int | None = None
    """The number of executions of a lane that may go on at once."""
    when_full: str = "queue"

    def add_to(self, kernel: Kernel, undo: Undo) -> None:
        kernel.add_workflow(self.definition())

    def workflow(self) -> Workflow:
        return Workflow.from_dict(self.definition())

    def mended(self) -> Made:
        """The same with calls that succeed, and another step at the end."""
        steps = (*(step.mended() for step in self.steps), Part("z", "plain"))
        return self if self.steps[-1].id == "z" else replace(self, steps=steps)

    def definition(self) -> dict[str, Any]:
        groups = {
            "on_failure": self.on_failure, "on_cancel": self.on_cancel, "finally": self.finally_,
        }  # fmt: skip
        limit = {
            "limit": self.concurrency, "key": "{{ event.payload.lane }}",
            "when_full": self.when_full,
        }  # fmt: skip
        return {
            "name": self.name,
            "trigger": {"type": "manual"},
            **({} if self.concurrency is None else {"concurrency": limit}),
            "steps": [step.definition() for step in self.steps],
            "output": {step.id: f"{{{{ steps.{step.id}.output }}}}" for step in self.steps},
            **{
                name: [step.definition() for step in steps]
                for name, steps in groups.items()
                if steps
            },
        }

    def every(self) -> Iterator[Part]:
        yield from (*self.steps, *self.on_failure, *self.on_cancel, *self.finally_)

    def needs(self, steps: Sequence[Part]) -> dict[str, tuple[str, ...]]:
        """What each of *steps* waits for: without needs of its own, the one before it."""
        found, before = {}, ()
        for step in steps:
            found[step.id] = before if step.needs is None else step.needs
            before = (step.id,)
        return found

    def followers(self, step_id: str) -> set[str]:
        """The step, and all that wait for it, directly or not."""
        needs, found = self.needs(self.steps), {step_id}
        for step in self.steps:  # each stands after all that it needs
            if found.intersection(needs[step.id]):
                found.add(step.id)
        return found


# -- in code ---------------------------------------------------------------------------------------

Undo = Callable[[str, int], object]


@dataclass(frozen=True, repr=False)
class Beside(_Brief):
    """Lines of steps, of which a function makes a ``gather``."""

    lines: tuple[tuple[Part, ...], ...]


@dataclass(frozen=True, repr=False)
class Coded(_Brief):
    """A random workflow in code."""

    name: str
    body: tuple[Part | Beside, ...]

    def add_to(self, kernel: Kernel, undo: Undo) -> None:
        async def flow(ctx: WorkflowContext, given: dict[str, Any]) -> dict[str, Any]:
            return await _run(ctx, given, self.body, undo)

        kernel.workflow(name=self.name, waits={"go": "at"})(flow)

    def every(self) -> Iterator[Part]:
        for one in self.body:
            if isinstance(one, Part):
                yield one
            else:
                for line in one.lines:
                    yield from line

    def followers(self, step_id: str) -> set[str]:
        """The step, and all that the function calls after it; other lines beside it don't follow."""
        found = {step_id}
        for n, one in enumerate(self.body):
            for line in one.lines if isinstance(one, Beside) else [(one,)]:
                ids = [step.id for step in line]
                if step_id in ids:
                    after = Coded("", self.body[n + 1 :]).every()
                    found |= {*ids[ids.index(step_id) :], *(step.id for step in after)}
        return found


async def _run(
    ctx: WorkflowContext, given: dict[str, Any], body: Sequence[Part | Beside], undo: Undo
) -> dict[str, Any]:
    """Run the first of *body*, and the rest in the block that undoes it."""
    if not body:
        return {}
    first, rest = body[0], body[1:]
    if isinstance(first, Beside):
        found: dict[str, Any] = {}
        for each in await ctx.gather(*[_run(ctx, given, line, undo) for line in first.lines]):
            found |= each
        return found | await _run(ctx, given, rest, undo)
    try:
        output = {first.id: await _step(ctx, given["key"], given["lane"], first)}
    except StepFailedError:
        if not first.continues:
            raise
        return {first.id: None} | await _run(ctx, given, rest, undo)
    if first.undo is None:
        return output | await _run(ctx, given, rest, undo)
    name = f"undo{first.id}"
    with ctx.compensate(undo, f"{given['key']}/{name}", first.undo, name=name):
        return output | await _run(ctx, given, rest, undo)


async def _step(ctx: WorkflowContext, key: str, lane: str, step: Part) -> Any:
    at, limit = f"{key}/{step.id}", "1h" if step.timeout else None
    if step.calls:
        retry = RetryPolicy(**(_BRIEF if step.plan == FAILS else _PATIENT))
        return await ctx.call(step.kind, step_name=step.id, retry=retry, at=at, plan=step.plan)
    if step.kind == "sleep":
        return await ctx.sleep(step.plan, name=step.id)
    late: Any = step.late if limit else "fail"
    if step.kind == "approval":
        asked = ctx.approve(
            step.id, name=step.id, on_reject=step.on_reject, timeout=limit,
            **({"on_timeout": late} if limit else {}),
        )  # fmt: skip
        return (await asked).by
    if step.waits:
        named: Any = {"event": "go", "match": {"at": at, "ok": True}}
        if step.kind == "signal":
            named = {"signal": step.id}
        event = await ctx.wait_for(**named, name=step.id, timeout=limit, on_timeout=late)
        return event and event.id
    payload = {"key": at, "lane": lane}
    if step.kind == "loose":
        return await ctx.start(step.child, payload, name=step.id)
    return await ctx.child(step.child, payload, name=step.id, timeout=limit)


# -- random ones -----------------------------------------------------------------------------------

_plans = st.sampled_from([0, 0, FAILS, 1, FAILS])
_seconds = st.sampled_from([0, 60, 60, 2 * HOUR])


@st.composite
def parts(draw: st.DrawFn, step_id: str, earlier: list[Part], children: Sequence[str]) -> Part:
    """A step after *earlier* ones, which may start the workflows called *children*."""
    kind = draw(_kinds(children))
    ids = [step.id for step in earlier]
    needs = draw(
        st.none()
        if not ids
        else st.none() | st.lists(st.sampled_from(ids), unique=True, max_size=2)
    )
    waited_for = ids[-1:] if needs is None else needs
    conditions: Any = st.sampled_from([None, None, None, True, False])
    if waited_for:
        statuses = st.sampled_from([COMPLETED, FAILED, SKIPPED])
        conditions |= st.tuples(st.sampled_from(waited_for), statuses)
    each = draw(st.none() | st.none() | st.lists(_plans, max_size=4))
    if each is not None and kind == "sleep":
        each = [draw(_seconds) for _ in each]
    elif each is not None and kind not in ("plain", "awaited"):
        each = [0 for _ in each[:2]]
    return replace(
        draw(lone_parts(step_id, kind, children)),
        needs=None if needs is None else tuple(needs), condition=draw(conditions),
        plans=None if each is None else tuple(each),
        concurrency=1 if each is None else draw(st.integers(1, 3)),
    )  # fmt: skip


def _kinds(children: Sequence[str]) -> st.SearchStrategy[str]:
    kinds = ["plain", "plain", "awaited", "awaited", "sleep", "signal", "event", "approval"]
    return st.sampled_from(kinds + (["child", "child", "loose"] if children else []))


@st.composite
def lone_parts(draw: st.DrawFn, step_id: str, kind: str, children: Sequence[str]) -> Part:
    """A step of this *kind* that needs nothing."""
    late = ["fail", "continue"]
    if kind == "approval":
        late += ["approve", "reject"]
    waits = kind in ("signal", "event", "approval")
    return Part(
        step_id, kind,
        continues=draw(st.sampled_from([False, False, False, True])),
        plan=draw(_seconds if kind == "sleep" else _plans),
        timeout=(waits or kind == "child") and draw(st.booleans()),
        late=draw(st.sampled_from(late)) if waits else "fail",
        may_reject=kind == "approval" and draw(st.booleans()),
        child=draw(st.sampled_from(children)) if kind in ("child", "loose") else "",
        undo=draw(st.sampled_from([None, 0, 0, FAILS])),
    )  # fmt: skip


@st.composite
def groups(draw: st.DrawFn, prefix: str, children: Sequence[str]) -> tuple[Part, ...]:
    """Steps that clean up, which may start the workflows called *children*."""
    made = []
    kinds = ["plain", "awaited", "sleep", "signal"] + ["child"] * bool(children)
    for n, kind in enumerate(draw(st.lists(st.sampled_from(kinds), max_size=2))):
        plan = 60 if kind == "sleep" else draw(st.sampled_from([0, 0, FAILS]))
        child = draw(st.sampled_from(children)) if kind == "child" else ""
        made.append(Part(f"{prefix}{n}", kind, plan=plan, child=child))
    return tuple(made)


@st.composite
def workflows(draw: st.DrawFn, name: str, children: Sequence[str], sizes: Sequence[int]) -> Made:
    """A workflow that may start *children*."""
    steps: list[Part] = []
    for step_id in "abcde"[: draw(st.sampled_from(sizes))]:
        steps.append(draw(parts(step_id, steps, children)))
    cleans = draw(st.booleans())
    # Others wait for each other in a circle: a child for its parent's place.
    limit = draw(st.sampled_from([None, None, 1, 2])) if name != "leaf" else None
    return Made(
        name, tuple(steps),
        draw(groups("failed", children)) if cleans else (),
        draw(groups("stopped", children)) if cleans else (),
        draw(groups("last", children)) if cleans else (),
        limit, draw(st.sampled_from(["queue", "skip", "cancel_older"])) if limit else "queue",
    )  # fmt: skip


@st.composite
def functions(draw: st.DrawFn, name: str, children: Sequence[str]) -> Coded:
    """A workflow in code that may start *children*."""
    ids = iter("abcdefghijkl")

    def line(size: int) -> tuple[Part, ...]:
        its = [next(ids) for _ in range(size)]
        return tuple(draw(lone_parts(each, draw(_kinds(children)), children)) for each in its)

    body: list[Part | Beside] = []
    for lines in draw(st.lists(st.sampled_from([0, 0, 0, 2]), min_size=1, max_size=3)):
        if lines:
            sizes = draw(st.lists(st.integers(1, 2), min_size=2, max_size=2))
            body.append(Beside(tuple(line(size) for size in sizes)))
        else:
            body += line(1)
    return Coded(name, tuple(body))


@st.composite
def families(draw: st.DrawFn) -> dict[str, Made | Coded]:
    """A workflow, its sub-workflow, and the sub-workflow of that; some of them are in code."""
    in_code = draw(st.sampled_from(["", "", "root", "child", "leaf"]))

    def made(name: str, children: Sequence[str], sizes: Sequence[int]) -> Made | Coded:
        if name == in_code:
            return draw(functions(name, children))
        return draw(workflows(name, children, sizes))

    leaf = made("leaf", (), (1, 2))
    child = made("child", ("leaf",), (1, 2, 3))
    return {
        "leaf": leaf, "child": child, "root": made("root", ("child", "leaf"), (3, 2, 4, 5, 1)),
    }  # fmt: skip
