"""Imports in two steps: a preview of the file's effects, then exactly these."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from automate_django.admin.bases.audit import Audited
from automate_django.admin.bases.base import AdminBasics
from automate_django.admin.bases.export import Export
from automate_django.admin.bases.import_plan import (
    ImportPlan,
    ImportPlanner,
    RowPlan,
    apply,
    rehearse,
)
from automate_django.admin.bases.import_source import ImportFileError, read
from automate_django.audit_trail import changes_between

_KEPT = timedelta(hours=1)
_SHOWN = 50
_SHOWN_PROBLEMS = 200


class Import(Audited):
    """Adds and changes rows from an uploaded file."""

    import_formats: Sequence[str] = ("csv",)
    import_fields: Sequence[str] | None = None
    import_exclude: Sequence[str] = ()
    import_key: Sequence[str] = ()
    import_max_rows = 50_000
    import_max_bytes = 20 * 1024 * 1024
    import_via_save = False

    change_list_template = "admin/automate_django/bases/change_list.html"

    def has_import_permission(self, request: HttpRequest) -> bool:
        """
        Return True if files may be imported: by those who may add or change rows.

        If the model declares a permission ``import_MODEL``, by those of them who hold it. Each
        row is asked for besides.
        """
        may = self.has_add_permission(request) or self.has_change_permission(request)
        return may and self.holds_own(request, "import")

    def get_import_fields(self, request: HttpRequest) -> list[str]:
        """
        Return the fields that a file may set: those that the user may set in the form.

        ``import_fields`` may name others; no read-only or excluded field is ever set.
        """
        refused = {*self.get_readonly_fields(request), *(self.get_exclude(request) or ())}
        refused |= {*self.import_exclude}
        names = self.import_fields
        if names is None:
            names = list(self.get_form(request).base_fields)
        fields = {each.name: each for each in self.opts.concrete_fields}
        return [
            name
            for name in names
            if name in fields and name not in refused and not fields[name].primary_key
        ]

    def get_import_key(self, request: HttpRequest) -> Sequence[str]:
        """Return the columns that identify a row where the file has no primary key."""
        return self.import_key

    def _page_name(self, page: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{page}"

    def get_urls(self) -> list[Any]:
        """Return the two pages, before Django's own."""
        upload = require_http_methods(["GET", "HEAD", "POST"])(self.import_view)
        confirm = require_POST(self.import_confirm_view)
        return [
            self.own_path("import/", upload, self._page_name("import")),
            self.own_path("import/<uuid:staged_id>/", confirm, self._page_name("import_do")),
            *super().get_urls(),
        ]

    def _page_url(self, page: str, *arguments: Any) -> str:
        return self.own_url(self._page_name(page), *arguments)

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        """Show Django's list, with a link to the import."""
        context = {"automate_import_url": ""}
        if self.import_formats and self.has_import_permission(request):
            context["automate_import_url"] = self._page_url("import")
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def import_view(self, request: HttpRequest) -> HttpResponseBase:
        """Take a file and show its effects, without saving anything."""
        if not self.has_import_permission(request):
            raise PermissionDenied
        uploads = (request.POST, request.FILES) if request.method == "POST" else ()
        form = ImportForm(*uploads, admin=self)
        if request.method != "POST" or not form.is_valid():
            return self._import_page(request, form=form)
        upload, ending = form.cleaned_data["file"], form.cleaned_data["format"]
        content = upload.read()
        try:
            plan = self._import_plan(request, content, ending)
        except ImportFileError as error:
            form.add_error("file", str(error))
            return self._import_page(request, form=form)
        if plan.problems or not plan.rows:
            return self._import_page(request, form=form, plan=plan)
        staged = self._stage(request, content, ending, upload.name)
        return self._import_page(request, plan=plan, staged=staged)

    def import_confirm_view(self, request: HttpRequest, staged_id: UUID) -> HttpResponseBase:
        """Import the file that was previewed, from the place where it was kept."""
        if not self.has_import_permission(request):
            raise PermissionDenied
        from automate_django.models import StagedImport

        back = HttpResponseRedirect(self._page_url("changelist"))
        with self.atomic(StagedImport):
            staged = self._staged(request, staged_id)
            if staged is None:
                text = _("That upload is not there any more. Upload the file again.")
                self.message_user(request, text, messages.ERROR)
                return HttpResponseRedirect(self._page_url("import"))
            if "cancel" in request.POST:
                staged.delete()
                return back
            content = zlib.decompress(staged.content)
            plan = self._import_plan(request, content, staged.format, lock=True)
            if not plan.problems:
                digest = hashlib.sha256(content).hexdigest()
                details = {"file": staged.filename, "sha256": digest, "format": staged.format}
                staged.delete()
                try:
                    with self.atomic():
                        apply(self, request, plan, details)
                except DatabaseError:
                    text = _("The database refused the import. Nothing was saved.")
                    self.message_user(request, text, messages.ERROR)
                    return back
        if plan.problems:
            # Something changed since the preview.
            return self._import_page(request, form=ImportForm(admin=self), plan=plan)
        text = _(
            "Imported. Rows added: %(created)d, changed: %(updated)d, as before: %(unchanged)d."
        )
        counts = {"created": len(plan.created), "updated": len(plan.updated)}
        self.message_user(request, text % {**counts, "unchanged": plan.unchanged}, messages.SUCCESS)
        return back

    def _import_plan(
        self, request: HttpRequest, content: bytes, format: str, *, lock: bool = False
    ) -> ImportPlan:
        known = [self.opts.pk.name, *self.get_import_fields(request)]
        source = read(content, format, max_rows=self.import_max_rows, known=known)
        plan = ImportPlanner(self, request, source, lock=lock).plan()
        if not plan.problems and not lock:
            rehearse(self, plan)
        return plan

    def _owner(self, request: HttpRequest) -> str:
        """Return a digest that stands for the upload's user, admin and tenant."""
        user: Any = request.user
        tenant = self.get_audit_tenant(request)
        parts = (user.pk, self.admin_site.name, self.opts.label_lower, tenant)
        return hashlib.sha256(repr(tuple(map(str, parts))).encode()).hexdigest()

    def _stage(self, request: HttpRequest, content: bytes, format: str, filename: str) -> Any:
        from automate_django.models import StagedImport

        owner = self._owner(request)
        StagedImport.objects.filter(created_at__lt=timezone.now() - _KEPT).delete()
        StagedImport.objects.filter(owner=owner).delete()
        return StagedImport.objects.create(
            owner=owner,
            filename=filename[:200],
            format=format,
            content=zlib.compress(content, 1),
        )

    def _staged(self, request: HttpRequest, staged_id: UUID) -> Any:
        from automate_django.models import StagedImport

        fresh = timezone.now() - _KEPT
        rows = StagedImport.objects.filter(owner=self._owner(request), created_at__gte=fresh)
        # Two clicks on the button import once: the second one waits here, and finds nothing.
        return rows.select_for_update().filter(pk=staged_id).first()

    def _import_page(
        self,
        request: HttpRequest,
        *,
        form: Any = None,
        plan: ImportPlan | None = None,
        staged: Any = None,
    ) -> TemplateResponse:
        problems, rows = (plan.problems, plan.rows) if plan else ([], [])
        names = self.get_import_fields(request)
        return self.own_page(
            request,
            "bases/import.html",
            _("Import %(name)s") % {"name": self.opts.verbose_name_plural},
            form=form,
            media=self.media,
            plan=plan,
            problems=problems[:_SHOWN_PROBLEMS],
            more_problems=max(0, len(problems) - _SHOWN_PROBLEMS),
            rows=[self._shown(row, names) for row in rows[:_SHOWN]],
            more_rows=max(0, len(rows) - _SHOWN),
            filename=staged.filename if staged else "",
            columns=[self.opts.pk.name, *names],
            confirm_url=self._page_url("import_do", staged.pk) if staged else "",
            changelist_url=self._page_url("changelist"),
        )

    def _shown(self, row: RowPlan, names: Collection[str]) -> dict[str, Any]:
        """Return *row* as the preview shows it: only fields that the user may set."""
        allowed = self.not_secret_fields
        changes = changes_between(self.model, row.before, row.after, only=names, allowed=allowed)
        pairs = [(name, *pair) for name, pair in changes.items()]
        return {"line": row.line, "adds": row.adds, "obj": row.obj, "changes": pairs}


