"""
What an execution of a random workflow has to come to.

The model knows the rules that the documentation states, and none of the product's code. Where
steps race (one fails while another runs, or somebody cancels), it says what may be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from made_workflows import (
    CANCELLED, COMPLETED, FAILED, FAILS, SKIPPED, Beside, Coded, Made, Part,
)  # fmt: skip

NEVER, OPEN = "NEVER", "OPEN"
"""The fates of a step that can't begin, and of one whose end nobody has seen."""
AGAIN = "again"
"""The word in a log for an execution that somebody lets go on after its end."""

Key = tuple[str, int]
"""A step's id, and the position of an element of its list; -1 is the step itself."""
Kept = Mapping[Key, tuple[str, Any]]
"""The steps that are not done again, each with its status and its output."""


@dataclass
class Observed:
    """An execution as it has ended, and what the outside did to it and to its sub-workflows."""

    key: str
    made: Made | Coded
    status: str
    output: Any
    error: str | None
    runs: Mapping[Key, Any]
    children: Mapping[str, Observed] = field(default_factory=dict)
    """The executions that it has started, by their keys."""
    cancelled: bool = False
    """True if somebody has cancelled it, or it was abandoned."""
    kept: Kept = field(default_factory=dict)
    """The steps that it has from its first end, or from the execution that it is a copy of."""
    sent: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The ids of the events and signals that were sent, by the place of the wait."""
    decided: Mapping[Key, Mapping[str, bool]] = field(default_factory=dict)
    """The people who have decided an approval, and whether they approved."""
    log: Sequence[tuple[str, str]] = ()
    """What calls began and ended, each with its step's id, in their order."""
    healed: Collection[str] = ()
    """The steps that clean up and were to fail, and have been healed since."""


@dataclass(frozen=True)
class Fate:
    """What a step comes to, if it comes to its end."""

    status: str
    output: Any = None
    elements: Mapping[int, str] = field(default_factory=dict)


def check(seen: Observed) -> None:
    """Compare an execution that has ended with what it has to be."""
    (_CodeJudge if isinstance(seen.made, Coded) else _Judge)(seen).check()


def kept_after(
    made: Made | Coded, runs: Mapping[Key, Any], step_id: str | None, *, retried: bool = False
) -> dict[Key, tuple[str, Any]]:
    """
    Return the steps that stay as they are when an execution goes on after its end.

    With *step_id* that step and its followers don't. Where it is *retried*, it has failed and is
    tried again, and others that failed and may stay as they are.
    """
    if isinstance(made, Coded):
        gone = set() if step_id is None else made.followers(step_id)
        called = {key[0] for key in runs}
        # One that failed as the last of its line may be why that has ended.
        dealt_with = {
            step.id for step in made.every()
            if step_id is not None
            or (step.continues and called & (made.followers(step.id) - {step.id}))
        }  # fmt: skip
        return {
            key: (str(run.status), run.output) for key, run in runs.items()
            if key[0] not in gone
            and (run.status == COMPLETED or (run.status == FAILED and key[0] in dealt_with))
        }  # fmt: skip
    gone_keys: set[Key] = set()
    gone = made.followers(step_id) if step_id is not None else set()
    for step in made.steps:
        undone = [
            at for at in step.positions
            if (run := runs.get((f"{step.id}.compensate", at))) is not None
            and run.status == COMPLETED
        ]  # fmt: skip
        if undone:
            gone |= made.followers(step.id) - {step.id}
            gone_keys |= {(step.id, at) for at in (*undone, -1)}
    own = {step.id: step for step in made.steps}
    return {
        key: (str(run.status), run.output) for key, run in runs.items()
        if key[0] in own and key not in gone_keys
        and (key[0] not in gone or (retried and key[0] == step_id and key[1] >= 0))
        and (run.status in (COMPLETED, SKIPPED)
             or (retried and run.status == FAILED and own[key[0]].continues
                 and key[0] not in gone))
    }  # fmt: skip


