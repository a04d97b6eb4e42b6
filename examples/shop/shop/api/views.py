"""The views: rows of one store, for users and for programs with a token."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import DjangoModelPermissions
from rest_framework.request import Request
from rest_framework.routers import SimpleRouter

from automate_django.api.tokens import HasRequiredScopes
from automate_django.api.v1.base import (
    BaseModelViewSet,
    IdempotencyMixin,
    RateLimitMixin,
    TenantFilterMixin,
)
from shop.api.serializers import CustomerSerializer, OrderSerializer, ProductSerializer
from shop.models import Customer, Order, Product


class RolePermissions(DjangoModelPermissions):
    """Users may do here what they may do in the admin. A program's token has its scopes alone."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Whether Django's permissions, if the request is a user's, allow it."""
        return request.user.pk is None or super().has_permission(request, view)


class StoreViewSet(TenantFilterMixin, RateLimitMixin, BaseModelViewSet):
    """Rows of the store that who asks belongs to."""

    tenant_field = "store_id"
    permission_classes = (RolePermissions, HasRequiredScopes)
    rate_limit_key_prefix = "shop"
    rate_limit_per_minute = 600
    # Also for what has a dot in it the API answers, and not Django's page for unknown addresses.
    lookup_value_regex = "[^/]+"


class ProductViewSet(StoreViewSet):
    """Products, by their SKU."""

    queryset = Product.objects.filter(is_deleted=False)
    serializer_class = ProductSerializer
    lookup_field = "sku"
    http_method_names = ("get", "post", "patch", "head", "options")


class CustomerViewSet(StoreViewSet):
    """Customers."""

    queryset = Customer.objects.all()
    serializer_class = CustomerSerializer
    http_method_names = ("get", "post", "patch", "head", "options")


class OrderViewSet(IdempotencyMixin, StoreViewSet):
    """Orders. With the header Idempotency-Key a client may send again what was not answered."""

    queryset = Order.objects.select_related("invoice").prefetch_related("lines__product")
    serializer_class = OrderSerializer
    http_method_names = ("get", "post", "head", "options")


router = SimpleRouter(trailing_slash=False)
router.register("products", ProductViewSet)
router.register("customers", CustomerViewSet)
router.register("orders", OrderViewSet)
