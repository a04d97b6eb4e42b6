"""
The admin of the stores.

`TenantScopedAdmin` keeps the stores apart: everybody sees the own store's rows, superusers see all.
Which of them a user may change is said by Django's permissions. The operator's pages ("Automation")
come with the app.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from automate_django.admin import (
    AuditMixin,
    BaseModelAdmin,
    ExportMixin,
    FilterMixin,
    ImportExportBaseAdmin,
    InlineBaseAdmin,
    SoftDeleteAdmin,
    TenantScopedAdmin,
)
from shop.models import Customer, Invoice, Order, OrderLine, Product, Store
from shop.tasks import send_statement


class StoreScopedAdmin(TenantScopedAdmin):
    """Rows of one store. The settings say whose a request is."""

    tenant_field = "store"


class WrittenElsewhere(BaseModelAdmin):
    """To look at: the API and the workflows write these rows, with what belongs to it."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds one here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody changes one here."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes one here."""
        return False


@admin.register(Store)
class StoreAdmin(AuditMixin, StoreScopedAdmin):
    """The tenants themselves."""

    tenant_field = "pk"
    list_display = ("name", "slug", "currency")


@admin.register(Product)
class ProductAdmin(AuditMixin, SoftDeleteAdmin, ImportExportBaseAdmin, StoreScopedAdmin):
    """Changes are remembered, deleted ones can be restored, price lists imported."""

    list_display = ("sku", "name", "price", "stock")
    search_fields = ("sku", "name")
    import_key = ("sku",)


@admin.register(Customer)
class CustomerAdmin(AuditMixin, ExportMixin, StoreScopedAdmin):
    """Customers, with an action that hands work to a task."""

    list_display = ("name", "email")
    search_fields = ("name", "email")
    actions = ("mail_statement",)

    @admin.action(description="Mail the selected customers their orders", permissions=["change"])
    def mail_statement(self, request: HttpRequest, queryset: QuerySet[Customer]) -> None:
        """The mails are sent by the worker: the page doesn't wait for a mail server."""
        for customer in queryset:
            send_statement.enqueue(customer_id=customer.pk)
        self.message_user(request, f"{len(queryset)} mails are on their way.")


class LineInline(InlineBaseAdmin):
    """The lines of an order."""

    model = OrderLine


@admin.register(Order)
class OrderAdmin(FilterMixin, ExportMixin, WrittenElsewhere, StoreScopedAdmin):
    """Orders."""

    list_display = ("number", "customer", "status", "total")
    export_fields = ("number", "customer__name", "status", "total", "created_at")
    inlines = (LineInline,)


@admin.register(Invoice)
class InvoiceAdmin(WrittenElsewhere, StoreScopedAdmin):
    """Invoices. An invoice's store is that of its order."""

    tenant_field = "order__store"
    list_display = ("order", "created_at")
