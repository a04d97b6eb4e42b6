"""
The audit trail: entries for changes, without their secrets.

It is written in the transaction of the change: by the admin classes, by the operator's pages, and
by a worker that carries out a bulk action.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import uuid
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

from django.apps import apps
from django.db import DatabaseError, models
from django.http import HttpRequest
from django.utils import timezone

from automate_django.secrecy import secret_names
from automate_kernel.secrets.masking import HIDDEN, hide_named
from automate_kernel.secrets.redaction import redactors

Changes = dict[str, list[Any]]
"""Per field what it was and what it is."""


class AuditTrailError(RuntimeError):
    """An entry of the audit trail could not be written. No fault of the user's values."""


_LONGEST = 1000
_BATCH = 500


def row_values(obj: Any) -> dict[str, Any]:
    """Return *obj*'s row in the database: column values by field name; nothing if it is new."""
    if obj.pk is None:
        return {}
    rows = type(obj)._base_manager.using(obj._state.db).filter(pk=obj.pk)
    return next(iter(values_by_key(rows).values()), {})


def values_by_key(queryset: Any) -> dict[Any, dict[str, Any]]:
    """Return `row_values` for all rows of *queryset*, by primary key."""
    meta = queryset.model._meta
    names = [field.name for field in meta.concrete_fields]
    rows = queryset.order_by().values_list("pk", *(each.attname for each in meta.concrete_fields))
    return {pk: dict(zip(names, values, strict=True)) for pk, *values in rows}


def changes_between(
    model: Any,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    only: Collection[str] | None = None,
    exclude: Collection[str] = (),
    allowed: Collection[str] = (),
) -> Changes:
    """
    Return the differences between *before* and *after*, which map field names to values.

    Of a secret they say that it changed, and neither its former nor its new value.
    """
    changes: Changes = {}
    chosen = None if only is None else frozenset(only)
    for name, secret in _compared(model, chosen, frozenset(exclude), tuple(allowed)):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if secret:
            changes[name] = [None if old is None else HIDDEN, None if new is None else HIDDEN]
        else:
            changes[name] = [json_of(old), json_of(new)]
    return changes


@lru_cache(maxsize=256)
def _compared(
    model: Any, only: frozenset[str] | None, exclude: frozenset[str], allowed: tuple[str, ...]
) -> list[tuple[str, bool]]:
    """Return the names of the fields that are remembered, and whether each is a secret."""
    names = (field.name for field in model._meta.concrete_fields)
    secrets = secret_names(model, allowed)
    return [
        (name, name in secrets)
        for name in names
        if name not in exclude and (only is None or name in only)
    ]


def json_of(value: Any) -> Any:
    """Return *value* as JSON holds it: short, and with secrets inside of it hidden."""
    if value is None or isinstance(value, (bool, int, float)):
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"[{len(value)} bytes]"
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, (Mapping, list, tuple)):
        return _json(hide_named(value))
    if isinstance(value, (decimal.Decimal, uuid.UUID, dt.timedelta)):
        return str(value)
    return _short(str(value))


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_short(str(key)): _json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_json(each) for each in value]
    return json_of(value)


def _short(text: str) -> str:
    # PostgreSQL refuses NUL and lone surrogates in JSON, and an entry must never fail for them.
    text = text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def entry_values(
    request: HttpRequest,
    action: str,
    model: Any,
    obj: Any = None,
    *,
    tenant: Any = None,
    changes: Changes | None = None,
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return an entry's values: *action* on *obj*, a row of *model*, by *request*'s user."""
    user: Any = request.user
    return {
        "actor_id": None if user.pk is None else str(user.pk)[:200],
        "actor": user.get_username()[:200],
        "tenant_id": None if tenant is None else str(tenant)[:200],
        "action": action,
        "model": model._meta.label_lower,
        "object_id": None if obj is None or obj.pk is None else str(obj.pk)[:255],
        "object_repr": "" if obj is None else _short(str(obj))[:200],
        "changes": changes or {},
        "details": dict(details or {}),
    }


def _redacted(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return *entry* without the secrets that this process knows: a reason may quote one."""
    texts = {name: entry[name] for name in ("changes", "details", "object_repr") if name in entry}
    for redactor in redactors():
        texts = redactor.redact_value(texts, weak=False)
    return {**entry, **texts}


def entry_model(model: Any = None) -> Any:
    """Return the model of entries: *model*, which may be its label, or `AuditEntry`."""
    model = model or "automate_django.AuditEntry"
    return apps.get_model(model) if isinstance(model, str) else model


def write_entries(entries: Iterable[Mapping[str, Any]], model: Any = None) -> None:
    """
    Save *entries* in the caller's transaction, as rows of *model* or `AuditEntry`.

    Another model gets the values of those fields that it has.
    """
    model = entry_model(model)
    fields = [(field.attname, field.get_default) for field in model._meta.concrete_fields]
    about = {"created_at": timezone.now()}
    # By position, which is several times as fast: an import writes an entry for each row.
    made = [
        model(*(row[name] if name in row else default() for name, default in fields))
        for row in ({**about, **_redacted(each)} for each in entries)
    ]
    manager: models.Manager[Any] = model._base_manager
    try:
        manager.bulk_create(made, batch_size=_BATCH)
    except DatabaseError as error:
        raise AuditTrailError(
            f"{model._meta.label} refused an entry of the audit trail, so the change was undone: "
            f"{type(error).__name__}"
        ) from error
