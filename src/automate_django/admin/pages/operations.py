"""The pages of operations: the list of those that are offered, and the form to call one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.views.decorators.http import require_http_methods

from automate_django.admin.pages.access import reach_of, record
from automate_django.admin.pages.base import Link, PageSection
from automate_django.admin.pages.display import shown_json, shown_text
from automate_django.audit_trail import json_of
from automate_django.connections import non_atomic
from automate_django.kernel import get_kernel
from automate_django.operations import CALL, exposed_operations
from automate_kernel.base.errors import AutomateError
from automate_kernel.http.operations import OperationProblem
from automate_kernel.operations.field_options import FieldOption
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.secrets.masking import masked_by_schema
from automate_pages.formats import ShownValue
from automate_pages.schema_form import SchemaField, SchemaForm, placed

_LIST = "automate_operations"
_REMEMBERED_SECONDS = 3600


class OperationPages(PageSection):
    """
    The operations that ``AUTOMATE_OPERATIONS["PAGES"]`` names, each with a form.

    They take the permission ``call_operation``. A call is the user's tenant's, or nobody's for a
    user who operates all of them. It is written down in the audit trail before it is made. The
    text of a form is literal: no secret can be asked for by it.
    """

    current = "operations"

    def urls(self) -> Sequence[URLPattern]:
        """Return the list, a form, and what it is sent to."""
        one = require_http_methods(["GET", "HEAD", "POST"])(self.operation_view)
        return [
            self.owner.get("operations/", self.list_view, _LIST),
            # A name may hold slashes.
            self.owner.own_path("operations/<path:name>/", one, "automate_operation"),
        ]

    def list_view(self, request: HttpRequest) -> TemplateResponse:
        """Show the operations by their plugins."""
        _require_caller(request)
        groups: dict[str, list[dict[str, Any]]] = {}
        for name, spec in exposed_operations("PAGES").specs().items():
            owner = name.partition(".")[0] if "." in name else ""
            shown = {"name": name, "spec": spec, "url": self.url("automate_operation", name)}
            groups.setdefault(owner, []).append(shown)
        return self.page(request, "operations.html", "Operations", groups=sorted(groups.items()))

    def form_view(self, request: HttpRequest, name: str) -> TemplateResponse:
        """Show the form of an operation, with its defaults filled in."""
        _require_caller(request)
        spec = _found(name)
        return self._page(request, name, spec, _form(name, spec).blank())

    # No transaction of the request's own: a call may take its time, and its entry in the audit
    # trail has to be there even if this process dies of it.
    @non_atomic
    def operation_view(self, request: HttpRequest, name: str) -> TemplateResponse:
        """Show the form of an operation, or take what it sends."""
        view = self.call_view if request.method == "POST" else self.form_view
        return view(request, name)

    def call_view(self, request: HttpRequest, name: str) -> TemplateResponse:
        """Look the choices of a field up, or call the operation and show its output."""
        _require_caller(request)
        spec = _found(name)
        form, posted = _form(name, spec), dict(request.POST.lists())
        wanted = request.POST.get("choices")
        if wanted is not None:
            return self._with_choices(request, name, spec, form, wanted)
        given, problems = form.read(posted)
        problem = None
        if problems:
            problem = "Some fields are not right."
        elif spec.destructive and request.POST.get("confirmed") != "yes":
            problem = "This can't be taken back: confirm that you mean it."
        elif not _is_first(request):
            problem = "This form was sent before. Send it again if you mean to repeat the call."
        if problem is not None:
            fields = form.sent(posted, problems)
            return self._page(request, name, spec, fields, problem=problem)
        return self._called(request, name, spec, form, given)

    def _called(
        self,
        request: HttpRequest,
        name: str,
        spec: OperationSpec,
        form: SchemaForm,
        given: dict[str, Any],
    ) -> TemplateResponse:
        posted = dict(request.POST.lists())
        reach, shown = reach_of(request), masked_by_schema(given, spec.json_schema())
        try:
            spec.validate(given, called=name)
            record(request, "call", about=name, operation=name, input=json_of(shown))
            key = request.POST.get("key") or None
            output = exposed_operations("PAGES").call(
                name, given, tenant_id=reach.tenant, idempotency_key=key,
                caller=str(request.user.pk),
            )  # fmt: skip
        except AutomateError as error:
            problem = OperationProblem.of(error, f"the operation {name}")
            if not problem.errors:
                record(request, "call_failed", about=name, operation=name, code=problem.code)
            fields, others = placed(form.sent(posted), problem)
            text = shown_text(f"{problem.detail} {others}".strip(), 2000).text
            again = "" if problem.errors else f"{problem.code}: "
            return self._page(request, name, spec, fields, problem=f"{again}{text}")
        return self._page(request, name, spec, form.sent(posted), output=shown_json(output))

    def _with_choices(
        self,
        request: HttpRequest,
        name: str,
        spec: OperationSpec,
        form: SchemaForm,
        wanted: str,
    ) -> TemplateResponse:
        posted = dict(request.POST.lists())
        given, _ = form.read(posted)
        typed = given.pop(wanted, "")
        found: dict[str, Sequence[FieldOption]] = {}
        problems: dict[str, str] = {}
        exposed, reach = exposed_operations("PAGES"), reach_of(request)
        for search in dict.fromkeys((str(typed)[:200] if typed else "", "")):
            try:
                choices = exposed.choices(
                    name, wanted, search=search, values=given, tenant_id=reach.tenant
                )
            except AutomateError as error:
                detail = OperationProblem.of(error, f"choices of {name}").detail
                problems = {wanted: shown_text(detail, 500).text}
                break
            found = {wanted: [FieldOption(each["value"], each["label"]) for each in choices]}
            if choices:
                break  # else all are shown: what is filled in may be none of them
        fields = form.sent(posted, problems, found)
        return self._page(request, name, spec, fields, focus=wanted, key=request.POST.get("key"))

    def _page(
        self,
        request: HttpRequest,
        name: str,
        spec: OperationSpec,
        fields: Sequence[SchemaField],
        *,
        problem: str | None = None,
        output: ShownValue | None = None,
        focus: str = "",
        key: str | None = None,
    ) -> TemplateResponse:
        page = self.page(
            request,
            "operation.html",
            spec.title or name,
            name=name,
            spec=spec,
            fields=fields,
            problem=problem,
            output=output,
            focus=focus,
            confirmed=request.POST.get("confirmed") == "yes" and output is None,
            # A new one for each form that is shown: a call that is repeated is another call.
            key=key or uuid4().hex,
            crumbs=[Link("Operations", self.url(_LIST))],
        )
        page.status_code = 422 if problem else 200
        return page


def _require_caller(request: HttpRequest) -> None:
    user: Any = request.user
    if not user.has_perm(CALL) or reach_of(request).nothing:
        raise PermissionDenied


def _found(name: str) -> OperationSpec:
    try:
        return exposed_operations("PAGES").find(name)
    except AutomateError as error:
        raise Http404(error.message) from None


def _form(name: str, spec: OperationSpec) -> SchemaForm:
    return SchemaForm(spec.json_schema(), get_kernel().choices.dynamic_fields(name))


def _is_first(request: HttpRequest) -> bool:
    """Return True unless this very form was sent before: by a second click, or a reload."""
    key = request.POST.get("key", "")[:64]
    name = f"automate-call-{request.user.pk}-{key}"
    return not key or bool(cache.add(name, 1, _REMEMBERED_SECONDS))
