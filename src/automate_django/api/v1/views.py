"""
The views of the REST API: a class for each path of the kernel's table of routes.

Django REST framework finds out who asks, counts requests, and keeps answers for an
``Idempotency-Key``. The kernel's functions do the rest, as below ``automate serve``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, ClassVar

from django.db import transaction
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from automate_django import conf
from automate_django.api.bases.access import BoundedJSONParser
from automate_django.api.bases.idempotency import owner_of
from automate_django.api.problems import Problem
from automate_django.api.schema import RouteSchema
from automate_django.api.tokens import HasRequiredScopes
from automate_django.api.v1.base import BaseAPIView
from automate_django.connections import non_atomic
from automate_django.kernel import get_kernel
from automate_django.operations import call_seconds, exposed_operations
from automate_django.tenants import Person, person_of, principal_of, token_of
from automate_kernel.access.roles import scopes_of
from automate_kernel.http.api.answering import answer, read_body, read_query, with_etag
from automate_kernel.http.api.exchange import ApiAnswer, ApiClient, ApiRequest
from automate_kernel.http.api.idempotency import LOCK_SECONDS
from automate_kernel.http.api.openapi import openapi
from automate_kernel.http.api.routes import BY_NAME, ROUTES, ApiRoute

PERMISSIONS: Mapping[str, str] = {
    "workflows:read": "view_workflowdefinition",
    "workflows:write": "change_workflowdocument",
    "workflows:start": "add_workflowexecution",
    "executions:read": "view_workflowexecution",
    "executions:write": "change_workflowexecution",
    "approvals:read": "view_workflowwait",
    "approvals:write": "change_workflowwait",
    "events:write": "add_outboxitem",
    "outbox:read": "view_outboxitem",
    "outbox:write": "change_outboxitem",
    "operations:read": "call_operation",
    "operations:call": "call_operation",
    "plugins:read": "view_outboxitem",
    "workers:read": "view_outboxitem",
    "tokens:write": "change_apitoken",
}
"""Django's permission that a user needs beside a scope."""
_OTHERS: Mapping[str, str] = {
    "documents.create": "add_workflowdocument",
    "workflows.pause_schedules": "change_workflowschedule",
    "workflows.resume_schedules": "change_workflowschedule",
    "executions.retry": "add_workflowexecution",
    "executions.fork": "add_workflowexecution",
    "outbox.discard": "delete_outboxitem",
    "service.list_tokens": "view_apitoken",
    "service.make_token": "add_apitoken",
}


def permission_of(route: ApiRoute) -> str:
    """Return Django's permission that a user needs for *route*, of ``automate_django``."""
    return _OTHERS.get(route.name, PERMISSIONS[route.scope])


class HasRoutePermission(BasePermission):
    """Requires a user's permission for the route; a service's token has scopes alone."""

    def has_permission(self, request: Any, view: Any) -> bool:
        """Return True if the user has it."""
        route = view.route_of(request)
        # None: no action of ours answers to this method, and a 405 follows.
        return route is None or may(request, permission_of(route))


def may(request: Any, permission: str) -> bool:
    """Return True if the user of *request* has the Django *permission*, or it is a service's."""
    token = token_of(request)
    if token is not None and token.user_id is None:
        return True
    return bool(request.user.has_perm(f"automate_django.{permission}"))


class JSONAlways(DefaultContentNegotiation):
    """Answers with JSON, whatever the client would accept, as below ``automate serve``."""

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        """Return the first renderer and its media type."""
        return renderers[0], renderers[0].media_type


class _LockSeconds:
    """The time for which a request holds its key if its process dies: longer than any call."""

    def __get__(self, view: object, owner: type | None = None) -> float:
        return LOCK_SECONDS + call_seconds()


