"""``/plugins``: installed plugins and their states."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import PermissionDenied
from rest_framework.response import Response

from automate_django.api.schema import described
from automate_django.api.v1.resource import Resource
from automate_django.api.v1.serializers import PluginSerializer


class PluginViewSet(Resource):
    """Plugins and their states, for operators: they belong to no tenant."""

    required_scopes = {"list": "plugins:read"}  # noqa: RUF012
    model_permissions = {"list": "view_outboxitem"}  # noqa: RUF012
    serializer_class = PluginSerializer
    pagination_class = None

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """Turn away a user who is no operator."""
        super().initial(request, *args, **kwargs)
        if not self.principal.operator:
            raise PermissionDenied("This is for operators.")

    @described(responses=PluginSerializer(many=True))
    def list(self, request: Any) -> Response:
        """List the plugins, the unusable ones too, with what to do about those."""
        records = self.kernel.plugins.records()
        return Response(PluginSerializer(records, many=True).data)