class _Fates:
    """What steps come to by themselves, as definitions and functions call them."""

    def __init__(self, seen: Observed) -> None:
        self.seen, self.runs = seen, seen.runs
        self.fates: dict[str, Fate] = {}

    def _about(self, *words: Any) -> str:
        shown = {key: str(run.status) for key, run in self.runs.items()}
        return f"{self.seen.key} ({self.seen.status}): {words}; runs {shown}; {self.seen.error}"

    def _part(self, step_id: str) -> Part:
        return next(step for step in self.seen.made.every() if step.id == step_id)

    def place(self, step: Part, position: int) -> str:
        return f"{self.seen.key}/{step.id}" + (f"/{position}" if position >= 0 else "")

    def _element(self, step: Part, position: int) -> Fate:
        if (step.id, position) in self.seen.kept:
            return Fate(*self.seen.kept[step.id, position])
        place, run = self.place(step, position), self.runs.get((step.id, position))
        if step.calls:
            failing = step.plan_at(position) == FAILS
            return Fate(FAILED) if failing else Fate(COMPLETED, place)
        if step.kind == "sleep":
            return Fate(COMPLETED)
        if step.kind == "approval":
            return self._decided(step, position, run)
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
            sent = self.seen.sent.get(f"{self.seen.key}/{step.id}", ())
            assert run.output["id"] in sent, self._about("an event that nobody sent", step.id)
            return Fate(COMPLETED, run.output)
        if status in (COMPLETED, FAILED):
            assert step.timeout, self._about("timed out", step.id)
            assert (step.late == "continue") == (status == COMPLETED), self._about(step.id)
            return Fate(str(status))
        return Fate(OPEN)

    def _decided(self, step: Part, position: int, run: Any) -> Fate:
        status = None if run is None else str(run.status)
        if status not in (COMPLETED, FAILED):
            return Fate(OPEN)
        about = self._about(step.id, position, run.output, run.error)
        if status == FAILED:
            if run.error_code == "DEADLINE_EXCEEDED":
                assert step.timeout and step.late == "fail", about
            elif "nobody decided" in run.error:
                assert step.timeout and step.late == "reject" and not step.may_reject, about
            else:
                by = run.error.rpartition("rejected by ")[2]
                assert self.seen.decided[step.id, position][by] is False, about
                assert not step.may_reject, about
            return Fate(FAILED)
        output = run.output
        if output["timed_out"]:
            assert step.timeout and output["by"] is None, about
            assert output["approved"] == (step.late == "approve"), about
            assert step.late != "fail" and (step.late != "reject" or step.may_reject), about
        else:
            approved = self.seen.decided[step.id, position][output["by"]]
            assert output["approved"] == approved, about
            assert approved or step.may_reject, about
        return Fate(COMPLETED, output)

    def _flaky(self, step_id: str, position: int) -> bool:
        part = self._part(step_id)
        plans = [part.plan] if part.plans is None else part.plans
        return part.calls and any(plan > 0 for plan in plans)

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

    def check_answers(self) -> None:
        """No event, and no signal, has answered twice."""
        taken = [
            run.output["id"]
            for (step_id, _), run in self.runs.items()
            if self._is_wait(step_id) and isinstance(run.output, dict)
        ]
        assert len(taken) == len(set(taken)), self._about("an event has answered twice")

    def _is_wait(self, step_id: str) -> bool:
        return any(
            step.id == step_id and step.kind in ("signal", "event")
            for step in self.seen.made.every()
        )

    def called(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return when each step was first called, and when a call of it ended last."""
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for at, (word, step_id) in enumerate(self.seen.log):
            if word == AGAIN:
                first, last = {}, {}
                continue
            first.setdefault(step_id, at)
            if word == "end":
                last[step_id] = at
        return first, last

    def check_called(self, steps: Iterable[Part]) -> None:
        """What is kept is not called again, and whatever else has completed was called."""
        first, last = self.called()
        for step in steps:
            run, kept = self.runs.get((step.id, -1)), self.seen.kept
            if not step.calls or run is None:
                continue
            if (step.id, -1) in kept:
                assert step.id not in first, self._about(step.id, "is kept, and called again")
            elif run.status == COMPLETED and step.positions:
                if not any((step.id, at) in kept for at in step.positions):
                    assert step.id in last, self._about(step.id, "has not been called again")

    def check_undone_in_order(self, undoing: Sequence[str]) -> None:
        """What undoes is called in the reverse order of what it undoes."""
        first, last = self.called()
        undone = [each for each in undoing if each in first]
        for one, other in zip(undone, undone[1:], strict=False):
            assert last[other] < first[one], self._about("undone in the wrong order", undone)


class _Judge(_Fates):
    """Compares executions of definitions."""

    def __init__(self, seen: Observed) -> None:
        super().__init__(seen)
        assert isinstance(seen.made, Made)
        self.made = seen.made
        self.needs = self.made.needs(self.made.steps)
        for step in self.made.steps:
            self.fates[step.id] = self._fate(step)
        self.fatal = [
            step.id
            for step in self.made.steps
            if self.fates[step.id].status == FAILED and not step.continues
        ]

    def check(self) -> None:
        self.check_status()
        self.check_answers()
        self.check_steps()
        self.check_clean_up()
        self.check_order()
        self.check_called(self.made.steps)

    # -- what each step comes to -------------------------------------------------------------

    def _fate(self, step: Part) -> Fate:
        if (step.id, -1) in self.seen.kept:
            status, output = self.seen.kept[step.id, -1]
            its = {
                at: self.seen.kept[step.id, at] for at in step.positions
                if at >= 0 and (step.id, at) in self.seen.kept
            }  # fmt: skip
            if step.plans is not None and status == COMPLETED:
                output = [its[at][1] for at in step.positions]
            return Fate(status, output, {at: status for at, (status, _) in its.items()})
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

    # -- comparing ---------------------------------------------------------------------------

    @property
    def _finally_fails(self) -> bool:
        return any(self._cleans(step) == FAILED for step in self.made.finally_)

    def _cleans(self, step: Part) -> str:
        """Return what a step that cleans up comes to."""
        healed = step.calls and step.id in self.seen.healed
        return COMPLETED if healed else self._element(step, -1).status

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

    def check_steps(self) -> None:
        whole = self.seen.status == COMPLETED or (self.seen.status == FAILED and not self.fatal)
        for step in self.made.steps:
            fate = self.fates[step.id]
            self._check_run(step.id, -1, fate.status, whole)
            if fate.status in (NEVER, SKIPPED):
                begun = [
                    key for key in self.runs
                    if key[0] == step.id and key[1] >= 0 and key not in self.seen.kept
                ]  # fmt: skip
                assert begun == [], self._about(step.id)
            for position, status in fate.elements.items():
                # Once one has failed, others need not have begun.
                certain = whole and fate.status == COMPLETED
                self._check_run(step.id, position, status, certain)
            run = self.runs.get((step.id, -1))
            kept = (step.id, -1) in self.seen.kept
            if run is not None and not kept and str(run.status) not in (CANCELLED, SKIPPED):
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
            expected = {self._cleans(step)} if runs else {None}
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
            succeeds = step.undo != FAILS or undo in self.seen.healed
            expected = COMPLETED if succeeds else FAILED
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
        first, last = self.called()
        for step in self.made.steps:
            for need in self.needs[step.id]:
                if step.calls and self._part(need).calls and {step.id, need} <= {*first} & {*last}:
                    assert last[need] < first[step.id], self._about(step.id, "before", need)
        self.check_undone_in_order([f"{step.id}.compensate" for step in self.made.steps])


class _CodeJudge(_Fates):
    """Compares executions of functions."""

    def __init__(self, seen: Observed) -> None:
        super().__init__(seen)
        assert isinstance(seen.made, Coded)
        self.made = seen.made
        self.undone: set[str] = set()
        self.ends = self._line(self.made.body)

    def check(self) -> None:
        self.check_status()
        self.check_answers()
        self.check_steps()
        self.check_undone()
        first, last = self.called()
        self._check_order(self.made.body, first, last)
        self.check_called(self.made.every())

    def _line(self, body: Sequence[Part | Beside]) -> str:
        """Find what steps one after another come to, and return what all of them do."""
        for n, one in enumerate(body):
            if isinstance(one, Part):
                fate = self.fates[one.id] = self._element(one, -1)
                ends = COMPLETED if fate.status == FAILED and one.continues else fate.status
            else:
                each = [self._line(line) for line in one.lines]
                ends = next((end for end in (OPEN, FAILED) if end in each), COMPLETED)
            if ends == COMPLETED:
                continue
            for step in Coded("", tuple(body[n + 1 :])).every():
                self.fates[step.id] = Fate(NEVER)
            if ends == FAILED:
                self.undone |= {
                    each.id for each in body[:n]
                    if isinstance(each, Part) and each.undo is not None
                    and self.fates[each.id].status == COMPLETED
                }  # fmt: skip
            return ends
        return COMPLETED

    def check_status(self) -> None:
        status, about = self.seen.status, self._about(self.fates)
        if status == CANCELLED:
            assert self.seen.cancelled, about
            return
        assert status == self.ends, about
        if status == COMPLETED:
            expected = {step_id: self._told(step_id) for step_id in self.fates}
            assert self.seen.output == expected, about

    def _told(self, step_id: str) -> Any:
        """Return what the function has made of a step's output."""
        kind, output = self._part(step_id).kind, self.fates[step_id].output
        names = {"approval": "by", "signal": "id", "event": "id", "loose": "execution_id"}
        return output if output is None or kind not in names else output[names[kind]]

    def check_steps(self) -> None:
        for step in self.made.every():
            # Lines beside each other go on to their ends, unless it is cancelled.
            certain = self.seen.status != CANCELLED and self.fates[step.id].status != NEVER
            self._check_run(step.id, -1, self.fates[step.id].status, certain)
        known = {step.id for step in self.made.every()}
        known |= {f"undo{step.id}" for step in self.made.every() if step.undo is not None}
        assert {key[0] for key in self.runs} <= known, self._about("another step")

    def check_undone(self) -> None:
        for step in self.made.every():
            if step.undo is None:
                continue
            run = self.runs.get((f"undo{step.id}", -1))
            about = self._about("undo", step.id, self.undone)
            if run is not None:
                assert str(run.status) == (FAILED if step.undo == FAILS else COMPLETED), about
                assert step.undo != FAILS or f"undo{step.id}" in (self.seen.error or ""), about
                assert self.runs[step.id, -1].status == COMPLETED, about
            if self.seen.status != CANCELLED:
                assert (run is not None) == (step.id in self.undone), about
        if self.seen.status == CANCELLED:
            self._check_undone_when_cancelled()

    def _check_undone_when_cancelled(self) -> None:
        """Whatever the function was inside of when it was stopped is undone."""
        for n, one in enumerate(self.made.body):
            if not isinstance(one, Part) or one.undo is None:
                continue
            run, after = self.runs.get((one.id, -1)), Coded("", self.made.body[n + 1 :]).every()
            left = [step for step in after if not self._is_over(step)]
            if run is not None and run.status == COMPLETED and left:
                assert (f"undo{one.id}", -1) in self.runs, self._about("not undone", one.id)

    def _is_over(self, step: Part) -> bool:
        run = self.runs.get((step.id, -1))
        return run is not None and str(run.status) in (COMPLETED, FAILED)

    def _check_order(
        self, body: Sequence[Part | Beside], first: Mapping[str, int], last: Mapping[str, int]
    ) -> None:
        before: list[str] = []
        for one in body:
            lines = [(one,)] if isinstance(one, Part) else one.lines
            for line in lines:
                if isinstance(one, Beside):
                    self._check_order(line, first, last)
                for step in line:
                    for other in before:
                        if {step.id, other} <= {*first} & {*last}:
                            assert last[other] < first[step.id], self._about(other, step.id)
            before += [step.id for line in lines for step in line]
        undoing = [f"undo{one.id}" for one in body if isinstance(one, Part)]
        self.check_undone_in_order(undoing)
