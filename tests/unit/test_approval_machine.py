"""Random histories of approvals, compared with a plain model after each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from example_counts import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.tables import WAIT
from automate_testing.clock import FakeClock
from defined import define

KEY = "a-key-of-thirty-two-characters-at-least"
LINK_SECONDS = 30 * 86_400


@dataclass
class Asked:
    """What the model knows of one execution."""

    on_reject: str
    on_timeout: str
    timeout: int | None
    asking: int = 1
    waits: bool = True
    asked_at: float = 0.0
    decision: tuple[str, bool] | None = None
    status: str = "RUNNING"
    by: str | None = None
    links: list[tuple[int, float, str]] = field(default_factory=list)

    def ends_at(self) -> float:
        return float("inf") if self.timeout is None else self.asked_at + self.timeout

    def open(self, now: float) -> bool:
        return self.waits and self.decision is None and now < self.ends_at()

    def settle(self, now: float) -> None:
        """Take up the decision, or the timeout."""
        if not self.waits or (self.decision is None and now < self.ends_at()):
            return
        self.waits = False
        by, approved = self.decision or (None, self.on_timeout == "approve")
        rejected = self.decision is not None or self.on_timeout == "reject"
        failed = (rejected and not approved and self.on_reject == "fail") or (
            self.decision is None and self.on_timeout == "fail"
        )
        self.status, self.by = ("FAILED", None) if failed else ("COMPLETED", by)


class Approvals(RuleBasedStateMachine):
    """Executions that ask, people that decide, and a clock."""

    @initialize()
    def begin(self) -> None:
        self.clock, self.now = FakeClock(), 0.0
        self.kernel = Kernel(MemoryStorage(self.clock), signing_keys=[KEY], discover=False)
        self.model: dict[str, Asked] = {}

    def teardown(self) -> None:
        if hasattr(self, "kernel"):
            self.kernel.close()

    def some(self, number: int) -> tuple[str, Asked]:
        return list(self.model.items())[number % len(self.model)]

    def tried(self, call: Any, *args: Any, **options: Any) -> bool:
        try:
            call(*args, **options)
        except AutomateError:
            return False
        return True

    @rule(
        on_reject=st.sampled_from(["fail", "continue"]),
        on_timeout=st.sampled_from(["fail", "continue", "approve", "reject"]),
        timeout=st.sampled_from([None, 60, 3600]),
    )
    def start(self, on_reject: str, on_timeout: str, timeout: int | None) -> None:
        asked: dict[str, Any] = {"title": "?", "on_reject": on_reject}
        if timeout is not None:
            asked |= {"timeout": f"{timeout}s", "on_timeout": on_timeout}
        name = f"w-{on_reject}-{on_timeout}-{timeout}"
        define(self.kernel, {"id": "ok", "approval": asked}, name=name)
        execution_id = self.kernel.start(name)
        self.model[execution_id] = Asked(on_reject, on_timeout, timeout, asked_at=self.now)
        self.run()

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 9), approved=st.booleans(), by=st.sampled_from(["ann", "bob"]))
    def decide(self, number: int, approved: bool, by: str) -> None:
        execution_id, known = self.some(number)
        approvals = self.kernel.approvals
        decide = approvals.approve if approved else approvals.reject
        assert self.tried(decide, execution_id, "ok", by=by) is known.open(self.now)
        if known.open(self.now):
            known.decision = (by, approved)

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 9))
    def make_link(self, number: int) -> None:
        execution_id, known = self.some(number)
        try:
            token = self.kernel.approvals.token(execution_id, "ok", by="linked")
        except AutomateError:
            assert not known.waits
        else:
            assert known.waits
            known.links.append((known.asking, self.now, token))

    @precondition(lambda self: any(each.links for each in self.model.values()))
    @rule(number=st.integers(0, 9), link=st.integers(0, 9), approved=st.booleans())
    def use_link(self, number: int, link: int, approved: bool) -> None:
        linked = [each for each in self.model.values() if each.links]
        known = linked[number % len(linked)]
        asking, made_at, token = known.links[link % len(known.links)]
        good = known.open(self.now) and asking == known.asking
        if known.timeout is None:
            good = good and self.now < made_at + LINK_SECONDS
        approvals = self.kernel.approvals
        assert self.tried(approvals.by_token, token) is good
        assert self.tried(approvals.decide_by_token, token, approved=approved) is good
        if good:
            known.decision = ("linked", approved)

    @rule(seconds=st.sampled_from([1, 59, 61, 3599, 3601, LINK_SECONDS]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.now += seconds

    @rule()
    def run(self) -> None:
        self.kernel.run_until_idle()
        for known in self.model.values():
            known.settle(self.now)

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 9))
    def cancel(self, number: int) -> None:
        execution_id, known = self.some(number)
        assert self.kernel.executions.cancel(execution_id) is (known.status == "RUNNING")
        if known.status == "RUNNING":
            known.status, known.waits = "CANCELLED", False

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 9))
    def resume(self, number: int) -> None:
        execution_id, known = self.some(number)
        assert self.kernel.executions.resume(execution_id) is (known.status == "FAILED")
        if known.status == "FAILED":
            known.asking, known.decision, known.status = known.asking + 1, None, "RUNNING"
            known.waits, known.asked_at = True, self.now
        self.run()

    @precondition(lambda self: any(each.open(self.now) for each in self.model.values()))
    @rule(number=st.integers(0, 9))
    def ask_again(self, number: int) -> None:
        """Reject one and resume it: what random steps rarely come to."""
        askable = [key for key, each in self.model.items() if each.open(self.now)]
        place = list(self.model).index(askable[number % len(askable)])
        self.make_link(place)
        self.decide(place, approved=False, by="ann")
        self.run()
        self.resume(place)

    @invariant()
    def shows_what_is_open(self) -> None:
        if not hasattr(self, "kernel"):
            return
        shown = {each.execution_id for each in self.kernel.approvals.pending().approvals}
        assert shown == {key for key, each in self.model.items() if each.open(self.now)}

    @invariant()
    def ended_as_decided(self) -> None:
        if not hasattr(self, "kernel"):
            return
        for execution_id, known in self.model.items():
            execution = self.kernel.executions.get(execution_id)
            assert execution is not None
            assert execution.status == known.status
            if known.status == "COMPLETED":
                run = execution.step("ok")
                assert run is not None
                assert run.output["by"] == known.by
        with self.kernel.storage.begin(atomic=False) as rows:
            assert len(rows.select(WAIT)) == sum(each.waits for each in self.model.values())


def test_any_history_of_approvals_is_as_the_model_says() -> None:
    """One decision for each asking, in time; nothing old counts, and what is open is listed."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Approvals,
        settings=settings(max_examples=examples(60, 10), stateful_step_count=30, deadline=None),
    )
