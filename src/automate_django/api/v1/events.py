"""``POST /events``: events from elsewhere, which workflows may start on."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from rest_framework.exceptions import PermissionDenied
from rest_framework.response import Response

from automate_django.api.schema import described
from automate_django.api.v1.resource import Resource
from automate_django.api.v1.serializers import AcceptedSerializer, EventSerializer


class EventViewSet(Resource):
    """Incoming events. An event exists once the answer is 202, and once for one Idempotency-Key."""

    required_scopes = {"create": "events:write"}  # noqa: RUF012
    model_permissions = {"create": "add_outboxitem"}  # noqa: RUF012
    serializer_class = EventSerializer

    @described(request=EventSerializer, responses={202: AcceptedSerializer})
    def create(self, request: Any) -> Response:
        """Accept an event."""
        given = self.read(EventSerializer)
        if "priority" in given and not self.principal.operator:
            # The order among tenants is not for one of them to decide.
            raise PermissionDenied("Only an operator can give a priority.")
        given["tenant_id"] = self.tenant_for(given.pop("tenant_id", None))
        name, payload = given.pop("name"), given.pop("payload")
        with transaction.atomic(using=self.alias):
            item_id = self.kernel.emit(name, payload, **given)
        return Response({"id": item_id}, status=202)
