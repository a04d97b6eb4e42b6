"""``/outbox``: what waits, runs and has failed, and steering it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rest_framework.decorators import action
from rest_framework.response import Response

from automate_django.api.bases.pagination import BoundedCursorPagination
from automate_django.api.problems import Problem
from automate_django.api.schema import described
from automate_django.api.v1.resource import Resource, attempt_data, group_data, shown
from automate_django.api.v1.serializers import (
    BulkSerializer,
    ChangedSerializer,
    ErrorGroupSerializer,
    ErrorQuerySerializer,
    ItemDetailSerializer,
    ItemQuerySerializer,
    ItemSerializer,
    RescheduleSerializer,
    StatsSerializer,
)
from automate_django.models import OutboxItem
from automate_django.tenant_counts import counts_of_tenant
from automate_kernel.outbox.labels import HEADER as LABELS

__all__ = ["OutboxViewSet"]

_LOOKUPS = {
    "status": "status",
    "kind": "kind",
    "tenant_id": "tenant_id",
    "error_code": "last_error_code",
    "error_group": "last_error_group",
    "created_after": "created_at__gte",
    "created_before": "created_at__lt",
}
_MOST_AT_ONCE = 10_000
_LOOKS = ("list", "retrieve", "stats", "errors")
_CHANGES = ("requeue", "cancel", "discard", "reschedule", "bulk")


class OutboxViewSet(Resource):
    """Items of the outbox, the newest first."""

    required_scopes = {  # noqa: RUF012
        **dict.fromkeys(_LOOKS, "outbox:read"),
        **dict.fromkeys(_CHANGES, "outbox:write"),
    }
    model_permissions = {  # noqa: RUF012
        **dict.fromkeys(_LOOKS, "view_outboxitem"),
        **dict.fromkeys(_CHANGES, "change_outboxitem"),
        "discard": "delete_outboxitem",
    }
    serializer_class = ItemSerializer
    lookup_url_kwarg = "item_id"
    pagination_class = BoundedCursorPagination
    _passed_over: Any = None

    def get_queryset(self) -> Any:
        """Those that the request may see."""
        return self.rows(OutboxItem)

    @described(parameters=[ItemQuerySerializer])
    def list(self, request: Any) -> Response:
        """List items, without what they carry."""
        given = self.query(ItemQuerySerializer)
        found, label = self.get_queryset(), given.pop("label", None)
        if label is not None:
            found = found.filter(pk__in=self.labelled(label, "item"))
        elif given or not self.principal.operator:
            # No index leads to a kind's items or a tenant's: those of all are passed over.
            everything = OutboxItem._default_manager.using(self.alias)
            failed = {"status": "FAILED"} if given.get("status") == "FAILED" else {}
            self._passed_over = everything.filter(**failed)
        wanted = {_LOOKUPS[name]: value for name, value in given.items()}
        found = found.filter(**wanted).defer("payload", "headers")
        return self.page(found, ItemSerializer, _brief)

    def passed_over(self) -> Any:
        """The rows that the list goes through, where it looks for some among them."""
        return self._passed_over

    @described(parameters=[ErrorQuerySerializer], responses=ErrorGroupSerializer(many=True))
    @action(detail=False, pagination_class=None)
    def errors(self, request: Any) -> Response:
        """Group the failed items by kind and by where their error came from, largest first."""
        given = self.query(ErrorQuerySerializer)
        tenant = self.tenant_for(given.get("tenant_id"))
        groups = self.kernel.outbox.error_groups(kind=given.get("kind"), tenant_id=tenant)
        return Response(ErrorGroupSerializer([group_data(one) for one in groups], many=True).data)

    @described(responses=ItemDetailSerializer)
    def retrieve(self, request: Any, item_id: str) -> Response:
        """Read one item with its payload, in which secrets are hidden."""
        row = self.row(OutboxItem, item_id)
        attempts = self.kernel.outbox.failed_attempts(str(row.pk))
        whole = {
            **_brief(row),
            "payload": shown(row.payload),
            "headers": shown(row.headers),
            "labels": shown(row.headers.get(LABELS) or {}),
            "failed_attempts": [attempt_data(each) for each in attempts],
        }
        return Response(ItemDetailSerializer(whole).data)

    @described(responses=StatsSerializer)
    @action(detail=False, pagination_class=None)
    def stats(self, request: Any) -> Response:
        """Count items by kind and status, and say how late the oldest is that is due."""
        if self.principal.operator:
            stats = self.kernel.outbox.stats()
            told = {
                "counts": stats.counts,
                "counted_among": None,
                "oldest_due_seconds": stats.oldest_due_seconds,
                "paused": stats.paused,
            }
        else:
            told = self._stats_of_tenant()
        return Response(StatsSerializer(told).data)

    def _stats_of_tenant(self) -> dict[str, Any]:
        own = counts_of_tenant(self.kernel.storage, str(self.principal.tenant_id))
        return {
            "counts": own.by_kind,
            "counted_among": own.looked,
            "oldest_due_seconds": own.oldest_due_seconds,
            "paused": [],
        }

    # -- steering ----------------------------------------------------------------------------

    @described(request=None, responses=ItemSerializer)
    @action(detail=True, methods=["post"])
    def requeue(self, request: Any, item_id: str) -> Response:
        """Make a failed or cancelled item wait again, with all its attempts."""
        return self._change(item_id, "requeue", "It has neither failed nor been cancelled.")

    @described(request=None, responses=ItemSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Any, item_id: str) -> Response:
        """Cancel an item that waits, or ask one that runs to stop."""
        return self._change(item_id, "cancel", "It is finished, or asked to stop already.")

    @described(request=None, responses={204: None})
    @action(detail=True, methods=["post"])
    def discard(self, request: Any, item_id: str) -> Response:
        """Delete an item that is finished."""
        row = self.row(OutboxItem, item_id)
        if not self.kernel.outbox.discard([str(row.pk)]):
            raise _cannot("It is not finished.")
        return Response(status=204)

    @described(request=RescheduleSerializer, responses=ItemSerializer)
    @action(detail=True, methods=["post"])
    def reschedule(self, request: Any, item_id: str) -> Response:
        """Change when an item that waits is due."""
        when = self.read(RescheduleSerializer)
        return self._change(item_id, "reschedule", "It does not wait.", **when)

    @described(request=BulkSerializer, responses=ChangedSerializer)
    @action(detail=False, methods=["post"])
    def bulk(self, request: Any) -> Response:
        """Requeue, cancel or discard the items with these ids, or all that match a filter."""
        given = self.read(BulkSerializer)
        what, ids = given.pop("action"), given.pop("ids", None)
        if what == "discard":
            self._ask_for("delete_outboxitem")
        if ids is not None:
            changed = getattr(self.kernel.outbox, what)(self._own(ids))
        else:
            given["tenant_id"] = self.tenant_for(given.pop("tenant_id", None))
            # A request must end before its client gives up; who wants more asks again.
            given.setdefault("limit", _MOST_AT_ONCE)
            changed = getattr(self.kernel.outbox, f"{what}_matching")(**given)
        return Response(ChangedSerializer({"changed": changed}).data)

    def _ask_for(self, permission: str) -> None:
        user: Any = self.request.user
        service = self.request.auth is not None and user.pk is None
        if not service and not user.has_perm(f"automate_django.{permission}"):
            self.permission_denied(self.request)

    def _own(self, ids: Sequence[Any]) -> Sequence[str]:
        """Those of *ids* that the request may see."""
        found = self.get_queryset().filter(pk__in=ids).values_list("pk", flat=True)
        return [str(item_id) for item_id in found]

    def _change(self, item_id: str, what: str, refusal: str, **options: Any) -> Response:
        row = self.row(OutboxItem, item_id)
        if not getattr(self.kernel.outbox, what)([str(row.pk)], **options):
            raise _cannot(refusal)
        return Response(ItemSerializer(_brief(self.row(OutboxItem, item_id))).data)


def _brief(row: OutboxItem) -> dict[str, Any]:
    fields = (
        "id", "kind", "status", "priority", "attempt_count", "max_attempts", "next_attempt_at",
        "lease_owner", "lease_expires_at", "tenant_id", "created_at", "updated_at", "completed_at",
    )  # fmt: skip
    return {
        **{name: getattr(row, name) for name in fields},
        "error_code": row.last_error_code,
        "error_group": row.last_error_group,
        "error": shown(row.last_error),
    }


def _cannot(detail: str) -> Problem:
    return Problem(409, detail, code="FAILED_PRECONDITION")
