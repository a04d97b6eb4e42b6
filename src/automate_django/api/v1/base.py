"""The base classes and mixins for a project's own views."""

from __future__ import annotations

from typing import Any

from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet, ModelViewSet, ReadOnlyModelViewSet

from automate_django.api.bases.access import (
    Configurable,
    ConfigurableMixin,
    Defaults,
    PublicAPIMixin,
    StaffOnlyMixin,
)
from automate_django.api.bases.cors import Cors, CORSMixin
from automate_django.api.bases.idempotency import Idempotency, IdempotencyMixin
from automate_django.api.bases.pagination import Pagination, PaginationMixin
from automate_django.api.bases.rate_limit import RateLimit, RateLimitMixin
from automate_django.api.bases.tenants import TenantFilterMixin, Tenants
from automate_django.api.schema import HostSchema

__all__ = [
    "BaseAPIView",
    "BaseModelViewSet",
    "BaseReadOnlyViewSet",
    "BaseViewSet",
    "CORSMixin",
    "ConfigurableMixin",
    "IdempotencyMixin",
    "PaginationMixin",
    "PublicAPIMixin",
    "RateLimitMixin",
    "StaffOnlyMixin",
    "TenantFilterMixin",
]


class _Base(Cors, RateLimit, Idempotency, Tenants, Pagination, Configurable, Defaults):
    # CORS outermost, so that the answers of all others are marked; the limit before the tenant.
    schema: Any = HostSchema()


class BaseAPIView(_Base, APIView):
    """
    A view of one endpoint.

    It asks for authentication and answers errors as problem details. The mixins switch its other
    features on. All defaults are in ``AUTOMATE_API``.
    """


class BaseViewSet(_Base, GenericViewSet):  # type: ignore[type-arg]
    """A view set whose actions are its own: ``list``, ``create``, ``destroy`` or ``@action``."""


class BaseModelViewSet(BaseViewSet, ModelViewSet):  # type: ignore[type-arg]
    """A view set of a model: list, retrieve, create, update, destroy."""


class BaseReadOnlyViewSet(BaseViewSet, ReadOnlyModelViewSet):  # type: ignore[type-arg]
    """A view set of a model, to list and retrieve."""
