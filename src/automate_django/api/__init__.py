"""
The API of a project: base classes and mixins for its own views, and a REST API of the automation.

The names load at their first use, so that `automate_django` needs no Django REST framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automate_django.api.addresses import client_address
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
    from automate_django.api.paginators import CursorPagination, OffsetPagination
    from automate_django.api.principals import Principal, principal_of, tenant_of
    from automate_django.api.problems import Problem, problem_exception_handler
    from automate_django.api.scopes import HasRequiredScopes
    from automate_django.api.tokens import ApiTokenAuthentication

__all__ = [
    "ApiTokenAuthentication",
    "BaseAPIView",
    "BaseModelViewSet",
    "BaseReadOnlyViewSet",
    "BaseViewSet",
    "CORSMixin",
    "ConfigurableMixin",
    "CursorPagination",
    "HasRequiredScopes",
    "IdempotencyMixin",
    "OffsetPagination",
    "PaginationMixin",
    "Principal",
    "Problem",
    "PublicAPIMixin",
    "RateLimitMixin",
    "StaffOnlyMixin",
    "TenantFilterMixin",
    "client_address",
    "principal_of",
    "problem_exception_handler",
    "tenant_of",
]

_HOMES = {
    "addresses": ("client_address",),
    "bases.access": ("ConfigurableMixin", "PublicAPIMixin", "StaffOnlyMixin"),
    "bases.cors": ("CORSMixin",),
    "bases.idempotency": ("IdempotencyMixin",),
    "bases.pagination": ("PaginationMixin",),
    "bases.rate_limit": ("RateLimitMixin",),
    "bases.tenants": ("TenantFilterMixin",),
    "bases.views": ("BaseAPIView", "BaseModelViewSet", "BaseReadOnlyViewSet", "BaseViewSet"),
    "paginators": ("CursorPagination", "OffsetPagination"),
    "principals": ("Principal", "principal_of", "tenant_of"),
    "problems": ("Problem", "problem_exception_handler"),
    "scopes": ("HasRequiredScopes",),
    "tokens": ("ApiTokenAuthentication",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rest_framework":
            raise
    else:
        return value
    raise ImportError(
        "automate_django.api needs Django REST framework: pip install 'automate-kernel[api]'",
        name="rest_framework",
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
