"""The forms of the workflow pages."""

from __future__ import annotations

import json
from typing import Any

from django import forms

from automate_django.definitions import FORMATS
from automate_kernel.errors import PayloadError
from automate_kernel.outbox.item import encode_json
from automate_kernel.workflows.definition.document import LARGEST

__all__ = ["DocumentForm", "RunForm"]

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
        """The text with the line ends of a text file: a browser sends those of a telegram."""
        text: str = self.cleaned_data["source"].replace("\r\n", "\n").replace("\r", "\n")
        return text if text.endswith("\n") else f"{text}\n"


class RunForm(forms.Form):
    """What a workflow that is started by hand is to see."""

    payload = forms.CharField(
        label="Payload (JSON)",
        required=False,
        max_length=LARGEST,
        widget=forms.Textarea(attrs={"rows": 5, "spellcheck": "false"}),
    )
    tenant_id = forms.CharField(label="As tenant", max_length=200, required=False, strip=True)

    def clean_payload(self) -> Any:
        """The JSON value; nothing is an empty object."""
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
