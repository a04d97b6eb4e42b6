"""Notices: the calls that tell people of an approval, with the links that decide on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from automate_kernel.operations.context import Call
from automate_kernel.operations.invoker import Invoker
from automate_kernel.outbox import OutboxItem
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.handler import Snooze
from automate_kernel.workflows.decide.program import TemplateView, WorkflowProgram, element_names
from automate_kernel.workflows.definition.approval import LINKS, Approval, Notice
from automate_kernel.workflows.definition.model import Step
from automate_kernel.workflows.definition.problems import reads_link
from automate_kernel.workflows.execution import Execution, StepKey, StepRun
from automate_kernel.workflows.steer.approvals import Approvals, PendingApproval
from automate_kernel.workflows.steer.executions import ExecutionStore

logger: logging.Logger = get_logger(__name__)

# Nobody waits for it, but it must not keep its thread for ever.
_SECONDS = 60.0
_ELSEWHERE_SECONDS = 30.0
_WITHOUT_TO = "link"  # who decides by it, where the approval names nobody


class ApprovalNotices:
    """
    The handler of the items that tell of an approval.

    Such an item is written with the approval's wait, so the wait is there and the links are good.
    The links are made at the call: nothing stores them.
    """

    def __init__(
        self,
        executions: ExecutionStore,
        approvals: Approvals,
        operations: Invoker,
        programs: Callable[[str], WorkflowProgram],
    ) -> None:
        self._executions, self._approvals = executions, approvals
        self._operations, self._programs = operations, programs

    def handle(self, item: OutboxItem) -> Snooze | None:
        """Make the call, unless the approval is decided, gone or asked again."""
        given = item.payload
        place = (given["execution_id"], given["step_id"], given["position"])
        waiting = self._approvals.get(*place)
        if waiting is None or waiting.decided_by is not None or waiting.asked != given["asked"]:
            return None
        loaded = self._executions.checkpoints.load(waiting.execution_id)
        if loaded is None:
            return None
        execution = loaded.execution
        program = self._programs(execution.definition_id)
        self._executions.outputs.fill(execution, program.reads)
        runs = {run.key: run for run in execution.steps}
        step, view = _asking(program, execution, runs, waiting)
        notice = step.approval.notify if step.approval is not None else None
        if notice is None:
            return None
        lack = self._operations.absence(notice.action)
        if lack is not None:
            # A newer worker, or an older one, may have it.
            logger.warning("the notice of an approval waits for another worker: this one %s", lack)
            return Snooze(_ELSEWHERE_SECONDS)
        extra: dict[str, Any] = {"approval": self._about(waiting, notice, given["to"])}
        if waiting.position >= 0:
            element = program.elements(step, view)[waiting.position]
            extra |= element_names(view, element, waiting.position)
        call = Call(
            notice.action, execution.tenant_id, execution.id, step.id, item.attempt_count, item.id,
            written=notice.input,
        )  # fmt: skip
        given = program.notice(step, view, extra)
        # An error quotes no link: they are secrets of the input, since whoever has one can decide.
        self._operations.invoke(notice.action, given, call=call, timeout=_SECONDS)
        return None

    def _about(self, waiting: PendingApproval, notice: Notice, to: str | None) -> dict[str, Any]:
        """Return what templates see as ``approval``."""
        about: dict[str, Any] = {
            "to": to,
            "title": waiting.title,
            "description": waiting.description,
            "expires_at": waiting.expires_at and waiting.expires_at.isoformat(),
            "position": waiting.position,
        }
        by = to or (None if waiting.by else _WITHOUT_TO)
        # None can be for all of several people. A host without a key may tell them without a link.
        if by is not None and reads_link(notice):
            place = (waiting.execution_id, waiting.step_id, waiting.position)
            for name, decision in LINKS.items():
                about[name] = self._approvals.link(*place, by=by, decision=decision)
        return about


def _asking(
    program: WorkflowProgram,
    execution: Execution,
    runs: Mapping[StepKey, StepRun],
    waiting: PendingApproval,
) -> tuple[Step, TemplateView]:
    """
    Return the step that asks, and what its templates see.

    Of a workflow in code it is the step as far as its wait has kept it.
    """
    if waiting.notify is None:
        return program.place(execution, runs, waiting.step_id)
    approval = Approval.model_construct(notify=waiting.notify)
    step = Step.model_construct(id=waiting.step_id, approval=approval)
    return step, program.view(execution, runs)
