"""What an import would do, row by row, and everything that stands against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connections, models
from django.http import HttpRequest
from django.utils.translation import gettext as _

from automate_django.admin.bases.import_source import Source, SourceError
from automate_django.admin.bases.import_unique import clashes
from automate_django.admin.bases.import_values import (
    Column,
    chunks,
    column_of,
    converted,
    key_text,
    resolve,
)

__all__ = ["Plan", "Problem", "RowPlan", "make_plan"]

_SEVERAL = object()


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row can't be imported."""

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
        """Whether the object is new."""
        return not self.before


@dataclass(slots=True)
class Plan:
    """The rows that an import would save, and its problems."""

    rows: list[RowPlan] = field(default_factory=list)
    unchanged: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def created(self) -> list[RowPlan]:
        """The rows that are added."""
        return [row for row in self.rows if row.adds]

    @property
    def updated(self) -> list[RowPlan]:
        """The rows that are changed."""
        return [row for row in self.rows if not row.adds]


def make_plan(admin: Any, request: HttpRequest, source: Source, *, lock: bool = False) -> Plan:
    """
    What importing *source* by *admin* would do, as the user of *request* may do it.

    With *lock* nobody else changes the rows until the open transaction ends.
    """
    return _Planner(admin, request, source, lock=lock).plan()


def _locked(rows: Any) -> Any:
    features = connections[rows.db].features
    # Rows that are joined need no lock, and PostgreSQL locks no outer join.
    return rows.select_for_update(of=("self",) if features.has_select_for_update_of else ())


