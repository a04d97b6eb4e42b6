"""``/executions``: runs of workflows, and the commands for them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

from automate_kernel.base.errors import UnknownHereError
from automate_kernel.http.api import exchange
from automate_kernel.http.api.exchange import (
    AcceptedExecution,
    ApiPage,
    ApiRequest,
    WholeValue,
    require,
    uuid_of,
    without,
)
from automate_kernel.http.api.problems import ApiError, NotThereError
from automate_kernel.monitoring.waiting import why_execution_waits
from automate_kernel.outbox import BulkAction
from automate_kernel.outbox.failed_attempts import ErrorGroup
from automate_kernel.workflows.execution import Execution
from automate_kernel.workflows.steer.attempts import step_attempts
from automate_kernel.workflows.steer.bulk_runner import BulkProgress, BulkRequest

_MOST_AT_ONCE = 1000
_MOST_SECONDS = 10.0


def list_executions(request: ApiRequest) -> ApiPage:
    """List executions, the newest first."""
    matching = request.filters
    if "label" in matching:
        matching["labels"] = matching.pop("label")
    read = partial(request.kernel.executions.page, events=True, look=exchange.LOOKED)
    return request.page(read, "executions", **matching)


def list_errors(request: ApiRequest) -> Sequence[ErrorGroup]:
    """Group the failed ones by workflow and by where their error came from, largest first."""
    return request.kernel.executions.error_groups(**request.filters)


def show(request: ApiRequest, execution_id: str) -> Any:
    """Read one execution with its event, output and steps, in which secrets are hidden."""
    execution, store = _execution(request, execution_id), request.kernel.executions
    workflow = None
    with suppress(UnknownHereError):  # of another version: its steps' inputs are not shown
        workflow = store.definition(execution.definition_id)
    runs = []
    for run in execution.steps:
        step = None if workflow is None else workflow.find_step(run.step_id)
        action, given = (step.action, step.input) if step is not None else (None, {})
        runs.append(WholeValue(run, action=action, input=given))
    attempts = store.failed_attempts(execution.id)
    return WholeValue(
        execution, steps=runs, waits=store.waits(execution.id), failed_attempts=attempts,
        attempts=step_attempts(execution.steps, attempts), handed_over=store.handover(execution),
        reasons=why_execution_waits(request.kernel, execution),
    )  # fmt: skip


def show_waits(request: ApiRequest, execution_id: str) -> Any:
    """Read why an execution does not go on now, and what its steps wait for."""
    execution = _execution(request, execution_id)
    return {
        "reasons": why_execution_waits(request.kernel, execution),
        "waits": request.kernel.executions.waits(execution.id),
    }


def show_output(request: ApiRequest, execution_id: str) -> Any:
    """Read the output of an execution or of a step, from the output store if it is there."""
    execution, given = _execution(request, execution_id), request.query
    if "step" in given:
        given = {**without(given, "step"), "step_id": given["step"]}
    return {"output": request.kernel.executions.output(execution.id, **given)}


def signal(request: ApiRequest, execution_id: str) -> Any:
    """Send a signal to an execution that waits for it, or soon will."""
    execution = _execution(request, execution_id)
    require(not execution.status.finished, "It has ended already.")
    return {"id": request.kernel.signal(execution.id, **request.body)}


def cancel(request: ApiRequest, execution_id: str) -> Execution:
    """
    Cancel an execution that has not ended. What runs is asked to stop.

    It is CANCELLING as long as its workflow cleans up; a second call ends it at once.
    """
    execution = _execution(request, execution_id)
    cancelled = request.kernel.executions.cancel(execution.id, **request.body)
    require(cancelled, "It has ended already.")
    return _execution(request, execution_id)


def pause(request: ApiRequest, execution_id: str) -> Execution:
    """Let no more steps of an execution begin. What runs ends and is saved."""
    execution = _execution(request, execution_id)
    require(request.kernel.executions.pause(execution.id), "It does not go on.")
    return _execution(request, execution_id)


def unpause(request: ApiRequest, execution_id: str) -> Execution:
    """Let a PAUSED execution go on."""
    execution = _execution(request, execution_id)
    require(request.kernel.executions.unpause(execution.id), "It is not paused.")
    return _execution(request, execution_id)


def retry_step(request: ApiRequest, execution_id: str) -> Execution:
    """Run one failed step again, and all that follows; one that waits for its retry, now."""
    execution, given = _execution(request, execution_id), request.body
    retried = request.kernel.executions.retry_step(
        execution.id, given["step"], given.get("position", -1)
    )
    require(retried, "It has not failed.")
    return _execution(request, execution_id)


def fork(request: ApiRequest, execution_id: str) -> AcceptedExecution:
    """Begin a copy of an execution that runs from a step on, with another payload if given."""
    execution, given = _execution(request, execution_id), request.body
    fork_of = partial(request.kernel.executions.fork, execution.id, given["step"])
    return AcceptedExecution(fork_of(**without(given, "step")))


def resume(request: ApiRequest, execution_id: str) -> Execution:
    """Go on with a failed execution where it failed, or from a step with any that has ended."""
    execution, given = _execution(request, execution_id), request.body
    definition = None
    if "definition" in given:
        definition = request.kernel.workflows.get(execution.name, execution.tenant_id)
    resumed = request.kernel.executions.resume(
        execution.id, step_id=given.get("step"), definition=definition
    )
    require(resumed, "It has not failed." if "step" not in given else "It has not ended.")
    return _execution(request, execution_id)


def retry(request: ApiRequest, execution_id: str) -> AcceptedExecution:
    """Begin another execution for the same event, with the workflow as it is now."""
    execution = _execution(request, execution_id)
    return AcceptedExecution(request.kernel.start_again(execution.id))


def change_many(request: ApiRequest) -> Any:
    """
    Resume, cancel, pause or unpause the executions with these ids, or all that match a filter.

    A call ends after some seconds, and has then changed the oldest; ask again for the others.
    """
    given = request.command
    command, per_second = given.pop("action"), given.pop("per_second", None)
    limit = given.pop("limit", _MOST_AT_ONCE)
    if "ids" in given:
        given["ids"] = [str(each) for each in given["ids"]]
    action = BulkAction(command, given, per_second=per_second, target="executions")
    # A request must end before its client gives up; the client can ask again.
    run = request.kernel.executions.run_bulk
    return {"changed": run(action, seconds=_MOST_SECONDS, limit=limit).done}


def begin_many(request: ApiRequest) -> BulkProgress:
    """
    Have a worker resume, cancel, pause, unpause or fork the executions with these ids, or all.

    The answer has an id to follow it by. It goes on while the token is valid.
    """
    given, client, bulk = request.command, request.client, request.kernel.bulk
    command, per_second = given.pop("action"), given.pop("per_second", None)
    step, definition = given.pop("step", ""), given.pop("definition", None)
    if command == "fork" and not client.allows("executions.fork"):
        raise ApiError(403, "You may not begin copies.")
    if "ids" in given:
        given["ids"] = [str(each) for each in given["ids"]]
    action = BulkAction(
        command, given, per_second=per_second, target="executions", step=step,
        current=definition is not None,
    )  # fmt: skip
    asked = BulkRequest(
        command, client.user_id or client.id, client.own_tenant, "executions", {},
        bulk.total(action), action, by=client.name,
        token="" if client.id == client.user_id else client.id,
    )  # fmt: skip
    return _progress(request, bulk.hand_over(asked))


def show_many(request: ApiRequest, bulk_id: str) -> BulkProgress:
    """Read how far a bulk action has come that a worker carries on."""
    return _progress(request, uuid_of(bulk_id))


def stop_many(request: ApiRequest, bulk_id: str) -> BulkProgress:
    """Have nothing more done of a bulk action that a worker carries on; what is done stays."""
    found = _progress(request, uuid_of(bulk_id))
    require(request.kernel.bulk.stop(UUID(found.id)), "It was over.")
    return _progress(request, found.id)


def _progress(request: ApiRequest, bulk_id: str) -> BulkProgress:
    found = request.kernel.bulk.find_progress(
        UUID(bulk_id), target="executions", tenant_id=request.client.own_tenant
    )
    if found is None:
        raise NotThereError
    return found


def _execution(request: ApiRequest, execution_id: str) -> Execution:
    store = request.kernel.executions
    return request.client.visible(store.get(uuid_of(execution_id), large_outputs=False))
