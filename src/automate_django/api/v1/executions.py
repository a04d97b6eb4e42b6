"""``/executions``: what ran, how far it came, and what to do about it."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from rest_framework.decorators import action
from rest_framework.response import Response

from automate_django.api.bases.pagination import BoundedCursorPagination
from automate_django.api.problems import Problem
from automate_django.api.schema import described
from automate_django.api.v1.resource import Resource, attempt_data, group_data, shown
from automate_django.api.v1.serializers import (
    AcceptedSerializer,
    ChangedSerializer,
    ErrorGroupSerializer,
    ExecutionBulkSerializer,
    ExecutionDetailSerializer,
    ExecutionErrorQuerySerializer,
    ExecutionQuerySerializer,
    ExecutionSerializer,
    ResumeSerializer,
)
from automate_django.models import WorkflowExecution, WorkflowStep

__all__ = ["ExecutionViewSet"]

_LOOKUPS = {
    "status": "status",
    "workflow": "workflow",
    "tenant_id": "tenant_id",
    "error_group": "error_group",
    "created_after": "created_at__gte",
    "created_before": "created_at__lt",
}


_MOST_AT_ONCE = 1000


class ExecutionViewSet(Resource):
    """Executions of workflows, the newest first."""

    required_scopes = {  # noqa: RUF012
        "list": "executions:read",
        "errors": "executions:read",
        "retrieve": "executions:read",
        "cancel": "executions:write",
        "resume": "executions:write",
        "bulk": "executions:write",
        "retry": "executions:write",
    }
    model_permissions = {  # noqa: RUF012
        "list": "view_workflowexecution",
        "errors": "view_workflowexecution",
        "retrieve": "view_workflowexecution",
        "cancel": "change_workflowexecution",
        "resume": "change_workflowexecution",
        "bulk": "change_workflowexecution",
        "retry": "add_workflowexecution",
    }
    serializer_class = ExecutionSerializer
    lookup_url_kwarg = "execution_id"
    # Their ids are made from their events', and in no order.
    cursor_ordering = ("-created_at",)
    pagination_class = BoundedCursorPagination
    _passed_over: Any = None

    def get_queryset(self) -> Any:
        """Those that the request may see."""
        return self.rows(WorkflowExecution)

    @described(parameters=[ExecutionQuerySerializer])
    def list(self, request: Any) -> Response:
        """List executions."""
        given = self.query(ExecutionQuerySerializer)
        found, label = self.get_queryset(), given.pop("label", None)
        wanted = {_LOOKUPS[name]: value for name, value in given.items()}
        if label is not None:
            found = found.filter(pk__in=self.labelled(label, "execution"))
        else:
            self._passed_over = self._along(wanted)
        return self.page(found.filter(**wanted), ExecutionSerializer, _brief)

    def passed_over(self) -> Any:
        """The rows that the list goes through, where it looks for some among them."""
        return self._passed_over

    def _along(self, wanted: dict[str, Any]) -> Any:
        """The rows of the one index that leads to the fewest, if that is not all that is asked."""
        own = self.get_queryset()
        named = [name for name in wanted if not name.startswith("created_at")]
        if not self.principal.operator:
            return own if named else None
        if len(named) < 2 and "error_group" not in named:
            return None
        leading = next((name for name in ("tenant_id", "workflow", "status") if name in named), "")
        return own.filter(**{leading: wanted[leading]}) if leading else own

    @described(
        parameters=[ExecutionErrorQuerySerializer], responses=ErrorGroupSerializer(many=True)
    )
    @action(detail=False, pagination_class=None)
    def errors(self, request: Any) -> Response:
        """Group the failed ones by workflow and by where their error came from, largest first."""
        given = self.query(ExecutionErrorQuerySerializer)
        groups = self.kernel.executions.error_groups(
            workflow=given.get("workflow"), tenant_id=self.tenant_for(given.get("tenant_id"))
        )
        return Response(ErrorGroupSerializer([group_data(one) for one in groups], many=True).data)

    @described(responses=ExecutionDetailSerializer)
    def retrieve(self, request: Any, execution_id: str) -> Response:
        """Read one execution with its event, output and steps, in which secrets are hidden."""
        return Response(ExecutionDetailSerializer(self._whole(execution_id)).data)

    @described(request=None, responses=ExecutionSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Any, execution_id: str) -> Response:
        """End an execution that has not ended. What runs is asked to stop."""
        row = self.row(WorkflowExecution, execution_id)
        if not self.kernel.executions.cancel(str(row.pk)):
            raise _cannot("It has ended already.")
        return self._brief(execution_id)

    @described(request=ResumeSerializer, responses=ExecutionSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Any, execution_id: str) -> Response:
        """Go on with a failed execution where it failed, or from a step with any that has ended."""
        row, step = self.row(WorkflowExecution, execution_id), self.read(ResumeSerializer)
        if not self.kernel.executions.resume(str(row.pk), step_id=step.get("step")):
            raise _cannot("It has not failed." if "step" not in step else "It has not ended.")
        return self._brief(execution_id)

    @described(request=ExecutionBulkSerializer, responses=ChangedSerializer)
    @action(detail=False, methods=["post"])
    def bulk(self, request: Any) -> Response:
        """Resume the failed executions with these ids, or all that match a filter."""
        given, store = self.read(ExecutionBulkSerializer), self.kernel.executions
        given.pop("action")
        if (ids := given.pop("ids", None)) is not None:
            found = self.get_queryset().filter(pk__in=ids).values_list("pk", flat=True)
            changed = sum(store.resume(str(execution_id)) for execution_id in found)
        else:
            given["tenant_id"] = self.tenant_for(given.pop("tenant_id", None))
            # A request must end before its client gives up; who wants more asks again.
            given.setdefault("limit", _MOST_AT_ONCE)
            changed = store.resume_matching(**given)
        return Response(ChangedSerializer({"changed": changed}).data)

    @described(request=None, responses={202: AcceptedSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: Any, execution_id: str) -> Response:
        """Begin another execution for the same event, with the workflow as it is now."""
        row = self.row(WorkflowExecution, execution_id)
        with transaction.atomic(using=self.alias):
            return self.accepted(self.kernel.start_again(str(row.pk)))

    def _brief(self, execution_id: str) -> Response:
        row = self.row(WorkflowExecution, execution_id)
        return Response(ExecutionSerializer(_brief(row)).data)

    def _whole(self, execution_id: str) -> dict[str, Any]:
        row = self.row(WorkflowExecution, execution_id)
        definition = row.definition.body
        steps = {
            step["id"]: step
            for step in (*definition.get("steps", ()), *definition.get("on_failure", ()))
        }
        # Ids are made in the order in which runs begin.
        runs = WorkflowStep.objects.using(self.alias).filter(execution_id=row.pk).order_by("pk")
        return {
            **_brief(row),
            "payload": shown(row.event.get("payload")),
            "output": shown(row.output),
            "definition_id": row.definition_id,
            "item_id": row.item_id,
            "failed_attempts": [
                attempt_data(each) for each in self.kernel.executions.failed_attempts(str(row.pk))
            ],
            "steps": [_run(run, steps.get(run.step_id, {})) for run in runs],
        }


def _brief(row: WorkflowExecution) -> dict[str, Any]:
    fields = (
        "id", "workflow", "status", "tenant_id", "error_code", "error_group", "created_at",
        "updated_at", "completed_at",
    )  # fmt: skip
    told = {name: getattr(row, name) for name in fields}
    labels = shown(row.event.get("labels") or {})
    return {**told, "event": row.event.get("name"), "error": shown(row.error), "labels": labels}


def _run(run: WorkflowStep, step: dict[str, Any]) -> dict[str, Any]:
    fields = (
        "position", "status", "attempts", "error_code", "error_group", "started_at",
        "next_attempt_at", "completed_at",
    )  # fmt: skip
    return {
        **{name: getattr(run, name) for name in fields},
        "id": run.step_id,
        "action": step.get("action"),
        "input": shown(step.get("input", {})),
        "output": shown(run.output),
        "error": shown(run.error),
        "trace": shown(run.trace),
    }


def _cannot(detail: str) -> Problem:
    return Problem(409, detail, code="FAILED_PRECONDITION")
