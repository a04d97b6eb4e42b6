"""``/outbox``: items, and the operator's commands for them."""

from __future__ import annotations

from typing import Any

from rest_framework.decorators import action
from rest_framework.response import Response

from automate_django.api.bases.pagination import StorePagination
from automate_django.api.schema import described
from automate_django.api.v1 import serializers
from automate_django.api.v1.resource import Resource, may, require, uuid_of
from automate_django.models import OutboxItem as Model
from automate_django.outbox_counts import counts_of_tenant
from automate_kernel.monitoring.waiting import why_item_waits
from automate_kernel.outbox import OutboxItem

_MOST_AT_ONCE = 10_000
_READS = ("list", "retrieve", "stats", "errors")
_COMMANDS = ("requeue", "cancel", "discard", "reschedule", "bulk")


class OutboxViewSet(Resource):
    """Items of the outbox, the newest first."""

    required_scopes = {  # noqa: RUF012
        **dict.fromkeys(_READS, "outbox:read"),
        **dict.fromkeys(_COMMANDS, "outbox:write"),
    }
    model_permissions = {  # noqa: RUF012
        **dict.fromkeys(_READS, "view_outboxitem"),
        **dict.fromkeys(_COMMANDS, "change_outboxitem"),
        "discard": "delete_outboxitem",
    }
    serializer_class = serializers.ItemSerializer
    lookup_url_kwarg = "item_id"
    pagination_class = StorePagination
    # For schemas and permissions: the store reads the rows.
    queryset = Model._default_manager.none()

    @described(parameters=[serializers.ItemQuerySerializer])
    def list(self, request: Any) -> Response:
        """List items, without what they carry."""
        given = self.query(serializers.ItemQuerySerializer)
        found = self.page(self.kernel.outbox.page, payloads=False, **given).items
        return self.get_paginated_response(serializers.ItemSerializer(found, many=True).data)

    @described(
        parameters=[serializers.ErrorQuerySerializer],
        responses=serializers.ErrorGroupSerializer(many=True),
    )
    @action(detail=False, pagination_class=None)
    def errors(self, request: Any) -> Response:
        """Group the failed items by kind and by where their error came from, largest first."""
        given = self.query(serializers.ErrorQuerySerializer)
        groups = self.kernel.outbox.error_groups(**given)
        return Response(serializers.ErrorGroupSerializer(groups, many=True).data)

    @described(responses=serializers.ItemDetailSerializer)
    def retrieve(self, request: Any, item_id: str) -> Response:
        """Read one item with its payload, in which secrets are hidden."""
        item = self._item(item_id)
        attempts = self.kernel.outbox.failed_attempts(item.id)
        reasons = why_item_waits(self.kernel, item)
        whole = serializers.Whole(item, failed_attempts=attempts, reasons=reasons)
        return Response(serializers.ItemDetailSerializer(whole).data)

    @described(responses=serializers.StatsSerializer)
    @action(detail=False, pagination_class=None)
    def stats(self, request: Any) -> Response:
        """Count items by kind and status, and say how late the oldest is that is due."""
        if self.principal.operator:
            found = serializers.Whole(self.kernel.outbox.stats(), counted_among=None)
        else:
            own = counts_of_tenant(self.kernel.storage, str(self.principal.tenant_id))
            found = serializers.Whole(own, counts=own.by_kind, counted_among=own.looked, paused=())
        return Response(serializers.StatsSerializer(found).data)

    # -- operator commands ---------------------------------------------------------------------

    @described(request=None, responses=serializers.ItemSerializer)
    @action(detail=True, methods=["post"])
    def requeue(self, request: Any, item_id: str) -> Response:
        """Make a failed or cancelled item wait again, with all its attempts."""
        return self._change(item_id, "requeue", "It has neither failed nor been cancelled.")

    @described(request=None, responses=serializers.ItemSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Any, item_id: str) -> Response:
        """Cancel an item that waits, or ask one that runs to stop."""
        return self._change(item_id, "cancel", "It is finished, or asked to stop already.")

    @described(request=None, responses={204: None})
    @action(detail=True, methods=["post"])
    def discard(self, request: Any, item_id: str) -> Response:
        """Delete an item that is finished."""
        item = self._item(item_id)
        require(self.kernel.outbox.discard([item.id]), "It is not finished.")
        return Response(status=204)

    @described(request=serializers.RescheduleSerializer, responses=serializers.ItemSerializer)
    @action(detail=True, methods=["post"])
    def reschedule(self, request: Any, item_id: str) -> Response:
        """Change when an item that waits is due."""
        when = self.read(serializers.RescheduleSerializer)
        return self._change(item_id, "reschedule", "It does not wait.", **when)

    @described(request=serializers.BulkSerializer, responses=serializers.ChangedSerializer)
    @action(detail=False, methods=["post"])
    def bulk(self, request: Any) -> Response:
        """Requeue, cancel or discard the items with these ids, or all that match a filter."""
        given = self.read(serializers.BulkSerializer)
        command, ids = given.pop("action"), given.pop("ids", None)
        if command == "discard" and not may(request, "delete_outboxitem"):
            self.permission_denied(request)
        store, tenant = self.kernel.outbox, self.tenant_for(given.pop("tenant_id", None))
        if ids is not None:
            own = store.find(ids=[str(each) for each in ids], tenant_id=tenant, limit=len(ids))
            changed = getattr(store, command)([item.id for item in own])
        else:
            # A request must end before its client gives up; the client can ask again.
            given.setdefault("limit", _MOST_AT_ONCE)
            changed = getattr(store, f"{command}_matching")(tenant_id=tenant, **given)
        return Response(serializers.ChangedSerializer({"changed": changed}).data)

    def _item(self, item_id: str) -> OutboxItem:
        return self.visible(self.kernel.outbox.get(uuid_of(item_id)))

    def _change(self, item_id: str, command: str, refusal: str, **options: Any) -> Response:
        item = self._item(item_id)
        require(getattr(self.kernel.outbox, command)([item.id], **options), refusal)
        return Response(serializers.ItemSerializer(self._item(item_id)).data)
