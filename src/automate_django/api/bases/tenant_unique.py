"""Checks what is unique per tenant where the tenant is no field of the serializer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from django.db import router
from django.db.models import Model, UniqueConstraint
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.settings import api_settings
from rest_framework.validators import UniqueTogetherValidator, UniqueValidator

from automate_django.uniqueness import constraints_of, is_broken, key_of, names_of

__all__ = ["check_unique"]


def check_unique(serializer: Any, attribute: str, tenant: Any) -> None:
    """
    Have *serializer* refuse what another row of *tenant* has, as an error at the field.

    *attribute* is what of the row holds the tenant. Rows of a list are checked against each other
    too. REST framework's own checks come first, so that nothing is told twice.
    """
    child = getattr(serializer, "child", serializer)
    model = getattr(getattr(child, "Meta", None), "model", None)
    if model is None:
        return
    check = _Check(child, model, model._meta.get_field(attribute), tenant)
    if not check.constraints:
        return
    validate = child.validate

    def validate_row(values: Any) -> Any:
        valid = validate(values)
        check.row(valid)
        return valid

    child.validate = validate_row
    if child is serializer:
        return
    validate_list = serializer.validate

    def validate_rows(values: Any) -> Any:
        valid = validate_list(values)
        check.among_themselves()
        return valid

    serializer.validate = validate_rows


@dataclass
class _Check:
    serializer: Any
    model: Any
    owner: Any
    tenant: Any
    rows: list[Any] = field(default_factory=list)
    constraints: list[tuple[Any, UniqueConstraint]] = field(init=False)

    def __post_init__(self) -> None:
        self.constraints = [
            (model, constraint)
            for model, constraint in constraints_of(self.model, [self.owner.name])
            if self.owner.name in names_of(constraint)
        ]

    def row(self, values: Any) -> None:
        """Refuse *values* if another row has them."""
        instance = self.serializer.instance
        there = instance if isinstance(instance, Model) else None
        obj = self.model() if there is None else copy(there)
        given = set(self._fill(obj, values))
        using = router.db_for_write(self.model)
        for model, constraint in self._due(given, adding=there is None):
            if is_broken(obj, model, constraint, using):
                raise ValidationError(self._error(constraint))
        self.rows.append(obj)

    def among_themselves(self) -> None:
        """Refuse the rows that have what one before them has."""
        found: list[dict[str, Any]] = [{} for _ in self.rows]
        for _model, constraint in self.constraints:
            seen = set()
            for index, obj in enumerate(self.rows):
                key = key_of(obj, constraint)
                if key is not None and key in seen:
                    found[index] = self._error(constraint)
                seen.add(key)
        if any(found):
            raise ValidationError(found)

    def _fill(self, obj: Any, values: Mapping[str, Any]) -> Iterator[str]:
        """Set *values* and the tenant on *obj*; the names of the fields."""
        fields = {each.name: each for each in self.model._meta.concrete_fields}
        fields.update({each.attname: each for each in fields.values()})
        for name, value in values.items():
            found = fields.get(name)
            if found is None:
                continue
            if (
                found.is_relation
                and name == found.name
                and not isinstance(value, (Model, type(None)))
            ):
                continue  # a row that is made with this one
            setattr(obj, name, value)
            yield found.name
        setattr(obj, self.owner.attname, self.tenant)

    def _due(self, given: set[str], *, adding: bool) -> Iterator[tuple[Any, UniqueConstraint]]:
        """The constraints whose values are known before the row is saved."""
        written = {each.source for each in self.serializer.fields.values() if not each.read_only}
        for model, constraint in self.constraints:
            names = names_of(constraint) - {self.owner.name}
            # Of a field that the view fills in at the end nobody knows yet what it will be.
            if names <= written | given if adding else names & given:
                yield model, constraint

    def _error(self, constraint: UniqueConstraint) -> dict[str, Any]:
        names = names_of(constraint) - {self.owner.name}
        shown = {each.source: name for name, each in self.serializer.fields.items()}
        told = [shown[name] for name in sorted(names) if name in shown]
        own = getattr(constraint, "violation_error_message", None)
        text = own if own != constraint.default_violation_error_message else None
        where = told[0] if len(names) == 1 and told else api_settings.NON_FIELD_ERRORS_KEY
        if text is None and where in told:
            text = str(UniqueValidator.message)
        elif text is None and told:
            text = str(UniqueTogetherValidator.message).format(field_names=", ".join(told))
        return {where: [ErrorDetail(text or "There is one already.", "unique")]}