class _Planner:
    def __init__(
        self, admin: Any, request: HttpRequest, source: Source, *, lock: bool = False
    ) -> None:
        self.lock = lock
        self.admin, self.request, self.source = admin, request, source
        self.model: Any = admin.model
        self.result = Plan(notes=list(source.notes))
        self.allowed = list(admin.get_import_fields(request))
        self.key = self._key()
        self.columns = list(self._columns())
        self.targets: dict[str, dict[str, Any]] = {}
        self.calls_clean = self.model.clean is not models.Model.clean
        self.may_add = admin.has_add_permission(request)

    def plan(self) -> Plan:
        for line, text in self.source.problems:
            self._problem(line, "", text)
        cells = [(line, self._converted(line, row)) for line, row in self.source.rows]
        self._resolve(cells)
        existing = self._existing(cells)
        seen: dict[tuple[str, ...], int] = {}
        for line, values in cells:
            key = self._key_of(values)
            if key is not None and seen.setdefault(key, line) != line:
                text = _("the same row as in line %d") % seen[key]
                self._problem(line, self.source.columns[0], text)
                continue
            self._row(line, values, key, existing)
        self._unique()
        self.result.problems.sort(key=lambda each: each.line)
        return self.result

    def _problem(self, line: int, column: str, text: Any) -> None:
        self.result.problems.append(Problem(line, column, str(text)))

    # -- columns -------------------------------------------------------------------------------

    def _key(self) -> list[str]:
        """The columns that tell which row is meant: the primary key, or ``import_key``."""
        names = [self.model._meta.pk.name, "pk"]
        found = [name for name in names if name in self.source.columns]
        return found[:1] or list(self.admin.get_import_key(self.request))

    @property
    def by_pk(self) -> bool:
        return self.key in ([self.model._meta.pk.name], ["pk"])

    def _columns(self) -> Iterator[Column]:
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
            raise SourceError(text % {"unknown": ", ".join(unknown), "known": known})
        missing = [] if self.by_pk else [k for k in self.key if k not in self.source.columns]
        if missing:
            raise SourceError(_("The key's column is missing: %s") % ", ".join(missing))
        if ignored:
            note = _("These columns are not imported: %s")
            self.result.notes.append(note % ", ".join(ignored))

    # -- values --------------------------------------------------------------------------------

    def _converted(self, line: int, row: dict[str, Any]) -> dict[str, Any] | None:
        values: dict[str, Any] | None = {}
        for column in self.columns:
            if column.name not in row:
                continue
            try:
                value = converted(column, row[column.name])
            except (
                ValidationError,
                ValueError,
                TypeError,
                OverflowError,
                ArithmeticError,
            ) as error:
                self._problem(line, column.name, _text(error))
                values = None
            else:
                if values is not None:
                    values[column.name] = value
        return values

    def _resolve(self, cells: list[tuple[int, dict[str, Any] | None]]) -> None:
        for column in self.columns:
            if column.by is None:
                continue
            rows = self.admin.get_field_queryset(None, column.field, self.request)
            if rows is None:
                rows = self.admin.own_rows(
                    self.request, column.field.related_model._default_manager.all()
                )
            rows = rows.complex_filter(column.field.get_limit_choices_to())
            wanted = (values.get(column.name) for _line, values in cells if values)
            self.targets[column.name] = resolve(column, rows.order_by(), wanted)

    # -- which row -------------------------------------------------------------------------------

    def _key_of(self, values: dict[str, Any] | None) -> tuple[str, ...] | None:
        if values is None or not self.key or not all(name in values for name in self.key):
            return None
        key = tuple(key_text(self._key_value(name, values)) for name in self.key)
        return key if any(key) else None

    def _key_value(self, name: str, values: dict[str, Any]) -> Any:
        if name in self.targets:
            return self.targets[name].get(key_text(values[name]), values[name])
        return values[name]

    def _existing(self, cells: list[tuple[int, dict[str, Any] | None]]) -> dict[Any, Any]:
        """The rows that are meant and that the user sees, by key."""
        if not self.key:
            return {}
        columns = [column_of(self.model, name) for name in self.key]
        attnames = [column.field.attname for column in columns if column is not None]
        wanted = {self._key_value(self.key[0], v) for _l, v in cells if v and self._key_of(v)}
        rows = self.admin.get_import_queryset(self.request).order_by().defer(None)
        if self.lock:
            rows = _locked(rows)
        found: dict[Any, Any] = {}
        for part in chunks(sorted(wanted, key=str)):
            for obj in rows.filter(**{f"{attnames[0]}__in": part}):
                key = tuple(key_text(getattr(obj, name)) for name in attnames)
                found[key] = _SEVERAL if key in found else obj
        return found

    def _row(
        self,
        line: int,
        values: dict[str, Any] | None,
        key: tuple[str, ...] | None,
        existing: dict[Any, Any],
    ) -> None:
        if values is None:
            return
        found = existing.get(key) if key is not None else None
        if found is None and key is not None and self.by_pk:
            # The same words for a row of another tenant and one that never was.
            self._problem(line, self.key[0], _("there is no such row"))
            return
        if found is _SEVERAL:
            self._problem(line, ", ".join(self.key), _("several rows have this key"))
            return
        if found is None and not self.may_add:
            self._problem(line, "", _("you may not add rows"))
            return
        if found is not None and not self.admin.has_change_permission(self.request, found):
            self._problem(line, "", _("you may not change this row"))
            return
        self._fill(line, values, found)

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

    def _set(self, line: int, obj: Any, column: Column, value: Any) -> None:
        field = column.field
        if value in (None, "") and obj._state.adding and field.has_default() and not field.blank:
            return
        if column.by is not None and value not in (None, ""):
            found = self.targets[column.name].get(key_text(value))
            if found is None:
                self._problem(line, column.name, _("there is no such row to choose"))
                return
            setattr(obj, field.attname, found)
            return
        try:
            if column.by is None:
                value = field.clean(value, obj)
            elif not field.null or not field.blank:
                raise ValidationError(field.error_messages["blank"])
            else:
                value = None
        except ValidationError as error:
            self._problem(line, column.name, _text(error))
        else:
            setattr(obj, field.attname, value)

    def _required(self, line: int, obj: Any, values: dict[str, Any]) -> None:
        """What a new row must have, and the file has no column for."""
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
            for name, texts in _by_field(error):
                self._problem(line, name, " ".join(texts))
            return False
        return True

    def _may_set(self, line: int, found: Any, before: Any, after: Any) -> bool:
        readonly = set(self.admin.get_readonly_fields(self.request, found))
        refused = sorted(n for n in readonly if n in after and before[n] != after[n])
        for name in refused:
            self._problem(line, name, _("this is read-only in this row"))
        return not refused

    # -- among themselves ------------------------------------------------------------------------

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


def _by_field(error: ValidationError) -> Iterator[tuple[str, Sequence[str]]]:
    if hasattr(error, "error_dict"):
        for name, texts in error.message_dict.items():
            yield "" if name == "__all__" else name, texts
    else:
        yield "", error.messages
