"""The admin classes and mixins for a project's own models."""

from automate_django.admin import AuditableModelAdmin as AuditableModelAdmin
from automate_django.admin import AuditMixin as AuditMixin
from automate_django.admin import BaseModelAdmin as BaseModelAdmin
from automate_django.admin import BulkActionsMixin as BulkActionsMixin
from automate_django.admin import ExportMixin as ExportMixin
from automate_django.admin import FilterMixin as FilterMixin
from automate_django.admin import ImportExportBaseAdmin as ImportExportBaseAdmin
from automate_django.admin import InlineBaseAdmin as InlineBaseAdmin
from automate_django.admin import PermissionMixin as PermissionMixin
from automate_django.admin import SearchMixin as SearchMixin
from automate_django.admin import SoftDeleteAdmin as SoftDeleteAdmin
from automate_django.admin import StackedInlineBaseAdmin as StackedInlineBaseAdmin
from automate_django.admin import TenantScopedAdmin as TenantScopedAdmin
