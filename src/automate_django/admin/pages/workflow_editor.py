"""The editor of a workflow: checks, problems with their lines, and new versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from automate_django import definitions
from automate_django.admin.pages.access import reach_of, record
from automate_django.admin.pages.base import PageAdmin
from automate_django.admin.pages.workflow_list import clean, crumbs_to, current_workflow, explained
from automate_django.definitions import FORMATS
from automate_django.kernel import get_kernel
from automate_django.models import WorkflowDocument, WorkflowVersion
from automate_kernel.base.durations import parse_duration
from automate_kernel.base.errors import AutomateError, PayloadError, WorkflowError
from automate_kernel.storage.values import encode_json
from automate_kernel.workflows.definition.document import LARGEST
from automate_kernel.workflows.definition.graph import to_svg
from automate_kernel.workflows.definition.model import Workflow

STARTER = """\
name: my-workflow
trigger: {type: event, event: something.happened}
steps:
  - id: first
    action: connector.action
    input: {text: "{{ event.payload }}"}
"""


class DocumentForm(forms.Form):
    """The text of a workflow. Whether it is one, the kernel says."""

    source = forms.CharField(
        label="Definition",
        strip=False,
        max_length=LARGEST,
        widget=forms.Textarea(
            attrs={"class": "automate-source", "rows": 24, "spellcheck": "false", "wrap": "off"}
        ),
    )
    format = forms.ChoiceField(choices=[(name, name.upper()) for name in FORMATS])
    comment = forms.CharField(
        label="What is changed, and why", max_length=500, required=False, strip=True
    )
    tenant_id = forms.CharField(label="Tenant", max_length=200, required=False, strip=True)
    based_on = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def clean_source(self) -> str:
        """Return the text with the line ends of a text file; a browser sends CR LF."""
        text: str = self.cleaned_data["source"].replace("\r\n", "\n").replace("\r", "\n")
        return text if text.endswith("\n") else f"{text}\n"


class RunForm(forms.Form):
    """The payload of a workflow that is started by hand."""

    payload = forms.CharField(
        label="Payload (JSON)",
        required=False,
        max_length=LARGEST,
        widget=forms.Textarea(attrs={"rows": 5, "spellcheck": "false"}),
    )
    tenant_id = forms.CharField(label="As tenant", max_length=200, required=False, strip=True)
    delay = forms.CharField(
        label="After",
        max_length=20,
        required=False,
        widget=forms.TextInput(attrs={"placeholder": "at once; or 90s, 5m, 2h"}),
    )

    def clean_delay(self) -> float:
        """Return the seconds to wait."""
        text = self.cleaned_data["delay"]
        try:
            return parse_duration(text) if text else 0.0
        except ValueError as error:
            raise forms.ValidationError(f"{error}.") from None

    def clean_payload(self) -> Any:
        """Return the JSON value; nothing is an empty object."""
        text = self.cleaned_data["payload"].strip() or "{}"
        try:
            value = json.loads(text)
        except RecursionError:
            raise forms.ValidationError("It is nested too deeply.") from None
        except json.JSONDecodeError as error:
            raise forms.ValidationError(
                f"It is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
            ) from None
        except ValueError:
            raise forms.ValidationError("It has a number of too many digits.") from None
        try:
            encode_json(value, "payload")
        except PayloadError as error:
            raise forms.ValidationError(f"{error}.") from None
        return value


def new_doubts(
    request: HttpRequest, workflow: Workflow, document: WorkflowDocument | None
) -> list[str]:
    """
    Return the advice against *workflow* that doesn't hold for *document* as it is today.

    None if the request says that the user has read just that, and goes on.
    """
    kernel = get_kernel()
    current = current_workflow(document) if document is not None and document.enabled else None
    known = definitions.advice(current, kernel) if current is not None else []
    doubts = [each for each in definitions.advice(workflow, kernel) if each not in known]
    return [] if request.POST.get("agreed") == digest(doubts) else doubts


def digest(doubts: Sequence[str]) -> str:
    """Return a digest of *doubts* for a form: who agrees to them agrees to no others."""
    return hashlib.sha256("\n".join(doubts).encode()).hexdigest()[:32]


class WorkflowEditor:
    """One request to the editor of *document*, or of a new workflow if that is None."""

    def __init__(
        self, pages: PageAdmin, request: HttpRequest, document: WorkflowDocument | None
    ) -> None:
        self._pages = pages
        self._request = request
        self._document = document
        self._reach = reach_of(request)

    def answer(self) -> HttpResponse:
        """Show the editor, or lead to the saved workflow."""
        if self._request.method != "POST":
            return self._page(DocumentForm(initial=self._initial()))
        form = DocumentForm(self._request.POST)
        if not form.is_valid():
            return self._page(form)
        try:
            data = form.cleaned_data
            workflow = definitions.checked(data["source"], data["format"], get_kernel())
            if "check" in self._request.POST:
                advice = definitions.advice(workflow, get_kernel())
                return self._page(form, checked=workflow, advice=advice)
            if doubts := new_doubts(self._request, workflow, self._document):
                return self._page(form, doubts=doubts)
            with get_kernel().storage.begin():
                return self._saved(form)
        except WorkflowError as error:
            problems = explained(definitions.diagnostics(error), form.cleaned_data["source"])
            for problem in problems:
                form.add_error("source", problem.text)
            return self._page(form, problems=problems)
        except AutomateError as error:
            form.add_error(None, f"{clean(str(error))}.")
            return self._page(form)

    def _initial(self) -> dict[str, Any]:
        document = self._document
        if document is None:
            return {"source": STARTER, "format": "yaml"}
        versions = WorkflowVersion.objects.using(document._state.db)
        version = versions.get(document=document, number=document.latest)
        source = clean(version.source)
        return {"source": source, "format": version.format, "based_on": version.number}

    def _saved(self, form: DocumentForm) -> HttpResponse:
        data = form.cleaned_data
        about = {
            "format": data["format"],
            "author": self._request.user.get_username(),
            "comment": data["comment"],
        }
        if self._document is None:
            # A tenant's staff make workflows of the tenant, whatever they post.
            tenant_id = (data["tenant_id"] or None) if self._reach.everyone else self._reach.tenant
            document = definitions.create(data["source"], tenant_id=tenant_id, **about)
            record(self._request, "create", [document], version=1)
            messages.success(self._request, f"Workflow {document.name} is saved, and on.")
        else:
            document = self._document
            version = definitions.save(document, data["source"], based_on=data["based_on"], **about)
            if version is None:
                messages.warning(self._request, "Nothing was changed.")
            else:
                record(self._request, "change", [document], version=version.number)
                text = f"Version {version.number} is saved."
                text += " New executions run it; those that run keep theirs."
                messages.success(self._request, text)
        return HttpResponseRedirect(self._pages.url("automate_workflow", document.pk))

    def _page(
        self,
        form: DocumentForm,
        *,
        checked: Workflow | None = None,
        doubts: Sequence[str] = (),
        **context: Any,
    ) -> HttpResponse:
        document, pages = self._document, self._pages
        crumbs = crumbs_to(pages, document)
        return pages.page(
            self._request,
            "edit.html",
            "New workflow" if document is None else f"Edit {document.name}",
            form=form,
            document=document,
            choose_tenant=document is None and self._reach.everyone,
            reach=self._reach,
            checked=checked,
            doubts=doubts,
            agreed=digest(doubts) if doubts else "",
            graph=to_svg(checked, styled=False) if checked else "",
            back=crumbs[-1].url,
            crumbs=crumbs,
            **context,
        )
