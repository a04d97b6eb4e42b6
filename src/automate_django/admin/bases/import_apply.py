"""Carries out an import, or only tries whether the database would take it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db import DatabaseError, connections, models, router, transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _

from automate_django.admin.bases import trail
from automate_django.admin.bases.import_plan import Plan, Problem, RowPlan

__all__ = ["apply", "rehearse"]

_BATCH = 500


def apply(admin: Any, request: HttpRequest, plan: Plan, details: dict[str, Any]) -> None:
    """Save the rows of *plan* and the trail's entries; needs an open transaction."""
    _save(admin, plan.rows)
    admin.audit_write(_entries(admin, request, plan, details))


def rehearse(admin: Any, plan: Plan) -> None:
    """Save the rows of *plan*, take that back, and add to its problems what the database says."""
    refused = list(_refused(admin, plan.rows))
    plan.problems += refused
    lines = {problem.line for problem in refused}
    plan.rows = [row for row in plan.rows if row.line not in lines]


def _refused(admin: Any, rows: Sequence[RowPlan]) -> Iterator[Problem]:
    """The rows that the database refuses, found by halving."""
    error = _tried(admin, rows)
    if error is None:
        return
    if len(rows) == 1:
        yield Problem(rows[0].line, "", _("the database refuses this row: %s") % _reason(error))
        return
    middle = len(rows) // 2
    found = [*_refused(admin, rows[:middle]), *_refused(admin, rows[middle:])]
    if not found:
        # Each half is fine by itself: they clash with each other.
        found = [Problem(rows[-1].line, "", _("the rows clash: %s") % _reason(error))]
    yield from found


def _tried(admin: Any, rows: Sequence[RowPlan]) -> DatabaseError | None:
    using = router.db_for_write(admin.model)
    states = [(row.obj, row.obj.pk, row.obj._state.adding, row.obj._state.db) for row in rows]
    try:
        with transaction.atomic(using=using):
            _save(admin, rows)
            # Deferred constraints speak at the commit, which never comes here.
            transaction.get_connection(using).check_constraints()
            transaction.set_rollback(True, using=using)
    except DatabaseError as error:
        return error
    finally:
        for obj, pk, adding, db in states:
            obj.pk, obj._state.adding, obj._state.db = pk, adding, db
    return None


def _reason(error: DatabaseError) -> str:
    """The kind of *error* only: its text quotes values of other rows."""
    return type(error).__name__


def _save(admin: Any, rows: Sequence[RowPlan]) -> None:
    model: Any = admin.model
    if admin.import_via_save or model._meta.parents:
        for row in rows:
            row.obj.save()
        return
    manager = model._base_manager
    manager.bulk_create([row.obj for row in rows if row.adds], batch_size=_BATCH)
    changed = [row for row in rows if not row.adds]
    names = {name for row in changed for name in row.after if row.before[name] != row.after[name]}
    if not names:
        return
    names |= _touch(model, [row.obj for row in changed])
    _update(model, [row.obj for row in changed], sorted(names))


def _update(model: Any, objs: list[Any], names: list[str]) -> None:
    """Write the fields *names* of *objs*, which exist."""
    manager = model._base_manager
    if not connections[router.db_for_write(model)].features.supports_update_conflicts_with_target:
        # There "on conflict" would mean any unique key, so another row might be written.
        manager.bulk_update(objs, names, batch_size=_BATCH)
        return
    # Four times as fast. None of them is added by that: the rows were read in this transaction.
    manager.bulk_create(
        objs,
        batch_size=_BATCH,
        update_conflicts=True,
        unique_fields=[model._meta.pk.attname],
        update_fields=names,
    )


def _touch(model: Any, objs: list[Any]) -> set[str]:
    """Set the ``auto_now`` fields of *objs*, which a bulk update leaves alone; their names."""
    names = set()
    for field in model._meta.concrete_fields:
        if getattr(field, "auto_now", False) and not isinstance(field, models.TimeField):
            names.add(field.name)
            now = (
                timezone.now() if isinstance(field, models.DateTimeField) else timezone.localdate()
            )
            for obj in objs:
                setattr(obj, field.attname, now)
    return names


def _entries(
    admin: Any, request: HttpRequest, plan: Plan, details: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    counts = {
        "created": sum(row.adds for row in plan.rows),
        "updated": sum(not row.adds for row in plan.rows),
    }
    yield admin.audit_entry(request, "import", details={**details, **counts})
    for row in plan.rows:
        action = "create" if row.adds else "update"
        changes: trail.Changes = admin.audit_changes(admin.model, row.before, row.after)
        origin = {"import": details.get("file"), "line": row.line}
        yield admin.audit_entry(request, action, row.obj, changes=changes, details=origin)
