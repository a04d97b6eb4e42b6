"""``/workflows``: definitions, and their start; ``POST /events``, which workflows may start on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.http import Http404
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied
from rest_framework.response import Response

from automate_django.api.schema import described
from automate_django.api.v1 import serializers
from automate_django.api.v1.resource import Resource, require
from automate_kernel.workflows.store.catalogue import EVERYBODY, Entry

_READS = ("list", "retrieve", "schedules")
_CHANGES = ("pause_schedules", "resume_schedules")
_PAUSES = ("pause", "resume")
_STARTS = ("start", "trigger", "backfill")


class WorkflowViewSet(Resource):
    """Workflows of files and of the database, by name; a tenant sees its own and everybody's."""

    required_scopes = {  # noqa: RUF012
        **dict.fromkeys(_READS, "workflows:read"),
        **dict.fromkeys((*_STARTS, *_CHANGES), "workflows:start"),
        **dict.fromkeys(_PAUSES, "executions:write"),
    }
    model_permissions = {  # noqa: RUF012
        **dict.fromkeys(_READS, "view_workflowdefinition"),
        **dict.fromkeys(_STARTS, "add_workflowexecution"),
        **dict.fromkeys(_CHANGES, "change_workflowschedule"),
        **dict.fromkeys(_PAUSES, "change_workflowexecution"),
    }
    serializer_class = serializers.WorkflowSerializer
    lookup_field = "name"
    pagination_class = None

    def _entries(self) -> list[Entry]:
        principal = self.principal
        seen = EVERYBODY if principal.operator else principal.tenant_id
        return self.kernel.workflows.entries(tenant_id=seen)

    @described(responses=serializers.WorkflowSerializer(many=True))
    def list(self, request: Any) -> Response:
        """List the workflows, by name."""
        entries = sorted(self._entries(), key=lambda entry: entry.workflow.name)
        return Response(serializers.WorkflowSerializer(entries, many=True).data)

    @described(responses=serializers.WorkflowDetailSerializer)
    def retrieve(self, request: Any, name: str) -> Response:
        """Read one workflow, with its definition."""
        for entry in self._entries():
            if entry.workflow.name == name:
                return Response(serializers.WorkflowDetailSerializer(entry).data)
        raise Http404

    @described(request=serializers.StartSerializer, responses={202: serializers.AcceptedSerializer})
    @action(detail=True, methods=["post"])
    def start(self, request: Any, name: str) -> Response:
        """Begin an execution, whatever the workflow's triggers."""
        given = self.read(serializers.StartSerializer)
        _check_priority(self, given)
        given["tenant_id"] = self.tenant_for(given.get("tenant_id"))
        with transaction.atomic(using=self.alias):
            started = self.kernel.start(name, given.pop("payload"), **given)
        return self.accepted(started)

    @described(request=serializers.PauseSerializer, responses=serializers.PausedSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Any, name: str) -> Response:
        """Let no step of a workflow begin: for a tenant its own executions, or all."""
        given = self.read(serializers.PauseSerializer)
        tenant = self._paused_for(name, given)
        self.kernel.workflows.pause(name, given["reason"], tenant_id=tenant)
        about = {"name": name, "tenant_id": tenant, "paused": True}
        return Response(serializers.PausedSerializer(about).data)

    @described(request=serializers.PauseSerializer, responses=serializers.PausedSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Any, name: str) -> Response:
        """Let the executions of a paused workflow go on."""
        tenant = self._paused_for(name, self.read(serializers.PauseSerializer))
        resumed = self.kernel.workflows.resume(name, tenant_id=tenant)
        require(resumed, "It is not paused.")
        about = {"name": name, "tenant_id": tenant, "paused": False}
        return Response(serializers.PausedSerializer(about).data)

    def _paused_for(self, name: str, given: dict[str, Any]) -> str | None:
        if all(entry.workflow.name != name for entry in self._entries()):
            raise Http404
        return self.tenant_for(given.get("tenant_id"))

    # -- schedules -------------------------------------------------------------------------------

    @described(responses=serializers.ScheduleSerializer(many=True))
    @action(detail=True)
    def schedules(self, request: Any, name: str) -> Response:
        """List a workflow's schedules: those of the tenant's own, for an operator all."""
        seen = EVERYBODY if self.principal.operator else self.principal.tenant_id
        found = self.kernel.schedules.find(name, tenant_id=seen)
        if not found and all(entry.workflow.name != name for entry in self._entries()):
            raise Http404
        return Response(serializers.ScheduleSerializer(found, many=True).data)

    @described(
        request=serializers.ScheduleCommandSerializer, responses=serializers.ChangedSerializer
    )
    @action(detail=True, methods=["post"], url_path="schedules/pause")
    def pause_schedules(self, request: Any, name: str) -> Response:
        """Let a workflow's schedules fire no more."""
        changed = self.kernel.schedules.pause(name, **self._meant())
        return Response(serializers.ChangedSerializer({"changed": changed}).data)

    @described(
        request=serializers.ScheduleCommandSerializer, responses=serializers.ChangedSerializer
    )
    @action(detail=True, methods=["post"], url_path="schedules/resume")
    def resume_schedules(self, request: Any, name: str) -> Response:
        """Let paused schedules fire again."""
        changed = self.kernel.schedules.resume(name, **self._meant())
        return Response(serializers.ChangedSerializer({"changed": changed}).data)

    @described(
        request=serializers.ScheduleCommandSerializer,
        responses={202: serializers.AcceptedSerializer},
    )
    @action(detail=True, methods=["post"], url_path="schedules/trigger")
    def trigger(self, request: Any, name: str) -> Response:
        """Fire a schedule now, beside its own times."""
        return self.accepted(self.kernel.schedules.trigger(name, **self._meant()))

    @described(request=serializers.BackfillSerializer, responses=serializers.ChangedSerializer)
    @action(detail=True, methods=["post"], url_path="schedules/backfill")
    def backfill(self, request: Any, name: str) -> Response:
        """Fire each time of a range in the past; one that has an execution makes none again."""
        given = self._meant(serializers.BackfillSerializer)
        begun = self.kernel.schedules.backfill(name, given.pop("start"), given.pop("end"), **given)
        return Response(serializers.ChangedSerializer({"changed": begun}).data)

    def _meant(self, serializer: type[Any] = serializers.ScheduleCommandSerializer) -> Any:
        given = self.read(serializer)
        return {**given, "tenant_id": self.tenant_for(given.get("tenant_id"))}


def _check_priority(view: Resource, given: Mapping[str, Any]) -> None:
    if "priority" in given and not view.principal.operator:
        # The order among tenants is not for one of them to decide.
        raise PermissionDenied("Only an operator can give a priority.")


class EventViewSet(Resource):
    """Incoming events. An event exists once the answer is 202, and once for one Idempotency-Key."""

    required_scopes = {"create": "events:write"}  # noqa: RUF012
    model_permissions = {"create": "add_outboxitem"}  # noqa: RUF012
    serializer_class = serializers.EventSerializer

    @described(request=serializers.EventSerializer, responses={202: serializers.AcceptedSerializer})
    def create(self, request: Any) -> Response:
        """Accept an event."""
        given = self.read(serializers.EventSerializer)
        _check_priority(self, given)
        given["tenant_id"] = self.tenant_for(given.pop("tenant_id", None))
        name, payload = given.pop("name"), given.pop("payload")
        with transaction.atomic(using=self.alias):
            item_id = self.kernel.emit(name, payload, **given)
        return Response({"id": item_id}, status=202)
