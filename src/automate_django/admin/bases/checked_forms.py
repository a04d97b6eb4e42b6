"""Forms that check what Django's leave to the database: unique, on a condition of hidden fields."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import router
from django.db.models import UniqueConstraint
from django.utils.translation import gettext as _

from automate_django.uniqueness import condition_names, constraints_of, is_broken, names_of

__all__ = ["CheckedForm", "checked_form"]


class CheckedForm:
    """What is mixed into the form classes of our admins."""

    # What the model form that it is mixed into has:
    instance: Any
    errors: Any
    fields: dict[str, Any]
    add_error: Any

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        using = router.db_for_write(type(self.instance))
        for model, constraint in self._unchecked():
            if not is_broken(self.instance, model, constraint, using):
                continue
            fields = sorted(names_of(constraint) & self.fields.keys())
            labels = [str(model._meta.get_field(name).verbose_name) for name in fields]
            text = _("Another %(what)s with this %(fields)s exists already.") % {
                "what": model._meta.verbose_name,
                "fields": _(" and ").join(labels),
            }
            where = fields[0] if len(fields) == 1 else NON_FIELD_ERRORS
            self.add_error(where, ValidationError(text, code="unique"))

    def _unchecked(self) -> Iterator[tuple[Any, UniqueConstraint]]:
        """The constraints that Django can't check here, though all that it needs is known."""
        hidden = self._get_validation_exclusions()  # type: ignore[attr-defined]
        for model, constraint in constraints_of(type(self.instance)):
            names = names_of(constraint)
            # Deleted rows are marked by a field that no form has, and live ones are unique.
            if condition_names(constraint) & hidden and not names & (hidden | set(self.errors)):
                yield model, constraint


@lru_cache(maxsize=256)
def checked_form(form: Any) -> Any:
    """The form class *form*, with the check; itself if it has it."""
    return form if issubclass(form, CheckedForm) else type(form.__name__, (CheckedForm, form), {})
