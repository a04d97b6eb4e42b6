"""The labels that a workflow gives its executions, as its definition has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from automate_kernel.base.errors import PayloadError
from automate_kernel.outbox.labels import MAX_LABELS, checked_labels
from automate_kernel.workflows.definition.fields import refused
from automate_kernel.workflows.definition.structure import kind_of

_MOST_TEXT = 1000


def _check(labels: Mapping[str, str | int]) -> Mapping[str, str | int]:
    """Return *labels* if their names are valid, and the values of those without a template."""
    for name, value in labels.items():
        templated = isinstance(value, str) and "{{" in value
        try:
            checked_labels({name: "x" if templated else value})
        except PayloadError as error:
            raise refused("labels", error.message, error.hint) from None
    if len(labels) > MAX_LABELS:
        raise refused("labels", f"there are {len(labels)} labels of at most {MAX_LABELS}", None)
    return labels


def _text_or_number(value: Any) -> Any:
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return value
    got, hint = kind_of(value), None
    if isinstance(value, float):
        got, hint = "a decimal number", "put it in quotes"
    raise refused("labels", f"must be text or a whole number, not {got}", hint)


_LabelText = Annotated[
    Annotated[str, Field(max_length=_MOST_TEXT)] | int, BeforeValidator(_text_or_number)
]
LabelTexts = Annotated[Mapping[str, _LabelText], AfterValidator(_check)]
"""Labels by their names; a value may be a template on the event."""
