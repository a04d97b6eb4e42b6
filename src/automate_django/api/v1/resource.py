"""What the resources of the REST API have in common: who may, whose rows, and how it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from django.http import Http404
from django.urls import reverse
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from automate_django.api.bases.access import BoundedJSONParser
from automate_django.api.bases.cors import CORSMixin
from automate_django.api.bases.idempotency import IdempotencyMixin
from automate_django.api.bases.pagination import PaginationMixin
from automate_django.api.bases.rate_limit import RateLimitMixin
from automate_django.api.problems import ParameterError
from automate_django.api.schema import ProblemSchema
from automate_django.api.tokens import HasRequiredScopes
from automate_django.api.v1.base import BaseViewSet
from automate_django.kernel import get_kernel
from automate_django.models import ApiToken, OutboxLabel
from automate_django.secrecy import without_secrets
from automate_django.tenants import Principal, principal_of
from automate_kernel.kernel import Kernel
from automate_kernel.outbox.failed_attempts import ErrorGroup, FailedAttempt
from automate_kernel.outbox.labels import read_label

__all__ = ["Resource", "attempt_data", "group_data", "shown"]

_OF_PAGES = ("cursor", "page_size", "limit", "offset", "format")


class HasModelPermission(BasePermission):
    """
    Asks Django for the permission that the view's *model_permissions* name for the action.

    A token that is no user's has no permissions: its scopes alone decide.
    """

    def has_permission(self, request: Any, view: Any) -> bool:
        """Whether the user has it."""
        if isinstance(request.auth, ApiToken) and request.auth.user_id is None:
            return True
        permission = view.model_permissions.get(view.action)
        # None: no action of ours answers to this method, which is told next.
        return permission is None or request.user.has_perm(f"automate_django.{permission}")


class Resource(CORSMixin, RateLimitMixin, PaginationMixin, IdempotencyMixin, BaseViewSet):
    """
    A resource of the automation itself.

    Each action asks a token for a scope and a user for a permission. The rows are those of the
    tenant, or of all for an operator; who is neither gets 403.
    """

    required_scopes: Mapping[str, str] = {}
    model_permissions: Mapping[str, str] = {}
    rate_limit_key_prefix = "automate"
    rate_limit_default = 600
    renderer_classes = [JSONRenderer]  # noqa: RUF012  (as REST framework has it)
    parser_classes = [BoundedJSONParser]  # noqa: RUF012
    schema = ProblemSchema()
    lookup_value_regex = "[^/]+"

    def get_permissions(self) -> Any:
        """The project's own permissions, and ours, which no setting can take away."""
        ours = [IsAuthenticated(), HasRequiredScopes(), HasModelPermission()]
        return [*super().get_permissions(), *ours]

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """Turn away who would see nothing anyway, rather than show an empty list."""
        super().initial(request, *args, **kwargs)
        if self.principal.nobody:
            raise PermissionDenied("You belong to no tenant.")

    @property
    def principal(self) -> Principal:
        """Who asks."""
        found: Principal | None = getattr(self, "_principal", None)
        if found is None:
            found = self._principal = principal_of(self.request)
        return found

    @property
    def kernel(self) -> Kernel:
        """The project's kernel."""
        return get_kernel()

    @property
    def alias(self) -> str:
        """The database of the kernel's tables."""
        alias: str = self.kernel.storage.alias  # type: ignore[attr-defined]
        return alias

    def rows(self, model: Any) -> Any:
        """The rows of *model* that the request may see."""
        found = model._default_manager.using(self.alias)
        if getattr(self, "swagger_fake_view", False):
            return found.none()
        if self.principal.operator:
            return found.all()
        return found.filter(tenant_id=self.principal.tenant_id)

    def row(self, model: Any, row_id: str) -> Any:
        """The row with this id, if the request may see it; raises `Http404`."""
        try:
            found = self.rows(model).filter(pk=UUID(str(row_id))).first()
        except ValueError:
            found = None
        if found is None:
            raise Http404
        return found

    def query(self, serializer: type[Any]) -> dict[str, Any]:
        """The valid parameters of the query, but for those of pages; raises `ParameterError`."""
        given = {k: v for k, v in self.request.query_params.items() if k not in _OF_PAGES}
        read = serializer(data=given)
        if not read.is_valid():
            raise ParameterError(read.errors)
        found: dict[str, Any] = read.validated_data
        if "tenant_id" in found:
            self.tenant_for(found["tenant_id"])
        return found

    def labelled(self, label: str, about: str) -> list[Any]:
        """The ids of what has *label*, as far as the request may see it: the newest 1,000."""
        name, value = read_label(label)
        found = self.rows(OutboxLabel).filter(value=value, about=about)
        if name is not None:
            found = found.filter(name=name)
        return list(found.order_by("-created_at").values_list("subject_id", flat=True)[:1000])

    def page(self, queryset: Any, serializer: type[Any], present: Callable[[Any], Any]) -> Response:
        """One page of *queryset*, each row as *present* tells it."""
        found = self.paginate_queryset(queryset)
        if found is None:
            return Response(serializer([present(row) for row in queryset], many=True).data)
        return self.get_paginated_response(
            serializer([present(row) for row in found], many=True).data
        )

    def read(self, serializer: type[Any]) -> dict[str, Any]:
        """The valid body; raises REST framework's `ValidationError`."""
        read = serializer(data=self.request.data)
        read.is_valid(raise_exception=True)
        found: dict[str, Any] = read.validated_data
        return found

    def accepted(self, execution_id: str) -> Response:
        """202, and where to look how far it has come."""
        path = self.path_of("execution-detail", execution_id)
        return Response({"id": execution_id}, status=202, headers={"Location": path})

    def path_of(self, name: str, *args: str) -> str:
        """The path of another resource, in the namespace that the project gave this API."""
        match = self.request.resolver_match
        namespace = f"{match.namespace}:" if match and match.namespace else ""
        return reverse(f"{namespace}{name}", args=args)

    def tenant_for(self, given: str | None) -> str | None:
        """The tenant of what is made: one's own, and for an operator the one that is *given*."""
        if self.principal.operator:
            return given
        if given not in (None, self.principal.tenant_id):
            raise PermissionDenied("Only an operator can name a tenant.")
        return self.principal.tenant_id


def shown(value: Any) -> Any:
    """
    A stored value as it may be shown.

    Without the secrets that this process knows, and without what stands under a name like
    ``password`` or ``api_key``.
    """
    return without_secrets(get_kernel().redactor.redact_value(value))


def attempt_data(attempt: FailedAttempt) -> dict[str, Any]:
    """A failed attempt as it may be shown."""
    names = ("attempt", "error_code", "error_group", "failed_at", "position")
    return {
        **{name: getattr(attempt, name) for name in names},
        "step": attempt.step_id,
        "error": shown(attempt.error),
        "trace": shown(attempt.trace),
    }


def group_data(group: ErrorGroup) -> dict[str, Any]:
    """A group of errors as it may be shown."""
    names = ("kind", "error_code", "count", "latest_id", "latest_at")
    told = {name: getattr(group, name) for name in names}
    return {**told, "error_group": group.group, "error": shown(group.error)}
