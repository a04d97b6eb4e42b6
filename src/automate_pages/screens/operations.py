"""The operations: the list of those that are offered, and the form to call one."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from markupsafe import Markup

from automate_kernel.base.errors import AutomateError
from automate_kernel.http.operations import OperationProblem
from automate_kernel.operations.field_options import FieldOption
from automate_kernel.operations.spec import OperationSpec
from automate_pages.exchange import PageAnswer, PageError, PageLink, PageRequest, sent_text
from automate_pages.formats import shown_text, shown_tree
from automate_pages.operation_desk import OperationDesk
from automate_pages.schema_form import SchemaField, SchemaForm, placed


def _desk(request: PageRequest) -> OperationDesk:
    request.require("start")
    if request.operations is None:
        raise PageError(404, "no operations are offered here")
    return request.operations


def show_list(request: PageRequest) -> PageAnswer:
    """Show the operations by their plugins, or the form of the one that is named."""
    if name := request.text("name"):
        return _show(request, name)
    groups: dict[str, list[tuple[str, OperationSpec]]] = {}
    for name, spec in _desk(request).exposed.specs().items():
        groups.setdefault(name.partition(".")[0] if "." in name else "", []).append((name, spec))
    return PageAnswer("operations.html", "Operations", {"groups": sorted(groups.items())})


def _show(request: PageRequest, name: str) -> PageAnswer:
    spec = _found(request, name)
    return _page(request, name, spec, _form(request, name, spec).blank())


def call(request: PageRequest) -> PageAnswer:
    """
    Look the choices of a field up, or call the operation and show its output.

    The text of a form is literal: no secret can be asked for by it. The call is the user's
    tenant's.
    """
    name = sent_text(request.form, "name")
    desk, spec = _desk(request), _found(request, name)
    form, posted = _form(request, name, spec), request.form.lists
    wanted = request.form.get("choices")
    if wanted is not None:
        return _with_choices(request, name, spec, form, wanted)
    given, problems = form.read(posted)
    key = request.form.get("key", "")[:64]
    problem = ""
    if problems:
        problem = "Some fields are not right."
    elif spec.destructive and request.form.get("confirmed") != "yes":
        problem = "This can't be taken back: confirm that you mean it."
    elif not key or not desk.is_first(f"{request.user.name} {key}"):
        problem = "This form was sent before. Send it again if you mean to repeat the call."
    if problem:
        return _page(request, name, spec, form.sent(posted, problems), problem=problem)
    try:
        spec.validate(given, called=name)
        output = desk.exposed.call(
            name, given, tenant_id=request.user.tenant, idempotency_key=key,
            caller=request.user.name,
        )  # fmt: skip
    except AutomateError as error:
        wrong = OperationProblem.of(error, f"the operation {name}")
        fields, others = placed(form.sent(posted), wrong)
        text = shown_text(request.kernel, f"{wrong.detail} {others}".strip(), 2_000).text
        problem = text if wrong.errors else f"{wrong.code}: {text}"
        return _page(request, name, spec, fields, problem=problem)
    shown = shown_tree(request.kernel, output)
    return _page(request, name, spec, form.sent(posted), output=shown)


def _found(request: PageRequest, name: str) -> OperationSpec:
    return _desk(request).exposed.find(name, tenant_id=request.user.tenant)


def _form(request: PageRequest, name: str, spec: OperationSpec) -> SchemaForm:
    return SchemaForm(spec.json_schema(), request.kernel.choices.dynamic_fields(name))


def _with_choices(
    request: PageRequest, name: str, spec: OperationSpec, form: SchemaForm, wanted: str
) -> PageAnswer:
    exposed, posted = _desk(request).exposed, request.form.lists
    given, _ = form.read(posted)
    typed = given.pop(wanted, "")
    found: dict[str, Sequence[FieldOption]] = {}
    problems: dict[str, str] = {}
    for search in dict.fromkeys((str(typed)[:200] if typed else "", "")):
        try:
            choices = exposed.choices(
                name, wanted, search=search, values=given, tenant_id=request.user.tenant
            )
        except AutomateError as error:
            detail = OperationProblem.of(error, f"choices of {name}").detail
            problems = {wanted: shown_text(request.kernel, detail, 500).text}
            break
        found = {wanted: [FieldOption(each["value"], each["label"]) for each in choices]}
        if choices:
            break  # else all are shown: what is filled in may be none of them
    fields = form.sent(posted, problems, found)
    return _page(request, name, spec, fields, focus=wanted, key=request.form.get("key", ""))


def _page(
    request: PageRequest,
    name: str,
    spec: OperationSpec,
    fields: Sequence[SchemaField],
    *,
    problem: str = "",
    output: Markup | None = None,
    focus: str = "",
    key: str = "",
) -> PageAnswer:
    return PageAnswer(
        "operation.html",
        spec.title or name,
        {
            "name": name,
            "spec": spec,
            "form_fields": fields,
            "problem": problem,
            "output": output,
            "focus": focus,
            "confirmed": request.form.get("confirmed") == "yes" and output is None,
            # A new one for each form that is shown: a call that is repeated is another call.
            "key": key or uuid4().hex,
            "here": request.url("operations"),
        },
        crumbs=[PageLink("Operations", request.url("operations"))],
        status=422 if problem else 200,
        done=output is not None,
    )
