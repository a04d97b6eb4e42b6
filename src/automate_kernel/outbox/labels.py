"""
Labels: an application's own keys on items and executions (``order=4711``), to find them by.

The labels themselves travel with the item, in its headers, and with the event that an execution
sees. The rows here are the index to them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes, PayloadError, type_name
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.tables import LABEL
from automate_kernel.storage.values import Redaction, text_problem

Labels = Mapping[str, "str | int | uuid.UUID"]
"""Names and values: ``{"order": 4711}``."""

HEADER = "automate-labels"
"""The header of an item that has its labels."""
MAX_LABELS = 10
"""The number of labels that an item or an event can have."""
MOST_LABELLED = 1000
"""Among how many things with a label other conditions are looked for: the newest."""
MAX_VALUE = 200

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NAMESPACE = uuid.UUID("5b9ccc3c-5f6c-4d0e-8a55-6f2cc2f2f1f0")


@dataclass(frozen=True, slots=True)
class Labelled:
    """An item or execution with a label: *about* is ``item`` or ``execution``."""

    id: str
    about: str
    created_at: datetime


def checked_labels(labels: Labels | None) -> dict[str, str]:
    """Return *labels* with values as text; raises `PayloadError` for an invalid label."""
    found: dict[str, str] = {}
    if labels is not None and not isinstance(labels, Mapping):
        raise PayloadError(
            f"labels are a mapping of names and values, not {type_name(labels)}",
            hint='for example {"order": "4711"}',
        )
    for name, value in (labels or {}).items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PayloadError(
                f"{str(name)[:64]!r} can't be a label's name",
                hint="letters, digits, '_', '.' and '-', at most 64",
            )
        if isinstance(value, bool) or not isinstance(value, (str, int, uuid.UUID)):
            raise PayloadError(
                f"the label {name!r} is {type_name(value)}",
                hint="pass text or a whole number",
            )
        found[name] = _checked_value(name, str(value))
    if len(found) > MAX_LABELS:
        raise PayloadError(f"there are {len(found)} labels of at most {MAX_LABELS}")
    return found


def _checked_value(name: str, text: str) -> str:
    if not text.strip() or text != text.strip():
        raise PayloadError(f"the label {name!r} is blank, or begins or ends with a blank")
    if len(text) > MAX_VALUE:
        raise PayloadError(
            f"the label {name!r} is too long: {len(text)} characters of at most {MAX_VALUE}"
        )
    if problem := text_problem(text):
        raise PayloadError(f"the label {name!r} {problem[0]}", hint=problem[1])
    return text


def read_label(text: str) -> tuple[str | None, str]:
    """Return the name, if there is one, and the value of ``order=4711`` or ``4711``."""
    if not isinstance(text, str):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT, f"a label can't be {type_name(text)}",
            hint='write "order=4711", or "4711" for this value under any name',
        )  # fmt: skip
    name, equals, value = text.partition("=")
    if equals and _NAME.fullmatch(name.strip()) and value.strip():
        return name.strip(), value.strip()
    return None, text.strip()


def joined_labels(own: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    """Return *own* labels and *others*, of which those go first that are too many."""
    joined = {**own, **{name: value for name, value in others.items() if name not in own}}
    return dict(list(joined.items())[:MAX_LABELS])


def redacted_labels(labels: Mapping[str, str], redact: Redaction | None) -> dict[str, str]:
    """Return *labels* without secrets, whose values may be longer then, and are cut."""
    clean = dict(labels) if redact is None else redact(dict(labels))
    return {name: str(value)[:MAX_VALUE] for name, value in clean.items()}


def label_rows(
    subject_id: str,
    about: str,
    labels: Mapping[str, str],
    tenant_id: str | None,
    created_at: datetime | None = None,
) -> list[Row]:
    """Return the rows of an item's or an execution's *labels*; it is as old as *created_at*."""
    return [
        {
            "id": str(uuid.uuid5(_NAMESPACE, f"{subject_id}\n{name}")),
            "name": name,
            "value": value,
            "subject_id": subject_id,
            "about": about,
            "tenant_id": tenant_id,
            "created_at": created_at or Now(),
        }
        for name, value in labels.items()
    ]


def replace_labels(rows: Rows, new: Sequence[Row]) -> None:
    """Store rows that `label_rows` made in the place of those with the same names."""
    rows.delete(LABEL, [Where("id", "in", sorted(row["id"] for row in new))])
    rows.insert(LABEL, new)


def add_labels(rows: Rows, new: Sequence[Row]) -> None:
    """Store rows that `label_rows` made."""
    if new:
        rows.insert(LABEL, new)


def labelled_ids(
    rows: Rows,
    label: str,
    *,
    about: str | None = None,
    tenant_id: str | None = None,
    limit: int = 50,
) -> list[Labelled]:
    """
    Return what has *label* (``order=4711``, or ``4711`` under any name), the newest first.

    With *about* only items or only executions, with *tenant_id* only those of one tenant.
    """
    name, value = read_label(label)
    wanted: dict[str, Any] = {"name": name, "tenant_id": tenant_id}
    # Rows about something else are nobody's labels.
    kinds = ("item", "execution") if about is None else (about,)
    where = [Where("value", "eq", value), Where("about", "in", kinds)]
    where += [Where(each, "eq", given) for each, given in wanted.items() if given is not None]
    # One thing may have the value under several names.
    most = limit * (1 if name else 2)
    found = rows.select(LABEL, where, order_by=("-created_at", "-id"), limit=most)
    each = {row["subject_id"]: (row["about"], row["created_at"]) for row in found}
    return [Labelled(subject_id, *more) for subject_id, more in each.items()][:limit]
