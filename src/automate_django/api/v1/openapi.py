"""``/schema``: the REST API as OpenAPI 3, where drf-spectacular is installed."""

from __future__ import annotations

from typing import Any

from drf_spectacular.views import SpectacularAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from automate_django.api.bases.access import Defaults
from automate_kernel import __version__

__all__ = ["SchemaView"]


class SchemaView(Defaults, SpectacularAPIView):
    """The schema of this API alone, whatever else the project has; errors are problem details."""

    schema = None  # it is not among what it describes
    permission_classes = [IsAuthenticated]  # noqa: RUF012
    urlconf = "automate_django.api.urls"
    custom_settings = {  # noqa: RUF012
        "TITLE": "Automation",
        "DESCRIPTION": "Workflows, executions, events, the outbox and plugins.",
        "VERSION": __version__,
        "SCHEMA_PATH_PREFIX": "",
    }

    def handle_exception(self, exc: Exception) -> Any:
        """A problem as JSON: the renderers of this view write schemas alone."""
        self.request.accepted_renderer = JSONRenderer()
        self.request.accepted_media_type = JSONRenderer.media_type
        return super().handle_exception(exc)

    def _get_version_parameter(self, request: Any) -> None:
        """There is one version; what a client says would come back in a header."""

    def _get_schema_response(self, request: Any) -> Response:
        response: Response = super()._get_schema_response(request)  # type: ignore[no-untyped-call]
        response.data["servers"] = [{"url": request.path.rpartition("/")[0] or "/"}]
        return response
