"""
The REST API for a project's URLs.

::

    path("api/automate/", include("automate_django.api.urls"))
"""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, URLResolver, include, path
from rest_framework.routers import SimpleRouter

from automate_django.api.schema import INSTALLED, SchemaView
from automate_django.api.v1.approvals import ApprovalViewSet
from automate_django.api.v1.executions import ExecutionViewSet
from automate_django.api.v1.operations import OperationViewSet
from automate_django.api.v1.outbox import OutboxViewSet
from automate_django.api.v1.plugins import PluginViewSet
from automate_django.api.v1.workflows import EventViewSet, WorkflowViewSet
from automate_django.connections import non_atomic

app_name = "automate"

router = SimpleRouter(trailing_slash=False)
router.register("workflows", WorkflowViewSet, "workflow")
router.register("executions", ExecutionViewSet, "execution")
router.register("outbox", OutboxViewSet, "item")
router.register("plugins", PluginViewSet, "plugin")

_post: Any = {"post": "create"}
_list: Any = {"get": "list"}
_retrieve: Any = {"get": "retrieve"}
# No transaction of the request's own: a call may take its time.
_called = non_atomic(OperationViewSet.as_view({"get": "retrieve", "post": "call"}))
_choices = non_atomic(OperationViewSet.as_view({"post": "choices"}))
# A name may hold slashes.
_OPERATION = "operations/<path:name>"
_STEP = "approvals/<str:execution_id>/<str:step>"
urlpatterns: list[URLPattern | URLResolver] = [
    path("events", EventViewSet.as_view(_post), name="events"),
    *router.urls,
    path("operations", OperationViewSet.as_view(_list), name="operation-list"),
    path(f"{_OPERATION}/choices/<str:field>", _choices, name="operation-choices"),
    path(_OPERATION, _called, name="operation-detail"),
    path("approvals", ApprovalViewSet.as_view(_list), name="approval-list"),
    path(_STEP, ApprovalViewSet.as_view(_retrieve), name="approval-detail"),
    path(f"{_STEP}/approve", ApprovalViewSet.as_view({"post": "approve"}), name="approval-approve"),
    path(f"{_STEP}/reject", ApprovalViewSet.as_view({"post": "reject"}), name="approval-reject"),
    path("", include("automate_django.approvals")),
    path("", include("automate_django.webhooks")),
]
if INSTALLED:
    urlpatterns.append(path("schema", SchemaView.as_view(), name="schema"))
