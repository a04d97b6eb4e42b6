"""Plans of imports: what would be saved, row by row, and all objections; and carrying them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import DatabaseError, connections, models, router, transaction
from django.http import HttpRequest
from django.utils.translation import gettext as _

from automate_django.admin.bases.base import auto_now_values, chunks
from automate_django.admin.bases.import_source import (
    ImportColumn,
    ImportFile,
    ImportFileError,
    column_of,
    converted,
    key_text,
    resolve,
)
from automate_django.audit_trail import Changes
from automate_django.uniqueness import constraints_of

Clash = tuple[int, list[str], str]
_SEVERAL = object()
_BATCH = 500


def clashes(model: Any, rows: Sequence[tuple[int, Any]]) -> Iterator[Clash]:
    """
    Return the line, the fields and the reason of each row that would break a unique constraint.

    Constraints with a condition or an expression are left to the database.
    """
    every = {each.name for each in model._meta.concrete_fields}
    found = (each for _model, each in constraints_of(model, every) if each.condition is None)
    for names in dict.fromkeys(tuple(each.fields) for each in found if each.fields):
        yield from _clashes(model, rows, names)


def _clashes(
    model: Any, rows: Sequence[tuple[int, Any]], names: tuple[str, ...]
) -> Iterator[Clash]:
    attnames = [model._meta.get_field(name).attname for name in names]
    keys = {line: tuple(getattr(obj, name) for name in attnames) for line, obj in rows}
    # NULL is not equal to NULL, so it never clashes.
    keys = {line: key for line, key in keys.items() if None not in key}
    taken = _taken(model, attnames, list(keys.values()))
    moving = {obj.pk for _line, obj in rows if obj.pk is not None}
    first: dict[Any, int] = {}
    for line, obj in rows:
        key = keys.get(line)
        if key is None:
            continue
        if first.setdefault(key, line) != line:
            yield line, list(names), _("the same value as in line %d") % first[key]
        holder = taken.get(key)
        if holder is not None and holder != obj.pk and holder not in moving:
            yield line, list(names), _("another row has this value already")


def _taken(model: Any, attnames: list[str], keys: list[tuple[Any, ...]]) -> dict[Any, Any]:
    """Return the row that holds each key. All rows count, as they do for the database."""
    found: dict[Any, Any] = {}
    columns = [set(values) for values in zip(*keys, strict=True)]
    if not columns:
        return found
    # The part of the key that differs most reads the fewest rows.
    place = max(range(len(columns)), key=lambda index: len(columns[index]))
    for part in chunks(sorted(columns[place], key=str)):
        rows = model._base_manager.filter(**{f"{attnames[place]}__in": part})
        for pk, *key in rows.values_list("pk", *attnames):
            found[tuple(key)] = pk
    return found


@dataclass(frozen=True, slots=True)
class RowProblem:
    """A reason against importing a row."""

    line: int
    column: str
    text: str


@dataclass(slots=True)
class RowPlan:
    """A row of the file: the object as it will be saved, and what of it changes."""

    line: int
    obj: Any
    before: dict[str, Any]
    after: dict[str, Any]

    @property
    def adds(self) -> bool:
        """True if the object is new."""
        return not self.before


@dataclass(slots=True)
class ImportPlan:
    """The rows that an import would save, and its problems."""

    rows: list[RowPlan] = field(default_factory=list)
    unchanged: int = 0
    problems: list[RowProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def created(self) -> list[RowPlan]:
        """The rows that are added."""
        return [row for row in self.rows if row.adds]

    @property
    def updated(self) -> list[RowPlan]:
        """The rows that are changed."""
        return [row for row in self.rows if not row.adds]


class ImportPlanner:
    """
    Plans the import of *source* by *admin*, as far as the user of *request* may do it.

    With *lock* nobody else changes the rows until the open transaction ends.
    """

    def __init__(
        self, admin: Any, request: HttpRequest, source: ImportFile, *, lock: bool = False
    ) -> None:
        self.lock = lock
        self.admin, self.request, self.source = admin, request, source
        self.model: Any = admin.model
        self.result = ImportPlan(notes=list(source.notes))
        self.allowed = list(admin.get_import_fields(request))
        self.key = self._key()
        self.columns = list(self._columns())
        self.targets: dict[str, dict[str, Any]] = {}
        self.calls_clean = self.model.clean is not models.Model.clean
        self.may_add = admin.has_add_permission(request)

    def plan(self) -> ImportPlan:
        """Return the plan, with all problems."""
        for line, text in self.source.problems:
            self._problem(line, "", text)
        cells = [
            (line, values)
            for line, row in self.source.rows
            if (values := self._converted(line, row)) is not None
        ]
        self._resolve(cells)
        existing = self._existing(cells)
        seen: dict[tuple[str, ...], int] = {}
        for line, values in cells:
            key = self._key_of(values)
            found = existing.get(key)
            if key is not None and seen.setdefault(key, line) != line:
                text = _("the same row as in line %d") % seen[key]
                self._problem(line, self.source.columns[0], text)
            elif objection := self._objection(key, found):
                self._problem(line, *objection)
            else:
                self._fill(line, values, found)
        self._unique()
        self.result.problems.sort(key=lambda each: each.line)
        return self.result

    def _problem(self, line: int, column: str, text: Any) -> None:
        self.result.problems.append(RowProblem(line, column, str(text)))

    def _key(self) -> list[str]:
        """Return the columns that identify a row: the primary key, or ``import_key``."""
        names = [self.model._meta.pk.name, "pk"]
        found = [name for name in names if name in self.source.columns]
        return found[:1] or list(self.admin.get_import_key(self.request))

    @property
    def _by_pk(self) -> bool:
        return self.key in ([self.model._meta.pk.name], ["pk"])

    def _columns(self) -> Iterator[ImportColumn]:
        allowed = set(self.allowed)
        unknown, ignored = [], []
        for name in self.source.columns:
            column = column_of(self.model, name)
            if column is None:
                unknown.append(name)
            elif column.field.name in allowed or name in self.key:
                yield column
            else:
                ignored.append(name)
        if unknown:
            text = _("There is no field: %(unknown)s. Columns may be: %(known)s.")
            known = ", ".join([self.model._meta.pk.name, *sorted(allowed)])
            raise ImportFileError(text % {"unknown": ", ".join(unknown), "known": known})
        missing = [] if self._by_pk else [k for k in self.key if k not in self.source.columns]
        if missing:
            raise ImportFileError(_("The key's column is missing: %s") % ", ".join(missing))
        if ignored:
            note = _("These columns are not imported: %s")
            self.result.notes.append(note % ", ".join(ignored))

    def _converted(self, line: int, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return the values of *row* by column; None if one of them is none."""
        values: dict[str, Any] = {}
        given = [column for column in self.columns if column.name in row]
        for column in given:
            try:
                values[column.name] = converted(column, row[column.name])
            except (ValidationError, ValueError, TypeError, ArithmeticError) as error:
                self._problem(line, column.name, _text(error))
        return values if len(values) == len(given) else None

    def _resolve(self, cells: list[tuple[int, dict[str, Any]]]) -> None:
        for column in self.columns:
            if column.by is None:
                continue
            rows = self.admin.get_field_queryset(None, column.field, self.request)
            if rows is None:
                every = column.field.related_model._default_manager.all()
                rows = self.admin.own_rows(self.request, every)
            rows = rows.complex_filter(column.field.get_limit_choices_to())
            wanted = (values.get(column.name) for _line, values in cells)
            self.targets[column.name] = resolve(column, rows.order_by(), wanted)

    def _key_of(self, values: dict[str, Any]) -> tuple[str, ...] | None:
        if not self.key or not all(name in values for name in self.key):
            return None
        key = tuple(key_text(self._key_value(name, values)) for name in self.key)
        return key if any(key) else None

    def _key_value(self, name: str, values: dict[str, Any]) -> Any:
        return self.targets.get(name, {}).get(key_text(values[name]), values[name])

    def _existing(self, cells: list[tuple[int, dict[str, Any]]]) -> dict[Any, Any]:
        """Return the rows that are meant and that the user sees, by key."""
        if not self.key:
            return {}
        columns = [column_of(self.model, name) for name in self.key]
        attnames = [column.field.attname for column in columns if column is not None]
        wanted = {self._key_value(self.key[0], v) for _line, v in cells if self._key_of(v)}
        rows = self.admin.get_import_queryset(self.request).order_by().defer(None)
        if self.lock:
            # Rows that are joined need no lock, and PostgreSQL locks no outer join.
            of_self = connections[rows.db].features.has_select_for_update_of
            rows = rows.select_for_update(of=("self",) if of_self else ())
        found: dict[Any, Any] = {}
        for part in chunks(sorted(wanted, key=str)):
            for obj in rows.filter(**{f"{attnames[0]}__in": part}):
                key = tuple(key_text(getattr(obj, name)) for name in attnames)
                found[key] = _SEVERAL if key in found else obj
        return found

    def _objection(self, key: tuple[str, ...] | None, found: Any) -> tuple[str, str] | None:
        """Return the column and the reason against changing *found*, or adding it if it is None."""
        if found is None and key is not None and self._by_pk:
            # The same words for a row of another tenant and a row that never was.
            return self.key[0], _("there is no such row")
        if found is _SEVERAL:
            return ", ".join(self.key), _("several rows have this key")
        if found is None and not self.may_add:
            return "", _("you may not add rows")
        if found is not None and not self.admin.has_change_permission(self.request, found):
            return "", _("you may not change this row")
        return None

    def _fill(self, line: int, values: dict[str, Any], found: Any) -> None:
        obj = copy(found) if found is not None else self.model()
        obj._state = copy(obj._state)
        before = {} if found is None else _state(found)
        problems = len(self.result.problems)
        for column in self.columns:
            if column.name in values and not column.field.primary_key:
                self._set(line, obj, column, values[column.name])
        if found is None:
            self._required(line, obj, values)
        if len(self.result.problems) > problems or not self._cleaned(line, obj, found is None):
            return
        after = _state(obj)
        if before == after:
            self.result.unchanged += 1
        elif found is None or self._may_set(line, found, before, after):
            self.result.rows.append(RowPlan(line, obj, before, after))

    def _set(self, line: int, obj: Any, column: ImportColumn, value: Any) -> None:
        field, empty = column.field, value in (None, "")
        if empty and obj._state.adding and field.has_default() and not field.blank:
            return
        try:
            if column.by is None:
                value = field.clean(value, obj)
            elif empty and not (field.null and field.blank):
                raise ValidationError(field.error_messages["blank"])
            else:
                value = None if empty else self.targets[column.name].get(key_text(value))
                if value is None and not empty:
                    raise ValidationError(_("there is no such row to choose"))
        except ValidationError as error:
            self._problem(line, column.name, _text(error))
        else:
            setattr(obj, field.attname, value)

    def _required(self, line: int, obj: Any, values: dict[str, Any]) -> None:
        """Report the fields that a new row must have, and that the file has no column for."""
        given = {column.field for column in self.columns if column.name in values}
        for name in self.allowed:
            field = self.model._meta.get_field(name)
            if field in given or field.blank or field.has_default():
                continue
            if getattr(obj, field.attname) in (None, ""):
                self._problem(line, name, field.error_messages["blank"])

    def _cleaned(self, line: int, obj: Any, adding: bool) -> bool:
        try:
            if adding:
                self.admin.prepare_new(self.request, obj)
            if self.calls_clean:
                obj.clean()
        except ValidationError as error:
            by_field: dict[str, Any] = error.update_error_dict({})
            for name, errors in by_field.items():
                column = "" if name == NON_FIELD_ERRORS else name
                self._problem(line, column, _text(ValidationError(errors)))
            return False
        return True

    def _may_set(self, line: int, found: Any, before: Any, after: Any) -> bool:
        readonly = set(self.admin.get_readonly_fields(self.request, found))
        refused = sorted(n for n in readonly if n in after and before[n] != after[n])
        for name in refused:
            self._problem(line, name, _("this is read-only in this row"))
        return not refused

    def _unique(self) -> None:
        lines = [(row.line, row.obj) for row in self.result.rows]
        bad = set()
        for line, names, text in clashes(self.model, lines):
            self._problem(line, ", ".join(names), text)
            bad.add(line)
        self.result.rows = [row for row in self.result.rows if row.line not in bad]


