"""
Processes that come and go on one storage, an operator, and a clock, all of them at random.

A process dies, or an operator acts, at any moment between two transactions or two statements.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import hypothesis.strategies as st
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes, StorageError, WorkflowError
from automate_kernel.operations.context import current_call
from automate_kernel.storage import Storage
from automate_kernel.storage.tables import EXECUTION, OUTBOX, SIGNAL, STEP, WAIT
from automate_testing.clock import FakeClock
from automate_kernel.worker import Worker
from automate_kernel.workflows.decide.admission import SkippedError
from automate_kernel.workflows.decide.waits import ADVANCE
from automate_kernel.workflows.execution import Execution, StepRun
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from made_workflows import FAILS, HOUR, Coded, Made, Part, families
from mortal_storage import Act, Death, Mortal
from workflow_model import AGAIN, Key, Kept, Observed, check, kept_after

LEASE_SECONDS = 30.0
STEERING = ["answer", "answer", "answer", "pause", "cancel", "retry", "resume", "fork"]
PATIENCE = 20.0
_MOST_FORKS = 2
_MOST_REOPENED = 3


class Machine(RuleBasedStateMachine):
    """Processes that come and go on one storage, an operator, and a clock."""

    open_storage: Callable[[FakeClock], Storage]
    by_worker = False

    @initialize(
        made=families(),
        repairs=st.lists(
            st.tuples(st.sampled_from(["resume", "clean", "fork", "clean"]), st.integers(0, 9)),
            max_size=6,
        ),
        shown=st.booleans(),
    )
    def begin(
        self, made: dict[str, Made | Coded], repairs: list[tuple[str, int]], shown: bool
    ) -> None:
        self.repairs, self.shown = repairs, shown
        self.made, self.clock = made, FakeClock()
        self.storage = type(self).open_storage(self.clock)
        self.operator = self.new_kernel(self.storage)
        self.started: list[str] = []
        self.starts = self.forks = self.people = 0
        self.logs: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self.calls: Counter[str] = Counter()
        self.begun: set[str] = set()
        self.sent: defaultdict[str, list[str]] = defaultdict(list)
        self.expected: defaultdict[str, dict[Key, set[str]]] = defaultdict(dict)
        self.decided: defaultdict[str, dict[Key, dict[str, bool]]] = defaultdict(dict)
        self.cancelled: set[str] = set()
        self.mended: dict[str, Made] = {}
        self.healed: defaultdict[str, set[str]] = defaultdict(set)
        self.kept: dict[str, Kept] = {}
        self.reopened: Counter[str] = Counter()
        self.former: set[str] = set()
        self.before: list[tuple[Execution, int]] = []
        self.ended: dict[str, tuple[Execution, int]] = {}
        """Sub-workflows that may go on with their parents, as they were, with their logs' lengths."""
        self.wrong: list[str] = []
        self.new_process()
        self.start("root", "x")

    def teardown(self) -> None:
        if not hasattr(self, "process"):
            return
        try:
            self.drain()
            self.check_all()
            # Most have ended only now.
            for what, number in self.repairs:
                self.act(what, number)()
            if self.repairs:
                self.drain()
                self.check_all()
        finally:
            self.process.close()
            self.operator.close()

    # -- processes ---------------------------------------------------------------------------

    def new_kernel(self, storage: Any) -> Kernel:
        kernel = Kernel(storage, discover=False, secrets={}, lease_seconds=LEASE_SECONDS)

        @kernel.action("plain")
        def plain(at: str, plan: int) -> str:
            self.called(at, plan)("end")
            return at

        @kernel.action("awaited")
        async def awaited(at: str, plan: int) -> str:
            note = self.called(at, plan)
            await asyncio.sleep(0)
            note("end")
            return at

        for made in self.made.values():
            made.add_to(kernel, plain)
        if self.shown:
            # Each call seems a long one, and has a row while it runs, if no thread makes it.
            kernel._runner.mean_seconds = lambda action: 60.0  # type: ignore[method-assign]
        return kernel

    def called(self, at: str, plan: int) -> Callable[[str], None]:
        """Note that a step is called, or fail as planned; return what notes its end."""
        call = current_call()
        assert call is not None and call.execution_id is not None and call.step_id is not None
        step_id, log = call.step_id.partition("@")[0], self.logs[call.execution_id]

        def note(word: str) -> None:
            log.append((word, step_id))

        position = int((call.idempotency_key or "").rpartition(":")[2])
        execution = self.operator.executions.get(call.execution_id)
        run = execution and execution.step(call.step_id, position)
        # Who had it when it was cancelled may be about to call it.
        if run is not None and run.status.finished and run.status != "CANCELLED":
            self.wrong.append(f"{at} is called, and was {run.status}")
        if execution is not None:
            self.begun.add(execution.id)
            self.check_place(execution)
        self.calls[at] += 1
        note("begin")
        if (plan == FAILS and step_id not in self.healed[call.execution_id]) or (
            self.calls[at] <= plan
        ):
            note("end")
            raise AutomateError(ErrorCodes.UNAVAILABLE, "the other side is down")
        return note

    def check_place(self, execution: Execution) -> None:
        """No more executions of a lane go on than may."""
        made = self.made_of(execution)
        if isinstance(made, Coded) or made.concurrency is None:
            return
        going = {
            row["id"] for row in self.rows(EXECUTION)
            if row["workflow"] == execution.name and row["id"] in self.begun
            and row["status"] in ("RUNNING", "CANCELLING", "PAUSED")
            and row["event"]["payload"]["lane"] == lane_of(execution)
        }  # fmt: skip
        if len(going) > made.concurrency:
            self.wrong.append(f"{going} go on at once")

    def new_process(self) -> None:
        self.mortal = Mortal(self.storage)
        self.process = self.new_kernel(self.mortal)

    def bury(self) -> None:
        """Let the leases of a process that has died run out, and start another."""
        self.mortal.dead = StorageError  # which its last words survive
        self.process.close()
        self.new_process()
        self.clock.advance(LEASE_SECONDS + 1)

    # -- what happens ------------------------------------------------------------------------

    @precondition(lambda self: self.starts < 4)
    @rule(name=st.sampled_from(["root", "root", "child"]), lane=st.sampled_from(["x", "x", "y"]))
    def start(self, name: str, lane: str) -> None:
        key, self.starts = f"r{self.starts}", self.starts + 1
        made = self.made[name]
        limit = None if isinstance(made, Coded) else made.concurrency
        when_full = "queue" if isinstance(made, Coded) else made.when_full
        going = [one for one in self.live() if one.name == name and lane_of(one) == lane]
        going.sort(key=lambda one: (one.created_at, one.item_id))
        full = limit is not None and len(going) >= limit
        try:
            self.started.append(self.operator.start(name, {"key": key, "lane": lane}))
        except SkippedError as error:
            assert full and when_full == "skip" and error.running == going[0].id, going
            return
        assert not (full and when_full == "skip"), going
        if full and when_full == "cancel_older":
            assert limit is not None
            for one in going[: len(going) - limit + 1]:
                now = self.operator.executions.get(one.id)
                assert now is not None and str(now.status) in ("CANCELLED", "CANCELLING"), now
                self.cancelled.add(one.id)

    @rule(
        dies_at=st.just(0) | st.integers(1, 120),
        acts=st.dictionaries(
            st.integers(1, 80),
            st.tuples(st.sampled_from(STEERING), st.integers(0, 9)),
            max_size=3,
        ),
        soon=st.sampled_from([0, 0, 1, 2]),
    )
    def run(self, dies_at: int, acts: dict[int, tuple[str, int]], soon: int) -> None:
        """Let a process work until nothing is due, or until it dies: *soon* after an act, say."""
        mortal = self.mortal
        now = mortal.moment
        if soon and acts:
            dies_at = min(acts) + soon
        mortal.dies_at = now + dies_at if dies_at else 0
        mortal.acts = {now + at: self.act(*what) for at, what in acts.items()}
        with suppress(Death):
            self.work()
        mortal.dies_at, mortal.acts = 0, {}
        if mortal.dead is not None:
            self.bury()
        else:
            self.settle()
            self.check_rest()

    def work(self) -> None:
        if not self.by_worker:
            self.process.run_until_idle()
            return
        # It dies as one does that loses its database for good: its threads end by themselves.
        self.mortal.death = StorageError
        self.operator.outbox.reap()
        worker = self.process.worker(poll_seconds=0.01, slots=4, grace_seconds=1.0)
        thread = threading.Thread(target=self.run_worker, args=(worker,), daemon=True)
        thread.start()
        for _ in range(int(PATIENCE * 200)):
            if self.mortal.dead is not None or not self.due():
                break
            threading.Event().wait(0.005)
        else:
            raise AssertionError(f"it does not come to rest: {self.due()}")
        worker.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()

    def run_worker(self, worker: Worker) -> None:
        with suppress(StorageError):  # it died before it had begun
            worker.run()

    def due(self) -> list[dict[str, Any]]:
        """What a worker has, or is to take."""
        now = self.clock()
        return [
            row for row in self.unfinished()
            if row["status"] == "RUNNING"
            or (row["next_attempt_at"] <= now and row["waiting_for"] not in ("resume", "key"))
        ]  # fmt: skip

    def settle(self) -> None:
        """Work until nothing more is due: what an act has left is due only now."""
        self.work()

    def act(self, what: str, number: int) -> Act:
        steer = {
            "answer": self.answer, "cancel": self.stop, "pause": self.pause, "retry": self.retry,
        }  # fmt: skip
        repair = {"resume": self.resume, "fork": self.fork, "clean": self.clean_up_again}

        def act() -> None:
            found = self.live() if what in steer else self.repairable(what)
            # Before anything goes on: another thread may take it up at once.
            self.before = [(one, len(self.logs[one.id])) for one in self.all()]
            if found:
                (steer | repair)[what](found[number % len(found)], number)

        return act

    @precondition(lambda self: self.started)
    @rule(what=st.sampled_from(STEERING), number=st.integers(0, 9))
    def steer(self, what: str, number: int) -> None:
        self.act(what, number)()

    @rule(seconds=st.sampled_from([31, 61, HOUR - 1, HOUR + 1]))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    def made_of(self, one: Execution) -> Made | Coded:
        """Return what the execution is one of, after it was resumed with another definition too."""
        return self.mended.get(one.id, self.made[one.name])

    def answer(self, one: Execution, number: int) -> None:
        """Send what a step waits for, or will; now and then it is something that doesn't fit."""
        waits = [step for step in self.made_of(one).every() if step.waits]
        if waits:
            self.answer_step(one, waits[number % len(waits)], ok=number % 4 != 3)

    def answer_step(self, one: Execution, step: Part, *, ok: bool = True) -> None:
        if step.kind == "approval":
            for run in one.steps:
                if plain_key(run)[0] == step.id and str(run.status) == "WAITING":
                    self.decide(one, run, ok=ok)
            return
        at = f"{key_of(one)}/{step.id}"
        waiting = [one]
        if step.kind == "event":
            # Whoever has the place takes it.
            waiting = [other for other in self.live() if key_of(other) == key_of(one)]
            sent = self.operator.emit("go", {"at": at, "ok": ok})
        else:
            try:
                sent = self.operator.signal(one.id, step.id, {"ok": ok})
            except AutomateError:
                return  # it has ended just now
            (sent,) = (row["event"]["id"] for row in self.rows(SIGNAL) if row["id"] == sent)
        # A function takes any signal of the name.
        if ok or (step.kind == "signal" and isinstance(self.made_of(one), Coded)):
            self.sent[at].append(sent)
            for each in waiting:
                self.expected[each.id].setdefault((step.id, -1), set()).add(sent)

    def decide(self, one: Execution, run: StepRun, *, ok: bool) -> None:
        by, self.people = f"p{self.people}", self.people + 1
        approvals = self.operator.approvals
        decide = approvals.approve if ok else approvals.reject
        try:
            decide(one.id, run.step_id, run.position, by=by)
        except AutomateError as error:
            # Somebody was quicker, or it is too late.
            assert error.code in ("FAILED_PRECONDITION", "NOT_FOUND"), error
            return
        key = plain_key(run)
        assert key not in self.expected[one.id], f"{key} is decided twice"
        self.decided[one.id].setdefault(key, {})[by] = ok
        self.expected[one.id][key] = {by}

    def stop(self, one: Execution, number: int) -> None:
        if one.status != "CANCELLING" and self.operator.executions.cancel(one.id):
            self.cancelled.add(one.id)

    def pause(self, one: Execution, number: int) -> None:
        if not self.operator.executions.unpause(one.id):
            self.operator.executions.pause(one.id)

    def retry(self, one: Execution, number: int) -> None:
        """Try a step now that waits for its retry."""
        runs = [run for run in one.steps if str(run.status) == "RETRY"]
        for run in runs[:1]:
            self.operator.executions.retry_step(one.id, run.step_id, run.position)

    # -- repairs -----------------------------------------------------------------------------

    def repairable(self, what: str) -> list[Execution]:
        """Find executions to resume or to copy, none of them one that another waits for."""
        found = [one for one in self.all() if one.parent_id is None]
        if what == "fork":
            # A worker's other threads may go on with it at this moment.
            still = [one for one in found if one.status.finished or not self.by_worker]
            return still if self.forks < _MOST_FORKS else []
        return [
            one for one in found
            if one.status.finished and self.reopened[one.id] < _MOST_REOPENED
            and (what != "clean" or self.not_cleaned_up(one))
        ]  # fmt: skip

    def not_cleaned_up(self, one: Execution) -> list[StepRun]:
        """Find the steps that were to clean up, and have failed."""
        made = self.made_of(one)
        if isinstance(made, Coded):
            return []
        own = {step.id for step in made.steps}
        return [run for run in one.steps if str(run.status) == "FAILED" and run.step_id not in own]

    def resume(self, one: Execution, number: int) -> None:
        """Let an execution go on after its end: as it is, from a step, or with another definition."""
        made, ways = self.made_of(one), [self.resume_plainly, self.resume_from, self.retry_failed]
        if isinstance(made, Made):
            ways.append(self.resume_mended)
        # Before it goes on: another thread may take it up at once.
        before = self.reopened[one.id]
        self.logs[one.id].append((AGAIN, ""))
        ways[number % len(ways)](one, number)
        if self.reopened[one.id] == before:
            self.logs[one.id].pop()

    def resume_plainly(self, one: Execution, number: int) -> None:
        made = self.made_of(one)
        try:
            resumed = self.operator.executions.resume(one.id)
        except WorkflowError as error:
            self.resume_as_told(one, error)
            return
        assert resumed == (one.status == "FAILED"), one.status
        if resumed:
            self.goes_on(one, made, None)

    def resume_from(self, one: Execution, number: int) -> None:
        made = self.made_of(one)
        step_id = self.some_step(one, made, number)
        if step_id is None:
            return
        try:
            resumed = self.operator.executions.resume(one.id, step_id=step_id)
        except WorkflowError as error:
            self.resume_as_told(one, error)
            return
        if resumed:
            self.goes_on(one, made, step_id.partition("@")[0])

    def resume_as_told(self, one: Execution, error: WorkflowError) -> None:
        """Do what the refusal to go on after something was undone says, if it names a step."""
        step_id = self.named(one, error)
        if step_id is not None:
            assert self.operator.executions.resume(one.id, step_id=step_id)
            self.goes_on(one, self.made_of(one), step_id.partition("@")[0])

    def named(self, one: Execution, error: WorkflowError) -> str | None:
        """Return the step that the refusal names, which only what was undone can cause."""
        undone = [run.step_id for run in one.steps if run.step_id.startswith("undo")]
        assert isinstance(self.made_of(one), Coded) and undone, one
        told = re.search(r"'(\S+)' is the last that can be", error.hint or "")
        return told and told[1]

    def retry_failed(self, one: Execution, number: int) -> None:
        made, own = self.made_of(one), {step.id for step in self.made_of(one).every()}
        if isinstance(made, Made):
            own = {step.id for step in made.steps}
        failed = [
            run for run in one.steps
            if str(run.status) == "FAILED" and plain_key(run)[0] in own
        ]  # fmt: skip
        if failed:
            run = failed[number % len(failed)]
            try:
                assert self.operator.executions.retry_step(one.id, run.step_id, run.position)
            except WorkflowError as error:
                self.resume_as_told(one, error)
                return
            self.goes_on(one, made, plain_key(run)[0], retried=True)

    def resume_mended(self, one: Execution, number: int) -> None:
        """Correct the calls that fail, and add a step; or lose one that has completed."""
        made = self.made_of(one)
        assert isinstance(made, Made)
        mended, executions = made.mended(), self.operator.executions
        if number % 2:
            step_id = self.some_step(one, made, number)
            assert executions.resume(one.id, step_id=step_id, definition=mended.workflow())
            self.goes_on(one, made, step_id)
            self.mended[one.id] = mended
            return
        if one.status != "FAILED":
            return
        if number == 9 and (done := list(kept_after(made, runs_of(one), None))):
            self.lose_a_step(one, mended, done[0][0])
        assert executions.resume(one.id, definition=mended.workflow())
        self.goes_on(one, made, None)
        self.mended[one.id] = mended

    def clean_up_again(self, one: Execution, number: int) -> None:
        """Try a step that cleans up once more, which has failed: what ails it may be healed."""
        made, failed = self.made_of(one), self.not_cleaned_up(one)
        assert isinstance(made, Made)
        own = {step.id for step in made.steps}
        run, cancelled = failed[number % len(failed)], one.id in self.cancelled
        if number % 3:
            self.healed[one.id].add(run.step_id)
        self.logs[one.id].append((AGAIN, ""))
        assert self.operator.executions.retry_step(one.id, run.step_id, run.position)
        self.goes_on(one, made, None)
        # Its own steps stay as they are, however they have ended.
        self.kept[one.id] = {
            key: (str(its.status), its.output) for key, its in runs_of(one).items() if key[0] in own
        }
        if cancelled:
            self.cancelled.add(one.id)

    def lose_a_step(self, one: Execution, made: Made, step_id: str) -> None:
        run = one.step(step_id)
        lost = Made(made.name, (Part("other", "plain"),))
        if run is None or str(run.status) != "COMPLETED":
            return
        try:
            self.operator.executions.resume(one.id, definition=lost.workflow())
        except AutomateError as error:
            assert error.code == "FAILED_PRECONDITION", error
        else:
            raise AssertionError(f"{step_id} has completed, and is lost")

    def some_step(self, one: Execution, made: Made | Coded, number: int) -> str | None:
        """Return the id of a step to go on from: of a function one that was called."""
        ids = [step.id for step in (made.steps if isinstance(made, Made) else ())]
        if isinstance(made, Coded):
            own = {step.id for step in made.every()}
            ids = [run.step_id for run in one.steps if plain_key(run)[0] in own]
        return ids[number % len(ids)] if ids else None

    def goes_on(
        self, one: Execution, made: Made | Coded, step_id: str | None, *, retried: bool = False
    ) -> None:
        """Note what an execution that goes on has left behind."""
        self.kept[one.id] = kept_after(made, runs_of(one), step_id, retried=retried)
        self.reopened[one.id] += 1
        self.begun.discard(one.id)
        self.cancelled.discard(one.id)
        self.expected[one.id].clear()
        self.leave(one)

    def leave(self, one: Execution) -> None:
        """Note which sub-workflows may go on with *one*, and with each other."""
        left = [one]
        while left:
            parent = left.pop()
            for child, length in self.before:
                if child.event.source != parent.id:
                    continue
                self.former.add(child.id)
                self.note_going_on(child, length)
                if child.parent_id is not None and child.status.finished:
                    self.ended[child.id] = child, length
                    left.append(child)

    def note_going_on(self, one: Execution, now: int) -> None:
        """Note what a sub-workflow, whose log has *now* lines, left behind if it has gone on."""
        before, length = self.ended.get(one.id, (one, now))
        if trace(before) == trace(one) and length == now:
            return
        del self.ended[one.id]
        self.logs[one.id].insert(length, (AGAIN, ""))
        self.kept[one.id] = kept_after(self.made_of(one), runs_of(before), None)
        self.reopened[one.id] += 1

    def fork(self, one: Execution, number: int) -> None:
        made = self.made_of(one)
        step_id = self.some_step(one, made, number)
        if step_id is None:
            return
        key = f"f{self.forks}"
        corrected = made.mended() if isinstance(made, Made) and number % 3 == 2 else None
        fork = partial(
            self.operator.executions.fork, one.id, payload={"key": key, "lane": lane_of(one)},
            definition=corrected and corrected.workflow(),
        )  # fmt: skip
        try:
            copy = fork(step_id=step_id)
        except WorkflowError as error:
            step_id = self.named(one, error)
            if step_id is None:
                return
            copy = fork(step_id=step_id)
        self.forks += 1
        self.started.append(copy)
        kept = kept_after(made, runs_of(one), step_id.partition("@")[0])
        self.kept[copy] = kept
        self.decided[copy] = {step: dict(people) for step, people in self.decided[one.id].items()}
        self.sent_to_copy(one, key)
        if isinstance(made, Made) and (corrected or one.id in self.mended):
            self.mended[copy] = corrected or made

    def sent_to_copy(self, one: Execution, key: str) -> None:
        """Let a copy have what the original has taken."""
        for step in self.made_of(one).every():
            self.sent[f"{key}/{step.id}"] = list(self.sent[f"{key_of(one)}/{step.id}"])

    def live(self) -> list[Execution]:
        return [one for one in self.all() if not one.status.finished]

    def all(self) -> list[Execution]:
        """Find all executions; of one place the one is last that began last, or went on last."""
        # The clock may stand still between two: items have their ids in the order of their making.
        return sorted(
            self.operator.executions.find(limit=1000),
            key=lambda one: (key_of(one), one.created_at, one.item_id or ""),
        )

    # -- what must hold ----------------------------------------------------------------------

    def rows(self, table: str) -> list[dict[str, Any]]:
        with self.storage.begin(atomic=False) as rows:
            return rows.select(table)

    def unfinished(self) -> list[dict[str, Any]]:
        return [
            row for row in self.rows(OUTBOX) if row["status"] in ("PENDING", "RETRY", "RUNNING")
        ]

    def check_rest(self) -> None:
        """With nothing due, nothing is leased, and whatever has not ended has a reason."""
        assert self.wrong == []
        for item in self.rows(OUTBOX):
            assert item["status"] != "RUNNING", item
        waiting = set()
        retried = [row for row in self.unfinished() if row["status"] == "RETRY"]
        coming = {row["kind"] for row in retried} - {ADVANCE}
        # After a death it waits a moment until it is taken up; one that is paused was, since then.
        died = [row for row in retried if row["last_error_code"] == "LEASE_EXPIRED"]
        later = {row["id"] for row in died if row["waiting_for"] != "resume"}
        for one in self.live():
            key, status = key_of(one), str(one.status)
            runs = {run.key: str(run.status) for run in one.steps}
            about = f"{key} is {status} with {runs}"
            waiting |= {(one.id, *at) for at, its in runs.items() if its == "WAITING"}
            if one.item_id in later:
                continue
            assert "RUNNING" not in runs.values(), about
            if status == "PAUSED":
                continue
            if self.queues(one):
                continue
            assert {"WAITING", "RETRY"} & set(runs.values()), about
            if not coming:
                self.check_nothing_lost(one, about)
        rows = {(row["execution_id"], row["step_id"], row["position"]) for row in self.rows(WAIT)}
        left = {execution_id for execution_id, *_ in rows - waiting}
        assert not left, [self.told(one) for one in self.all() if one.id in left]

    def queues(self, one: Execution) -> bool:
        """Return True if it waits for its place, and others have as many as there are."""
        item = self.operator.outbox.get(one.item_id or "")
        if item is None or item.waiting_for != "key":
            return False
        made = self.made_of(one)
        others = [
            other for other in self.live()
            if other.id != one.id and (other.name, lane_of(other)) == (one.name, lane_of(one))
        ]  # fmt: skip
        assert isinstance(made, Made) and made.concurrency is not None, made
        assert len(others) >= made.concurrency, f"{key_of(one)} waits for a place that is free"
        return True

    def check_nothing_lost(self, one: Execution, about: str) -> None:
        """What has come for a step that waits is taken, and so is a sub-workflow's end."""
        ended = {each.id for each in self.all() if each.status.finished}
        parts = {step.id: step for step in self.made_of(one).every()}
        waiting = [run for run in one.steps if str(run.status) == "WAITING"]
        for run in waiting:
            if parts[plain_key(run)[0]].kind == "child" and run.position >= -1 and run.output:
                assert run.output["execution_id"] not in ended, about
        for (step_id, position), expected in self.expected[one.id].items():
            runs = [run for run in one.steps if plain_key(run)[0] == step_id]
            if parts[step_id].kind == "approval":
                runs = [run for run in runs if run.position == position]
            taken = {
                run.output["by" if parts[step_id].kind == "approval" else "id"]
                for run in runs if isinstance(run.output, dict) and run.status.finished
            }  # fmt: skip
            if any(run in waiting for run in runs):
                assert expected <= taken, f"{about}: {step_id} has missed what came"

    def drain(self) -> None:
        """Let everything come to its end."""
        for _ in range(200):
            self.settle()
            self.check_rest()
            live = self.live()
            if not live and not self.unfinished():
                break
            for one in live:
                if one.status == "PAUSED":  # which wakes it
                    self.operator.executions.unpause(one.id)
                parts = {step.id: step for step in self.made_of(one).every()}
                for run in one.steps:
                    step = parts.get(plain_key(run)[0])
                    if step is not None and step.waits and str(run.status) == "WAITING":
                        self.answer_step(one, step)
            self.settle()
            self.clock.advance(HOUR / 2)
        assert [self.told(one) for one in self.live()] == []

    def told(self, one: Execution) -> str:
        runs = {run.key: str(run.status) for run in one.steps}
        return f"{key_of(one)} {one.status} {runs}"

    def check_all(self) -> None:
        for item in self.rows(OUTBOX):
            assert item["status"] in ("COMPLETED", "CANCELLED"), item
        assert self.rows(WAIT) == []
        left = ("PENDING", "RUNNING", "RETRY")
        assert not [row for row in self.rows(STEP) if row["status"] in left]
        found = self.all()
        assert set(self.started) <= {one.id for one in found}
        for one in found:
            self.note_going_on(one, len(self.logs[one.id]))
        seen = {one.id: self.observed(one) for one in found}
        for one in found:
            own = [other for other in found if other.event.source == one.id]
            if not self.reopened[one.id]:
                keys = Counter(key_of(other) for other in own)
                assert set(keys.values()) <= {1}, keys
            # Of those of one step it is the one that began last.
            seen[one.id].children = {key_of(other): seen[other.id] for other in own}
            for child in own:
                if child.parent_id is not None:
                    seen[child.id].cancelled |= self.was_left(one, child)
        for each in seen.values():
            check(each)

    def was_left(self, parent: Execution, child: Execution) -> bool:
        """Return True if *parent* may have gone on, or ended, without its *child*."""
        step_id = key_of(child)[len(key_of(parent)) + 1 :].split("/")[0]
        left = [
            run for run in parent.steps
            if plain_key(run)[0] == step_id and str(run.status) in ("FAILED", "CANCELLED")
        ]  # fmt: skip
        return bool(left) or str(parent.status) != "COMPLETED" or child.id in self.former

    def observed(self, one: Execution) -> Observed:
        return Observed(
            key_of(one), self.made_of(one), str(one.status), one.output, one.error,
            runs_of(one), cancelled=one.id in self.cancelled, kept=self.kept.get(one.id, {}),
            sent=self.sent, decided=self.decided[one.id], log=self.logs[one.id],
            healed=self.healed[one.id],
        )  # fmt: skip


def key_of(one: Execution) -> str:
    """Return the name that its event gives the execution."""
    return str(one.event.payload["key"])


def trace(one: Execution) -> tuple[Any, ...]:
    """Return what changes when an execution goes on."""
    return str(one.status), [(run.key, str(run.status), run.attempts) for run in one.steps]


def lane_of(one: Execution) -> str:
    """Return the lane in which only so many go on at once."""
    return str(one.event.payload["lane"])


def plain_key(run: StepRun) -> Key:
    """Return the key of a step, without the place in a ``gather``."""
    return run.step_id.partition("@")[0], run.position


def runs_of(one: Execution) -> dict[Key, StepRun]:
    """Return its steps by their keys."""
    return {plain_key(run): run for run in one.steps}