class ImportForm(forms.Form):
    """Asks for the file."""

    file = forms.FileField(label=_("File"))
    format = forms.ChoiceField(label=_("Format"), required=False)

    def __init__(self, *arguments: Any, admin: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.admin = admin
        choices = [(each, each.upper()) for each in admin.import_formats]
        self.fields["format"].choices = [("", _("As the file's name says")), *choices]  # type: ignore[attr-defined]

    def clean_file(self) -> Any:
        """Return the file, unless it is too large."""
        upload = self.cleaned_data["file"]
        if upload.size > self.admin.import_max_bytes:
            limit = self.admin.import_max_bytes
            raise forms.ValidationError(_("The file is larger than %d bytes.") % limit)
        return upload

    def clean(self) -> dict[str, Any]:
        """Return the data, with the format that was chosen or that the name says."""
        data: dict[str, Any] = super().clean() or {}
        upload = data.get("file")
        if upload is not None and not data.get("format"):
            ending = upload.name.rpartition(".")[2].lower()
            formats = list(self.admin.import_formats)
            data["format"] = ending if ending in formats else formats[0]
        return data


class ImportExportBaseAdmin(Import, Export, AdminBasics):
    """
    An admin with import and export.

    ``import_formats`` (CSV; JSON too) and ``export_formats`` (CSV, JSON). An import sets what the
    form lets the user set. Rows are identified by their primary key, or by the columns in
    ``import_key``. Before anything is saved a page shows what will be. ``import_max_rows`` and
    ``import_max_bytes`` bound it. Rows are written in bulk, without ``save()`` and signals,
    unless ``import_via_save`` is True.
    """
