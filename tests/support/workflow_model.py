"""
Random workflows, and a plain model of what an execution of one has to come to.

The model knows the rules that the documentation states, and none of the product's code. Where
steps race (one fails while another runs, or somebody cancels), it says what may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import hypothesis.strategies as st

HOUR = 3600
FAILS = -1
"""The plan of a call that fails each time; other plans are how often it fails before it succeeds."""
# What a crash spends must not be missing for a call that succeeds in the end.
_PATIENT = {"attempts": 30, "delay": "30s", "backoff": "fixed", "jitter": False}
_BRIEF = {"attempts": 2, "delay": "30s", "backoff": "fixed", "jitter": False}

COMPLETED, FAILED, SKIPPED, CANCELLED = "COMPLETED", "FAILED", "SKIPPED", "CANCELLED"
NEVER, OPEN = "NEVER", "OPEN"
"""The fates of a step that can't begin, and of one whose end nobody has seen."""


class _Brief:
    """What shows only the fields that say something."""

    def __repr__(self) -> str:
        said = [one for one in fields(self) if getattr(self, one.name) != one.default]  # type: ignore[arg-type]
        shown = (f"{one.name}={getattr(self, one.name)!r}" for one in said)
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class Part(_Brief):
    """A step of a random workflow."""

    id: str
    kind: str
    """One of: plain, awaited, sleep, signal, event, child, loose (a child that isn't waited for)."""
    needs: tuple[str, ...] | None = None
    condition: bool | tuple[str, str] | None = None
    """True, False, or the id of a step and the status that it must have."""
    continues: bool = False
    plan: int = 0
    plans: tuple[int, ...] | None = None
    """With ``for_each``, the plan of each element; or the seconds of each sleep."""
    concurrency: int = 1
    timeout: bool = False
    goes_on: bool = False
    """True if a timeout of its wait is no failure."""
    child: str = ""
    undo: int | None = None
    """The plan of its compensation, if it has one."""

    @property
    def calls(self) -> bool:
        return self.kind in ("plain", "awaited")

    @property
    def waits(self) -> bool:
        return self.kind in ("signal", "event")

    @property
    def positions(self) -> list[int]:
        return [-1] if self.plans is None else list(range(len(self.plans)))

    def plan_at(self, position: int) -> int:
        return self.plan if self.plans is None else self.plans[position]

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
        if self.waits:
            name = {"signal": self.id}
            if self.kind == "event":
                name = {"event": "go", "match": {"at": f"{{{{ event.payload.key }}}}/{self.id}"}}
            limit = {"timeout": "1h"} if self.timeout else {}
            if self.timeout and self.goes_on:
                limit["on_timeout"] = "continue"
            return {"wait_for": {**name, "if": "{{ signal.payload.ok }}", **limit}}
        return {
            "workflow": self.child,
            "input": {"key": self._at()},
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

    def definition(self) -> dict[str, Any]:
        groups = {
            "on_failure": self.on_failure, "on_cancel": self.on_cancel, "finally": self.finally_,
        }  # fmt: skip
        return {
            "name": self.name,
            "trigger": {"type": "manual"},
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

    @property
    def cleans_up(self) -> bool:
        return bool(
            self.on_cancel or self.finally_ or any(step.undo is not None for step in self.steps)
        )


# -- random ones -----------------------------------------------------------------------------------

_plans = st.sampled_from([0, 0, 0, 1, FAILS])
_seconds = st.sampled_from([0, 60, 60, 2 * HOUR])


@st.composite
def parts(draw: st.DrawFn, step_id: str, earlier: list[Part], children: Sequence[str]) -> Part:
    """A step after *earlier* ones, which may start the workflows called *children*."""
    kinds = ["plain", "plain", "awaited", "awaited", "sleep", "signal", "event"]
    kind = draw(st.sampled_from(kinds + (["child", "child", "loose"] if children else [])))
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
    elif each is not None and kind in ("child", "loose", "signal", "event"):
        each = [0 for _ in each[:2]]
    limited = kind in ("signal", "event", "child") and draw(st.booleans())
    return Part(
        step_id, kind, None if needs is None else tuple(needs), draw(conditions),
        continues=draw(st.sampled_from([False, False, True])),
        plan=draw(_seconds if kind == "sleep" else _plans),
        plans=None if each is None else tuple(each),
        concurrency=1 if each is None else draw(st.integers(1, 3)),
        timeout=limited,
        goes_on=kind in ("signal", "event") and draw(st.booleans()),
        child=draw(st.sampled_from(children)) if kind in ("child", "loose") else "",
        undo=draw(st.sampled_from([None, None, 0, FAILS])),
    )  # fmt: skip


@st.composite
def groups(draw: st.DrawFn, prefix: str) -> tuple[Part, ...]:
    """Steps that clean up."""
    made = []
    for n, kind in enumerate(
        draw(st.lists(st.sampled_from(["plain", "awaited", "sleep"]), max_size=2))
    ):
        plan = 60 if kind == "sleep" else draw(st.sampled_from([0, 0, FAILS]))
        made.append(Part(f"{prefix}{n}", kind, plan=plan))
    return tuple(made)


@st.composite
def workflows(draw: st.DrawFn, name: str, children: Sequence[str], sizes: Sequence[int]) -> Made:
    """A workflow that may start *children*."""
    steps: list[Part] = []
    for step_id in "abcde"[: draw(st.sampled_from(sizes))]:
        steps.append(draw(parts(step_id, steps, children)))
    cleans = draw(st.booleans())
    return Made(
        name, tuple(steps),
        draw(groups("failed")) if cleans else (),
        draw(groups("stopped")) if cleans else (),
        draw(groups("last")) if cleans else (),
    )  # fmt: skip


@st.composite
def families(draw: st.DrawFn) -> dict[str, Made]:
    """A workflow, its sub-workflow, and the sub-workflow of that."""
    leaf = draw(workflows("leaf", (), (1, 2)))
    child = draw(workflows("child", ("leaf",), (1, 2, 3)))
    root = draw(workflows("root", ("child", "leaf"), (3, 2, 4, 5, 1)))
    return {"leaf": leaf, "child": child, "root": root}


# -- the model -------------------------------------------------------------------------------------


@dataclass
class Observed:
    """An execution as it has ended, and what the outside did to it and to its sub-workflows."""

    key: str
    made: Made
    status: str
    output: Any
    error: str | None
    runs: Mapping[tuple[str, int], Any]
    children: Mapping[str, Observed] = field(default_factory=dict)
    """The executions that it has started, by their keys."""
    cancelled: bool = False
    """True if somebody has cancelled it, or it was abandoned."""


@dataclass(frozen=True)
class Fate:
    """What a step comes to, if it comes to its end."""

    status: str
    output: Any = None
    elements: Mapping[int, str] = field(default_factory=dict)


def check(
    seen: Observed, sent: Mapping[str, Sequence[str]], log: Sequence[tuple[str, str]]
) -> None:
    """
    Compare an execution that has ended with what it has to be.

    *sent* has the ids of the events and signals for each wait, and *log* what calls began and
    ended, each with its place, in their order.
    """
    judge = _Judge(seen, sent, log)
    judge.check_status()
    judge.check_steps()
    judge.check_clean_up()
    judge.check_order()


class _Judge:
    def __init__(
        self, seen: Observed, sent: Mapping[str, Sequence[str]], log: Sequence[tuple[str, str]]
    ) -> None:
        self.seen, self.made, self.runs = seen, seen.made, seen.runs
        self.sent, self.log = sent, log
        self.needs = self.made.needs(self.made.steps)
        self.fates: dict[str, Fate] = {}
        for step in self.made.steps:
            self.fates[step.id] = self._fate(step)
        self.fatal = [
            step.id
            for step in self.made.steps
            if self.fates[step.id].status == FAILED and not step.continues
        ]

    def _about(self, *words: Any) -> str:
        shown = {key: str(run.status) for key, run in self.runs.items()}
        return f"{self.seen.key} ({self.seen.status}): {words}; runs {shown}; {self.seen.error}"

    # -- what each step comes to -------------------------------------------------------------

    def _fate(self, step: Part) -> Fate:
        needs = [self.fates[need] for need in self.needs[step.id]]
        for need, fate in zip(self.needs[step.id], needs, strict=True):
            stops = fate.status == FAILED and not self._part(need).continues
            if stops or fate.status in (NEVER, OPEN):
                return Fate(NEVER)
        skipped = any(fate.status == SKIPPED for fate in needs)
        if step.needs is not None and step.condition is None and skipped:
            return Fate(SKIPPED)
        if step.condition is False:
            return Fate(SKIPPED)
        if isinstance(step.condition, tuple):
            other, status = step.condition
            if self.fates[other].status != status:
                return Fate(SKIPPED)
        return self._end(step)

    def _part(self, step_id: str) -> Part:
        return next(step for step in self.made.every() if step.id == step_id)

    def _end(self, step: Part) -> Fate:
        ends = {position: self._element(step, position) for position in step.positions}
        if step.plans is None:
            return ends[-1]
        statuses = {position: fate.status for position, fate in ends.items()}
        if FAILED in statuses.values():
            return Fate(FAILED, elements=statuses)
        if OPEN in statuses.values():
            return Fate(OPEN, elements=statuses)
        return Fate(COMPLETED, [fate.output for fate in ends.values()], statuses)

    def place(self, step: Part, position: int) -> str:
        return f"{self.seen.key}/{step.id}" + (f"/{position}" if position >= 0 else "")

    def _element(self, step: Part, position: int) -> Fate:
        place, run = self.place(step, position), self.runs.get((step.id, position))
        if step.calls:
            failing = step.plan_at(position) == FAILS
            return Fate(FAILED) if failing else Fate(COMPLETED, place)
        if step.kind == "sleep":
            return Fate(COMPLETED)
        if step.waits:
            return self._waited(step, run)
        child = self.seen.children.get(place)
        if step.kind == "loose":
            # One that nobody waits for has begun, or will.
            if run is None or run.status != COMPLETED:
                return Fate(OPEN)
            return Fate(COMPLETED, run.output)
        if child is None or run is None or str(run.status) not in (COMPLETED, FAILED):
            return Fate(OPEN)
        if str(run.status) == FAILED:
            timed_out = run.error_code == "DEADLINE_EXCEEDED" and step.timeout
            assert timed_out or child.status in (FAILED, CANCELLED), self._about("child", place)
            return Fate(FAILED)
        assert child.status == COMPLETED, self._about("child", place)
        assert run.output == child.output, self._about("output of child", place)
        return Fate(COMPLETED, child.output)

    def _waited(self, step: Part, run: Any) -> Fate:
        status = None if run is None else str(run.status)
        if status == COMPLETED and run.output is not None:
            sent = self.sent.get(f"{self.seen.key}/{step.id}", ())
            assert run.output["id"] in sent, self._about("an event that nobody sent", step.id)
            return Fate(COMPLETED, run.output)
        if status in (COMPLETED, FAILED):
            assert step.timeout, self._about("timed out", step.id)
            assert step.goes_on == (status == COMPLETED), self._about("timed out", step.id)
            return Fate(str(status))
        return Fate(OPEN)

    # -- comparing ---------------------------------------------------------------------------

    @property
    def _finally_fails(self) -> bool:
        return any(step.plan == FAILS and step.calls for step in self.made.finally_)

    def check_status(self) -> None:
        status, about = self.seen.status, self._about(self.fates)
        if status == COMPLETED:
            assert not self.fatal, about
            assert not self._finally_fails, about
            assert all(fate.status not in (NEVER, OPEN) for fate in self.fates.values()), about
            expected = {step_id: fate.output for step_id, fate in self.fates.items()}
            assert self.seen.output == expected, about
        elif status == FAILED:
            assert self.fatal or self._finally_fails, about
        else:
            assert status == CANCELLED, about
            assert self.seen.cancelled, about
        taken = [
            run.output["id"]
            for (step_id, _), run in self.runs.items()
            if self._is_wait(step_id) and isinstance(run.output, dict)
        ]
        assert len(taken) == len(set(taken)), f"{about}: an event has answered twice"

    def _is_wait(self, step_id: str) -> bool:
        return any(step.id == step_id and step.waits for step in self.made.steps)

    def check_steps(self) -> None:
        whole = self.seen.status == COMPLETED or (self.seen.status == FAILED and not self.fatal)
        for step in self.made.steps:
            fate = self.fates[step.id]
            self._check_run(step.id, -1, fate.status, whole)
            if fate.status in (NEVER, SKIPPED):
                begun = [key for key in self.runs if key[0] == step.id and key[1] >= 0]
                assert begun == [], self._about(step.id)
            for position, status in fate.elements.items():
                # Once one has failed, others need not have begun.
                certain = whole and fate.status == COMPLETED
                self._check_run(step.id, position, status, certain)
            run = self.runs.get((step.id, -1))
            if run is not None and str(run.status) not in (CANCELLED, SKIPPED):
                for need in self.needs[step.id]:
                    before = self.runs.get((need, -1))
                    assert before is not None, self._about(step.id, need)
                    assert str(before.status) in (COMPLETED, SKIPPED, FAILED), self._about(step.id)
        known = {(step.id, -1) for step in self.made.every()}
        known |= {(step.id, position) for step in self.made.steps for position in step.positions}
        undoing = {f"{step.id}.compensate" for step in self.made.steps if step.undo is not None}
        for key in self.runs:
            assert key in known or key[0] in undoing, self._about(key)
        if self.seen.status == FAILED and self.fatal:
            failed = [
                one for one in self.fatal
                if (one, -1) in self.runs and self.runs[one, -1].status == FAILED
            ]  # fmt: skip
            assert failed, self._about("no step has failed", self.fatal)

    def _check_run(self, step_id: str, position: int, fate: str, certain: bool) -> None:
        run = self.runs.get((step_id, position))
        status = None if run is None else str(run.status)
        about = self._about(step_id, position, fate)
        if certain:
            assert status == fate, about
        elif fate == NEVER:
            assert status is None, about
        else:
            # What runs or waits when its workflow fails may end otherwise, and without a retry.
            # A failing list may end by any of its elements.
            allowed = {None, CANCELLED, fate} - {OPEN}
            if self._flaky(step_id, position) or fate == OPEN:
                allowed.add(FAILED)
            assert status in allowed, about

    def _flaky(self, step_id: str, position: int) -> bool:
        part = self._part(step_id)
        plans = [part.plan] if part.plans is None else part.plans
        return part.calls and any(plan > 0 for plan in plans)

    def check_clean_up(self) -> None:
        seen, made = self.seen, self.made
        if seen.status == COMPLETED:
            self._check_group(made.finally_, runs=True)
            self._check_group((*made.on_failure, *made.on_cancel), runs=False)
            assert not [key for key in self.runs if key[0].endswith(".compensate")]
            return
        if seen.status == FAILED:
            in_finally = not self.fatal
            self._check_group(made.finally_, runs=True)
            self._check_group(made.on_cancel, runs=False)
            self._check_group(made.on_failure, runs=not in_finally)
            self._check_undone(none=in_finally)
            return
        self._check_group(made.on_cancel, runs=True)
        self._check_group(made.finally_, runs=True, interrupted=True)
        self._check_undone()

    def _check_group(self, steps: Sequence[Part], *, runs: bool, interrupted: bool = False) -> None:
        for step in steps:
            run = self.runs.get((step.id, -1))
            status = None if run is None else str(run.status)
            failing = step.calls and step.plan == FAILS
            expected = {FAILED if failing else COMPLETED} if runs else {None}
            if interrupted:
                # Cancelled while it cleaned up after success or a failure.
                expected.add(CANCELLED)
            assert status in expected, self._about(step.id, expected)

    def _check_undone(self, *, none: bool = False) -> None:
        failed = []
        for step in self.made.steps:
            if step.undo is None:
                continue
            undo = f"{step.id}.compensate"
            positions = [
                position for position in step.positions
                if (run := self.runs.get((step.id, position))) is not None
                and run.status == COMPLETED
            ]  # fmt: skip
            expected = COMPLETED if step.undo != FAILS else FAILED
            for position in positions if not none else ():
                run = self.runs.get((undo, position))
                assert run is not None, self._about("not undone", step.id, position)
                assert str(run.status) == expected, self._about(undo, position)
                failed += [step.id] * (expected == FAILED)
            begun = [key[1] for key in self.runs if key[0] == undo and key[1] >= 0]
            if step.plans is not None:
                assert set(begun) <= set(positions), self._about(undo)
        for step_id in failed:
            assert step_id in (self.seen.error or ""), self._about("no word of it", step_id)

    # -- order -------------------------------------------------------------------------------

    def check_order(self) -> None:
        """A step is called after all that it needs has ended; what undoes comes in reverse."""
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for at, (word, place) in enumerate(self.log):
            if place.startswith(f"{self.seen.key}/"):
                step_id = place[len(self.seen.key) + 1 :].split("/")[0]
                first.setdefault(step_id, at)
                if word == "end":
                    last[step_id] = at
        for step in self.made.steps:
            for need in self.needs[step.id]:
                if step.calls and self._part(need).calls and {step.id, need} <= {*first} & {*last}:
                    assert last[need] < first[step.id], self._about(step.id, "before", need)
        undone = [f"undo{step.id}" for step in self.made.steps if f"undo{step.id}" in first]
        for one, other in zip(undone, undone[1:], strict=False):
            assert last[other] < first[one], self._about("undone in the wrong order", undone)
