"""``/executions``: runs of workflows, and the commands for them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.db import transaction
from rest_framework.decorators import action
from rest_framework.response import Response

from automate_django.api.bases.pagination import StorePagination
from automate_django.api.schema import described
from automate_django.api.v1 import serializers
from automate_django.api.v1.resource import Resource, require, uuid_of
from automate_django.models import WorkflowExecution
from automate_kernel.base.errors import UnknownHereError
from automate_kernel.monitoring.waiting import why_execution_waits
from automate_kernel.outbox import BulkAction
from automate_kernel.workflows.execution import Execution
from automate_kernel.workflows.steer.attempts import step_attempts

_READS = ("list", "errors", "retrieve", "output")
_COMMANDS = (
    "signal", "cancel", "pause", "unpause", "resume", "bulk", "retry", "retry_step", "fork",
)  # fmt: skip
_MOST_AT_ONCE = 1000
_MOST_SECONDS = 10.0


class ExecutionViewSet(Resource):
    """Executions of workflows, the newest first."""

    required_scopes = {  # noqa: RUF012
        **dict.fromkeys(_READS, "executions:read"),
        **dict.fromkeys(_COMMANDS, "executions:write"),
    }
    model_permissions = {  # noqa: RUF012
        **dict.fromkeys(_READS, "view_workflowexecution"),
        **dict.fromkeys(_COMMANDS, "change_workflowexecution"),
        **dict.fromkeys(("retry", "fork"), "add_workflowexecution"),
    }
    serializer_class = serializers.ExecutionSerializer
    lookup_url_kwarg = "execution_id"
    pagination_class = StorePagination
    # For schemas and permissions: the store reads the rows.
    queryset = WorkflowExecution._default_manager.none()

    @described(parameters=[serializers.ExecutionQuerySerializer])
    def list(self, request: Any) -> Response:
        """List executions."""
        given = self.query(serializers.ExecutionQuerySerializer)
        found = self.page(self.kernel.executions.page, events=True, **given).executions
        return self.get_paginated_response(serializers.ExecutionSerializer(found, many=True).data)

    @described(
        parameters=[serializers.ExecutionErrorQuerySerializer],
        responses=serializers.ErrorGroupSerializer(many=True),
    )
    @action(detail=False, pagination_class=None)
    def errors(self, request: Any) -> Response:
        """Group the failed ones by workflow and by where their error came from, largest first."""
        given = self.query(serializers.ExecutionErrorQuerySerializer)
        groups = self.kernel.executions.error_groups(**given)
        return Response(serializers.ErrorGroupSerializer(groups, many=True).data)

    @described(responses=serializers.ExecutionDetailSerializer)
    def retrieve(self, request: Any, execution_id: str) -> Response:
        """Read one execution with its event, output and steps, in which secrets are hidden."""
        execution, store = self._execution(execution_id), self.kernel.executions
        workflow = None
        with suppress(UnknownHereError):  # of another version: its steps' inputs are not shown
            workflow = store.definition(execution.definition_id)
        runs = []
        for run in execution.steps:
            step = None if workflow is None else workflow.find_step(run.step_id)
            action, given = (step.action, step.input) if step is not None else (None, {})
            runs.append(serializers.Whole(run, action=action, input=given))
        attempts = store.failed_attempts(execution.id)
        waits = store.waits(execution.id)
        whole = serializers.Whole(
            execution, steps=runs, waits=waits, failed_attempts=attempts,
            attempts=step_attempts(execution.steps, attempts),
            handed_on=store.handover(execution),
            reasons=why_execution_waits(self.kernel, execution),
        )  # fmt: skip
        return Response(serializers.ExecutionDetailSerializer(whole).data)

    @described(
        parameters=[serializers.OutputQuerySerializer], responses=serializers.OutputSerializer
    )
    @action(detail=True, pagination_class=None)
    def output(self, request: Any, execution_id: str) -> Response:
        """Read the output of an execution or of a step, from the output store if it is there."""
        execution, given = (
            self._execution(execution_id),
            self.query(serializers.OutputQuerySerializer),
        )
        output = self.kernel.executions.output(execution.id, **given)
        return Response(serializers.OutputSerializer({"output": output}).data)

    @described(
        request=serializers.SignalSerializer, responses={202: serializers.AcceptedSerializer}
    )
    @action(detail=True, methods=["post"])
    def signal(self, request: Any, execution_id: str) -> Response:
        """Send a signal to an execution that waits for it, or soon will."""
        execution, given = self._execution(execution_id), self.read(serializers.SignalSerializer)
        require(not execution.status.finished, "It has ended already.")
        with transaction.atomic(using=self.alias):
            signal_id = self.kernel.signal(execution.id, **given)
        return Response({"id": signal_id}, status=202)

    @described(request=serializers.CancelSerializer, responses=serializers.ExecutionSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Any, execution_id: str) -> Response:
        """
        Cancel an execution that has not ended. What runs is asked to stop.

        It is CANCELLING as long as its workflow cleans up; a second call ends it at once.
        """
        execution, given = self._execution(execution_id), self.read(serializers.CancelSerializer)
        cancelled = self.kernel.executions.cancel(execution.id, force=given["force"])
        require(cancelled, "It has ended already.")
        return self._brief(execution_id)

    @described(request=None, responses=serializers.ExecutionSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Any, execution_id: str) -> Response:
        """Let no more steps of an execution begin. What runs ends and is saved."""
        execution = self._execution(execution_id)
        require(self.kernel.executions.pause(execution.id), "It does not go on.")
        return self._brief(execution_id)

    @described(request=None, responses=serializers.ExecutionSerializer)
    @action(detail=True, methods=["post"])
    def unpause(self, request: Any, execution_id: str) -> Response:
        """Let a PAUSED execution go on."""
        execution = self._execution(execution_id)
        require(self.kernel.executions.unpause(execution.id), "It is not paused.")
        return self._brief(execution_id)

    @described(request=serializers.RetryStepSerializer, responses=serializers.ExecutionSerializer)
    @action(detail=True, methods=["post"], url_path="retry-step")
    def retry_step(self, request: Any, execution_id: str) -> Response:
        """Run one failed step again, and all that follows; one that waits for its retry, now."""
        execution = self._execution(execution_id)
        given = self.read(serializers.RetryStepSerializer)
        retried = self.kernel.executions.retry_step(execution.id, given["step"], given["position"])
        require(retried, "It has not failed.")
        return self._brief(execution_id)

    @described(request=serializers.ForkSerializer, responses={202: serializers.AcceptedSerializer})
    @action(detail=True, methods=["post"])
    def fork(self, request: Any, execution_id: str) -> Response:
        """Begin a copy of an execution that runs from a step on, with another payload if given."""
        execution, given = self._execution(execution_id), self.read(serializers.ForkSerializer)
        step_id = given.pop("step")
        with transaction.atomic(using=self.alias):
            return self.accepted(self.kernel.executions.fork(execution.id, step_id, **given))

    @described(request=serializers.ResumeSerializer, responses=serializers.ExecutionSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Any, execution_id: str) -> Response:
        """Go on with a failed execution where it failed, or from a step with any that has ended."""
        execution, given = self._execution(execution_id), self.read(serializers.ResumeSerializer)
        definition = None
        if "definition" in given:
            definition = self.kernel.workflows.get(execution.name, execution.tenant_id)
        resumed = self.kernel.executions.resume(
            execution.id, step_id=given.get("step"), definition=definition
        )
        require(resumed, "It has not failed." if "step" not in given else "It has not ended.")
        return self._brief(execution_id)

    @described(request=serializers.ExecutionBulkSerializer, responses=serializers.ChangedSerializer)
    @action(detail=False, methods=["post"])
    def bulk(self, request: Any) -> Response:
        """
        Resume, cancel, pause or unpause the executions with these ids, or all that match a filter.

        A call ends after some seconds, and has then changed the oldest; ask again for the others.
        """
        given = self.read(serializers.ExecutionBulkSerializer)
        command, per_second = given.pop("action"), given.pop("per_second", None)
        limit = given.pop("limit", _MOST_AT_ONCE)
        given["tenant_id"] = self.tenant_for(given.pop("tenant_id", None))
        action = BulkAction(command, given, per_second=per_second, target="executions")
        # A request must end before its client gives up; the client can ask again.
        changed = self.kernel.executions.run_bulk(action, seconds=_MOST_SECONDS, limit=limit).done
        return Response(serializers.ChangedSerializer({"changed": changed}).data)

    @described(request=None, responses={202: serializers.AcceptedSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: Any, execution_id: str) -> Response:
        """Begin another execution for the same event, with the workflow as it is now."""
        execution = self._execution(execution_id)
        with transaction.atomic(using=self.alias):
            return self.accepted(self.kernel.start_again(execution.id))

    def _execution(self, execution_id: str) -> Execution:
        found = self.kernel.executions.get(uuid_of(execution_id), large_outputs=False)
        return self.visible(found)

    def _brief(self, execution_id: str) -> Response:
        return Response(serializers.ExecutionSerializer(self._execution(execution_id)).data)
