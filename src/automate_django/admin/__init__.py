"""
The admin: classes for a project's own models, and the operator's pages.

The classes can be combined in any order. Django's autodiscovery imports this package, which puts
the operator's pages on the project's admin site; ``AUTOMATE_ADMIN`` says on which one, or that
there are to be none.
"""

from django.contrib import admin as _django_admin

from automate_django import conf as _conf
from automate_django.admin.bases.audit import AuditableModelAdmin, AuditMixin
from automate_django.admin.bases.base import BaseModelAdmin, InlineBaseAdmin, StackedInlineBaseAdmin
from automate_django.admin.bases.bulk import BulkActionsMixin
from automate_django.admin.bases.export import ExportMixin
from automate_django.admin.bases.filters import FilterMixin
from automate_django.admin.bases.imports import ImportExportBaseAdmin
from automate_django.admin.bases.permissions import PermissionMixin
from automate_django.admin.bases.search import SearchMixin
from automate_django.admin.bases.soft_delete import SoftDeleteAdmin
from automate_django.admin.bases.tenancy import TenantScopedAdmin

__all__ = [
    "AuditMixin",
    "AuditableModelAdmin",
    "BaseModelAdmin",
    "BulkActionsMixin",
    "ExportMixin",
    "FilterMixin",
    "ImportExportBaseAdmin",
    "InlineBaseAdmin",
    "PermissionMixin",
    "SearchMixin",
    "SoftDeleteAdmin",
    "StackedInlineBaseAdmin",
    "TenantScopedAdmin",
]


def _register_pages() -> None:
    if not _conf.option("AUTOMATE_ADMIN", "PAGES", True):
        return
    from automate_django.admin.pages import register

    named = _conf.option("AUTOMATE_ADMIN", "SITE")
    # The site's own module may import the classes above, so they stand before this.
    register(_django_admin.site if named is None else _conf.load(named, "AUTOMATE_ADMIN['SITE']"))


_register_pages()
