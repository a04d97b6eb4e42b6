"""The four base classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import mixins
from rest_framework.generics import GenericAPIView
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from automate_django.api.bases.access import Configurable, Defaults
from automate_django.api.bases.cors import Cors
from automate_django.api.bases.idempotency import Idempotency
from automate_django.api.bases.pagination import Pagination
from automate_django.api.bases.rate_limit import RateLimit
from automate_django.api.bases.tenants import Tenants

if TYPE_CHECKING:
    _GenericAPIView = GenericAPIView[Any]
    _GenericViewSet = GenericViewSet[Any]
else:
    _GenericAPIView, _GenericViewSet = GenericAPIView, GenericViewSet

__all__ = ["BaseAPIView", "BaseModelViewSet", "BaseReadOnlyViewSet", "BaseViewSet"]


class _Base(Cors, RateLimit, Idempotency, Tenants, Pagination, Configurable, Defaults):
    # CORS outermost, so that every other one's answers are marked; the limit before the tenant.
    pass


class BaseAPIView(_Base, APIView):
    """
    A view of one endpoint.

    It asks for authentication, answers errors as problem details, and has what the mixins switch
    on. All defaults are in ``AUTOMATE_API``.
    """


class BaseViewSet(_Base, _GenericViewSet):
    """A view set whose actions are its own: ``list``, ``create``, ``destroy`` or ``@action``."""


class BaseModelViewSet(
    mixins.CreateModelMixin,
    mixins.RetrieveModelMixin,
    mixins.UpdateModelMixin,
    mixins.DestroyModelMixin,
    mixins.ListModelMixin,
    BaseViewSet,
):
    """A view set of a model: list, retrieve, create, update, destroy."""


class BaseReadOnlyViewSet(mixins.RetrieveModelMixin, mixins.ListModelMixin, BaseViewSet):
    """A view set of a model, to list and retrieve."""