class ApiView(BaseAPIView):
    """
    The view of one path.

    Each route requires a scope of a token and a permission of a user. The rows are those of the
    tenant, or all for an operator; anybody else gets 403.
    """

    routes: ClassVar[Mapping[str, ApiRoute]] = {}
    """The routes of the path, by method."""
    idempotent = True
    rate_limited = True
    rate_limit_key_prefix = "automate"
    rate_limit_default = 600
    renderer_classes = [JSONRenderer]  # noqa: RUF012  (as REST framework has it)
    content_negotiation_class = JSONAlways
    parser_classes = [BoundedJSONParser]  # noqa: RUF012
    schema = RouteSchema()

    def route_of(self, request: Any) -> ApiRoute | None:
        """Return the route that *request* is for."""
        return self.routes.get("GET" if request.method == "HEAD" else request.method)

    @property
    def required_scopes(self) -> Mapping[str, str]:
        """The scope that each method requires."""
        found = {method: route.scope for method, route in self.routes.items()}
        return {**found, "HEAD": found["GET"]} if "GET" in found else found

    def get_permissions(self) -> Any:
        """Return the project's own permissions, and ours, which no setting can take away."""
        ours = [IsAuthenticated(), HasRequiredScopes(), HasRoutePermission()]
        return [*super().get_permissions(), *ours]

    def respond(self, request: Any, **arguments: str) -> Response:
        """Answer a request."""
        route = self.route_of(request)
        if route is None:
            raise Problem(405, "There is no such method here.")
        pairs = [(name, each) for name, values in request.query_params.lists() for each in values]
        usual, most = (conf.option("AUTOMATE_API", key) for key in ("PAGE_SIZE", "MAX_PAGE_SIZE"))
        path = "/".join(
            arguments[part[1:-1].partition(":")[0]] if part[0] == "{" else part
            for part in route.parts
        )
        asked = ApiRequest(
            get_kernel(),
            client_of(request, route),
            exposed_operations("API"),
            url=request.build_absolute_uri(),
            base=request.path.removesuffix(f"/{path}"),
            query=read_query(route, pairs),
            body=read_body(route, request.data) if route.method == "POST" else {},
            page_sizes=(min(usual, most), most),
            idempotency_key=_key(request) if route.slow else None,
        )
        # A command is in the audit trail before it is carried out: no transaction around both.
        whole = route.frequent and not route.slow
        alias = asked.kernel.storage.alias  # type: ignore[attr-defined]
        with transaction.atomic(using=alias) if whole else nullcontext():
            found = answer(route, asked, [arguments[name] for name in route.arguments])
        if route.method == "GET":
            found = with_etag(found, request.META.get("HTTP_IF_NONE_MATCH"))
        return _response(found)


class DocumentView(BaseAPIView):
    """The OpenAPI document of this API alone, without the project's own views."""

    schema = None  # it is not among what it describes
    permission_classes = [IsAuthenticated]  # noqa: RUF012
    renderer_classes = [JSONRenderer]  # noqa: RUF012
    content_negotiation_class = JSONAlways

    def get(self, request: Any) -> Response:
        """Answer with the document."""
        document = ApiAnswer(200, openapi(request.path.rpartition("/")[0]))
        return _response(with_etag(document, request.META.get("HTTP_IF_NONE_MATCH")))


def client_of(request: Any, route: ApiRoute) -> ApiClient:
    """Return the author of *request*, as the kernel's functions see it."""
    principal, token, user = principal_of(request), token_of(request), request.user
    scopes = {"*"} if token is None else {*token.scopes, *scopes_of(token.roles)}
    user_id = str(user.pk) if token is None else token.user_id
    service = token is not None and token.user_id is None
    # Only an approval asks for the groups of a user.
    asked = service or route.area == "approvals"
    person = person_of(request) if asked else Person(user.get_username())
    return ApiClient(
        name=person.name,
        roles=person.roles,
        key=owner_of(request),
        id=str(user.pk if token is None else token.pk),
        tenant_id=principal.tenant_id,
        operator=principal.operator,
        scopes=frozenset(scopes),
        # What a user's token may do, the user may: so it can't exceed them.
        user_id=user_id,
        allows=lambda name: may(request, permission_of(BY_NAME[name])),
    )


def _key(request: Any) -> str | None:
    key: str | None = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and "," in key:  # by which servers join two such headers
        raise Problem(400, "Give one Idempotency-Key, without a comma.")
    return key


def _response(found: ApiAnswer) -> Response:
    return Response(found.body, status=found.status, headers=dict(found.headers))


def views() -> Mapping[str, tuple[str, Callable[..., Any]]]:
    """Return the path, as the table has it, and the view of each address, by its name."""
    by_path: dict[str, dict[str, ApiRoute]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = route
    return {
        next(iter(routes.values())).name.replace(".", "-"): (path, _view(routes))
        for path, routes in by_path.items()
    }


def _view(routes: Mapping[str, ApiRoute]) -> Callable[..., Any]:
    slow = any(route.slow for route in routes.values())
    members: dict[str, Any] = {
        "routes": routes,
        "__doc__": ApiView.__doc__,
        # An answer with a secret is never kept.
        "idempotent": not any(route.secret for route in routes.values()),
        **{method.lower(): _method() for method in routes},
    }
    if slow:
        # A call may take its time, and must not hold a transaction for so long.
        members |= {"idempotency_atomic": False, "idempotency_lock_seconds": _LockSeconds()}
    cls: Any = type("ApiView", (ApiView,), members)
    view: Callable[..., Any] = cls.as_view()
    return non_atomic(view) if slow else view


def _method() -> Callable[..., Response]:
    def method(view: ApiView, request: Any, **arguments: str) -> Response:
        return view.respond(request, **arguments)

    return method
