"""A step that had attempts left and doesn't get them says why."""

from __future__ import annotations

from typing import Any

import pytest
from waiting import Gate, until
from workers import working
from defined import see
from automate_kernel import AutomateError, ErrorCodes, Execution, Kernel, WorkflowContext
from automate_kernel.workflows.execution import StepStatus

RETRY = {"attempts": 3, "delay": 0, "jitter": False}


class Beside:
    """Actions of which one fails for good while the other is still in its first attempt."""

    def __init__(self) -> None:
        self.kernel = Kernel(discover=False, secrets={})
        self.begun, self.go_on, self.tried = Gate(), Gate(), 0
        for action in (self.flaky, self.fail):
            self.kernel.action(f"shop.{action.__name__}")(action)

    def flaky(self) -> None:
        self.tried += 1
        self.begun.set()
        self.go_on.pass_()
        raise ConnectionError("no answer")

    def fail(self) -> None:
        self.begun.pass_()
        raise AutomateError(ErrorCodes.FAILED_PRECONDITION, "sold out")

    def run(self, name: str, then: Any) -> Execution:
        execution_id = self.kernel.start(name)
        with working(self.kernel):
            self.begun.pass_()
            then(execution_id)
            self.go_on.set()
            until(lambda: self.see(execution_id).status.finished)
        return self.see(execution_id)

    def see(self, execution_id: str) -> Execution:
        return see(self.kernel, execution_id)

    def failed(self, execution_id: str) -> bool:
        return any(run.status is StepStatus.FAILED for run in self.see(execution_id).steps)


@pytest.fixture
def beside() -> Beside:
    return Beside()


def define(beside: Beside, steps: list[dict[str, Any]]) -> None:
    beside.kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})


FLAKY = {"id": "flaky", "action": "shop.flaky", "needs": [], "retry": RETRY}
FAIL = {"id": "fail", "action": "shop.fail", "needs": []}
SHAPES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "steps": ([FLAKY, FAIL], "the workflow had failed"),
    "in a block": (
        [{"id": "all", "for_each": [1], "steps": [FLAKY, FAIL]}],
        "another one beside it had failed",
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_retry_that_is_dropped_is_said(beside: Beside, shape: str) -> None:
    """In the step's own record and in that of its attempt; the failure of the workflow is first."""
    steps, reason = SHAPES[shape]
    define(beside, steps)
    execution = beside.run("w", lambda one: until(lambda: beside.failed(one)))
    (run,) = (run for run in execution.steps if run.step_id.endswith("flaky"))
    assert (run.status, run.attempts, beside.tried) == (StepStatus.FAILED, 1, 1)
    assert "no answer" in str(run.error)
    assert str(run.error).endswith(f"; it was not tried again, since {reason}")
    assert run.error_code == "UNAVAILABLE" and "ConnectionError" in str(run.error_group)
    attempts = beside.kernel.executions.failed_attempts(execution.id)
    assert any(reason in each.error for each in attempts)
    assert "sold out" in str(execution.error) and "no answer" not in str(execution.error)


def test_a_retry_in_code_goes_on_beside_a_failure(beside: Beside) -> None:
    """A gather waits for all of its members: their retries are theirs."""

    async def flow(ctx: WorkflowContext) -> None:
        await ctx.gather(ctx.step(beside.flaky, retry=2), ctx.step(beside.fail))

    beside.kernel.workflow(flow)
    execution = beside.run("flow", lambda one: until(lambda: beside.failed(one)))
    run = execution.step("flaky")
    assert run is not None and (run.status, run.attempts, beside.tried) == (StepStatus.FAILED, 2, 2)
    assert "not tried again" not in str(run.error)
