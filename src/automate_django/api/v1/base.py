"""The base classes and mixins for a project's own views."""

from automate_django.api.bases.access import ConfigurableMixin, PublicAPIMixin, StaffOnlyMixin
from automate_django.api.bases.cors import CORSMixin
from automate_django.api.bases.idempotency import IdempotencyMixin
from automate_django.api.bases.pagination import PaginationMixin
from automate_django.api.bases.rate_limit import RateLimitMixin
from automate_django.api.bases.tenants import TenantFilterMixin
from automate_django.api.bases.views import (
    BaseAPIView,
    BaseModelViewSet,
    BaseReadOnlyViewSet,
    BaseViewSet,
)

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
