"""The base of the REST API's resources: permissions, tenants and pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar
from uuid import UUID

from django.http import Http404
from django.urls import reverse
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.serializers import ListField

from automate_django.api.bases.access import BoundedJSONParser
from automate_django.api.problems import ParameterError, Problem
from automate_django.api.schema import ProblemSchema
from automate_django.api.tokens import HasRequiredScopes
from automate_django.api.v1.base import BaseViewSet
from automate_django.kernel import get_kernel
from automate_django.tenants import Principal, principal_of, token_of
from automate_kernel.kernel import Kernel
from automate_kernel.outbox import OutboxItem
from automate_kernel.workflows.execution import Execution
from automate_kernel.workflows.steer.approvals import PendingApproval

Seen = TypeVar("Seen", OutboxItem, Execution, PendingApproval)
_OF_PAGES = ("cursor", "page_size")


class HasModelPermission(BasePermission):
    """Requires a user's permission of *model_permissions*; a service's token has scopes alone."""

    def has_permission(self, request: Any, view: Any) -> bool:
        """Return True if the user has it."""
        permission = view.model_permissions.get(view.action)
        # None: no action of ours answers to this method, and a 405 follows.
        return permission is None or may(request, permission)


def may(request: Any, permission: str) -> bool:
    """Return True if the user of *request* has the Django *permission*, or it is a service's."""
    token = token_of(request)
    if token is not None and token.user_id is None:
        return True
    return bool(request.user.has_perm(f"automate_django.{permission}"))


class Resource(BaseViewSet):
    """
    A resource of the automation itself.

    Each action requires a scope of a token and a permission of a user. The rows are those of the
    tenant, or all for an operator; anybody else gets 403.
    """

    required_scopes: Mapping[str, str] = {}
    model_permissions: Mapping[str, str] = {}
    idempotent = True
    rate_limited = True
    rate_limit_key_prefix = "automate"
    rate_limit_default = 600
    renderer_classes = [JSONRenderer]  # noqa: RUF012  (as REST framework has it)
    parser_classes = [BoundedJSONParser]  # noqa: RUF012
    schema = ProblemSchema()
    lookup_value_regex = "[^/]+"

    def get_permissions(self) -> Any:
        """Return the project's own permissions, and ours, which no setting can take away."""
        ours = [IsAuthenticated(), HasRequiredScopes(), HasModelPermission()]
        return [*super().get_permissions(), *ours]

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """Turn away a user who would see nothing, rather than show an empty list."""
        super().initial(request, *args, **kwargs)
        if self.principal.nobody:
            raise PermissionDenied("You belong to no tenant.")

    @cached_property
    def principal(self) -> Principal:
        """The author of the request."""
        return principal_of(self.request)

    @property
    def kernel(self) -> Kernel:
        """The project's kernel."""
        return get_kernel()

    @property
    def alias(self) -> str:
        """The database of the kernel's tables."""
        alias: str = self.kernel.storage.alias  # type: ignore[attr-defined]
        return alias

    def visible(self, found: Seen | None) -> Seen:
        """Return *found*, an item say; raises `Http404` if it is another tenant's."""
        if found is None:
            raise Http404
        if not self.principal.operator and found.tenant_id != self.principal.tenant_id:
            raise Http404
        return found

    def query(self, serializer: type[Any]) -> dict[str, Any]:
        """Return the query's valid parameters, but pages', and the tenant; or `ParameterError`."""
        params = self.request.query_params
        others = ("format", *(_OF_PAGES if self.paginator is not None else ()))
        given: dict[str, Any] = {
            name: value for name, value in params.items() if name not in others
        }
        lists = [name for name, each in serializer().fields.items() if isinstance(each, ListField)]
        for name, values in params.lists():
            if name in given and name in lists:
                given[name] = values
            elif len(values) > 1:
                # Which of them counts would be for us to guess.
                raise ParameterError({name: ["Give it once."]})
        read = serializer(data=given)
        if not read.is_valid():
            raise ParameterError(read.errors)
        found: dict[str, Any] = read.validated_data
        found["tenant_id"] = self.tenant_for(found.get("tenant_id"))
        return found

    def page(self, read: Callable[..., Any], **matching: Any) -> Any:
        """Return the page of the request; *read* is the ``page`` method of a store."""
        paginator: Any = self.paginator
        return paginator.read(read, self.request, self, **matching)

    def read(self, serializer: type[Any]) -> dict[str, Any]:
        """Return the valid body; raises REST framework's `ValidationError`."""
        read = serializer(data=self.request.data)
        read.is_valid(raise_exception=True)
        found: dict[str, Any] = read.validated_data
        return found

    def accepted(self, execution_id: str) -> Response:
        """Return 202, with the address of the execution."""
        path = self.path_of("execution-detail", execution_id)
        return Response({"id": execution_id}, status=202, headers={"Location": path})

    def path_of(self, name: str, *args: str) -> str:
        """Return the path of another resource, in the namespace that the project gave this API."""
        match = self.request.resolver_match
        namespace = f"{match.namespace}:" if match and match.namespace else ""
        return reverse(f"{namespace}{name}", args=args)

    def tenant_for(self, given: str | None) -> str | None:
        """Return the tenant to read or write for: one's own, or for an operator the *given* one."""
        if self.principal.operator:
            return given
        if given not in (None, self.principal.tenant_id):
            raise PermissionDenied("Only an operator can name a tenant.")
        return self.principal.tenant_id


def require(done: Any, refusal: str) -> None:
    """Raise a `Problem` with *refusal* unless the store has *done* something."""
    if not done:
        raise Problem(409, refusal, code="FAILED_PRECONDITION")


def uuid_of(text: str) -> str:
    """Return the id that *text* is; raises `Http404` for an invalid one."""
    try:
        return str(UUID(str(text)))
    except ValueError:
        raise Http404 from None
