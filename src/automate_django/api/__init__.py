"""
The API of a project: base classes and mixins for its own views, and a REST API of the automation.

The names load at their first use, so that `automate_django` needs no Django REST framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automate_django.api.bases.pagination import CursorPagination, OffsetPagination
    from automate_django.api.bases.rate_limit import client_address
    from automate_django.api.problems import Problem, problem_exception_handler
    from automate_django.api.tokens import ApiTokenAuthentication, HasRequiredScopes
    from automate_django.api.v1.base import (
        BaseAPIView,
        BaseModelViewSet,
        BaseReadOnlyViewSet,
        BaseViewSet,
        ConfigurableMixin,
        CORSMixin,
        IdempotencyMixin,
        PaginationMixin,
        PublicAPIMixin,
        RateLimitMixin,
        StaffOnlyMixin,
        TenantFilterMixin,
    )
    from automate_django.tenants import Principal, principal_of, tenant_of

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
    "automate_django.api.bases.pagination": ("CursorPagination", "OffsetPagination"),
    "automate_django.api.bases.rate_limit": ("client_address",),
    "automate_django.api.problems": ("Problem", "problem_exception_handler"),
    "automate_django.api.tokens": ("ApiTokenAuthentication", "HasRequiredScopes"),
    "automate_django.tenants": ("Principal", "principal_of", "tenant_of"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # it would give any name, even a misspelt name

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = _HOME.get(name, "automate_django.api.v1.base")
        try:
            value = globals()[name] = getattr(import_module(module), name)
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
    return sorted({*globals(), *__all__})