def _state(obj: Any) -> dict[str, Any]:
    return {each.name: getattr(obj, each.attname) for each in obj._meta.concrete_fields}


def _text(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return " ".join(error.messages)
    return _("This is no value for this column.")


def apply(admin: Any, request: HttpRequest, plan: ImportPlan, details: dict[str, Any]) -> None:
    """Save the rows of *plan* and the trail's entries; needs an open transaction."""
    _save(admin, plan.rows)
    admin.audit_write(_entries(admin, request, plan, details))


def rehearse(admin: Any, plan: ImportPlan) -> None:
    """Save the rows of *plan*, take that back, and add what the database objects to."""
    refused = list(_refused(admin, plan.rows))
    plan.problems += refused
    lines = {problem.line for problem in refused}
    plan.rows = [row for row in plan.rows if row.line not in lines]


def _refused(admin: Any, rows: Sequence[RowPlan]) -> Iterator[RowProblem]:
    """Return the rows that the database refuses, found by halving."""
    error = _tried(admin, rows)
    if error is None:
        return
    # The kind of the error only: its text quotes values of other rows.
    reason = type(error).__name__
    if len(rows) == 1:
        yield RowProblem(rows[0].line, "", _("the database refuses this row: %s") % reason)
        return
    middle = len(rows) // 2
    found = [*_refused(admin, rows[:middle]), *_refused(admin, rows[middle:])]
    # If each half is fine by itself, they clash with each other.
    yield from found or [RowProblem(rows[-1].line, "", _("the rows clash: %s") % reason)]


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
    objs, stamps = [row.obj for row in changed], auto_now_values(model)
    for obj in objs:
        vars(obj).update(stamps)
    if not connections[router.db_for_write(model)].features.supports_update_conflicts_with_target:
        # There "on conflict" would mean any unique key, so another row might be written.
        manager.bulk_update(objs, sorted(names | stamps.keys()), batch_size=_BATCH)
        return
    # Four times as fast. None of them is added by that: the rows were read in this transaction.
    manager.bulk_create(
        objs,
        batch_size=_BATCH,
        update_conflicts=True,
        unique_fields=[model._meta.pk.attname],
        update_fields=sorted(names | stamps.keys()),
    )


def _entries(
    admin: Any, request: HttpRequest, plan: ImportPlan, details: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    counts = {"created": len(plan.created), "updated": len(plan.updated)}
    yield admin.audit_entry(request, "import", details={**details, **counts})
    for row in plan.rows:
        action = "create" if row.adds else "update"
        changes: Changes = admin.audit_changes(admin.model, row.before, row.after)
        origin = {"import": details.get("file"), "line": row.line}
        yield admin.audit_entry(request, action, row.obj, changes=changes, details=origin)
