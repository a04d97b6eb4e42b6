"""The admin that the tests attack."""

from __future__ import annotations

from automate_django.admin import (
    AuditMixin,
    BulkActionsMixin,
    ExportMixin,
    FilterMixin,
    ImportExportBaseAdmin,
    InlineBaseAdmin,
    SearchMixin,
    SoftDeleteAdmin,
    TenantScopedAdmin,
)
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User

from .models import Account, Category, Document, Label, Page, Product, Project, Task, Tenant

site = admin.AdminSite(name="backoffice")
site.register(User, UserAdmin)


class Scoped(TenantScopedAdmin):
    """The tenant is the one that the user is employed by."""

    tenant_field = "tenant"
    tenant_paths = {"auth.User": "employment__tenant_id"}

    def get_tenant_for_request(self, request):
        employment = getattr(request.user, "employment", None)
        return employment and employment.tenant


@admin.register(Tenant, site=site)
class TenantAdmin(Scoped):
    tenant_field = "pk"


class TaskInline(InlineBaseAdmin):
    model = Task


class PlainTaskInline(admin.StackedInline):
    """Django's own, which the scoped admin narrows too."""

    model = Task
    extra = 0
    raw_id_fields = ["category"]


@admin.register(Project, site=site)
class ProjectAdmin(ExportMixin, BulkActionsMixin, AuditMixin, SearchMixin, FilterMixin, Scoped):
    list_display = ["name", "status", "category"]
    list_editable = ["status", "category"]
    list_filter = ["category", "category__name", "owner"]
    search_fields = ["name"]
    advanced_search_fields = {"status": "iexact", "api_key": "icontains", "margin": "exact"}
    exclude = ["margin"]
    raw_id_fields = ["parent"]
    inlines = [TaskInline]
    not_secret_fields = ()

    def get_readonly_fields(self, request, obj=None):
        readonly = super().get_readonly_fields(request, obj)
        if obj and obj.is_locked:
            readonly = readonly + ["status", "is_active"]
        return readonly


@admin.register(Category, site=site)
class CategoryAdmin(Scoped):
    ordering = ["name"]
    search_fields = ["name"]


@admin.register(Label, site=site)
class LabelAdmin(Scoped):
    pass


@admin.register(Task, site=site)
class TaskAdmin(ExportMixin, Scoped):
    tenant_field = "project__tenant"
    autocomplete_fields = ["category"]


@admin.register(Account, site=site)
class AccountAdmin(Scoped):
    pass


@admin.register(Product, site=site)
class ProductAdmin(AuditMixin, ImportExportBaseAdmin, Scoped):
    tenant_field = "tenant_id"
    import_formats = ["csv", "json"]
    import_key = ["sku"]


class PageInline(InlineBaseAdmin):
    model = Page


@admin.register(Document, site=site)
class DocumentAdmin(SoftDeleteAdmin, Scoped):
    soft_delete_cascade = ["pages"]
    inlines = [PageInline]
