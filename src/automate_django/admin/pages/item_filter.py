"""Which items an operator asks for: a slice and the filters on it, read from a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.db.models import Q

from automate_django.admin.pages.access import Reach
from automate_django.admin.pages.display import labelled
from automate_django.admin.pages.slices import SLICES, Slice

__all__ = ["Wanted"]

_NO_CODE = "-"
"""How a filter says: no error code at all. A code is a word, so it means nothing else."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A slice, and what its items must have; empty text is no condition."""

    slice: Slice
    kind: str = ""
    code: str = ""
    tenant: str = ""
    group: str = ""
    label: str = ""

    @classmethod
    def read(cls, data: Mapping[str, Any], reach: Reach) -> Wanted:
        """What the parameters of a request ask for; a name that is not ours counts as left out."""

        def text(name: str) -> str:
            # No text in a database holds a NUL, and PostgreSQL raises for one.
            return str(data.get(name) or "").replace("\x00", "").strip()[:255]

        # Who looks for a label looks for whatever has it.
        chosen = SLICES.get(text("slice")) or SLICES["all" if text("label") else "failed"]
        tenant = text("tenant") if reach.everyone else ""
        return cls(chosen, text("kind"), text("code"), tenant, text("group"), text("label"))

    @property
    def filters(self) -> Q | None:
        """The conditions beside the slice's own, or None if there are none."""
        q = Q()
        if self.kind:
            q &= Q(kind=self.kind)
        if self.code == _NO_CODE:
            q &= Q(last_error_code__isnull=True) | Q(last_error_code="")
        elif self.code:
            q &= Q(last_error_code=self.code)
        if self.group:
            q &= Q(last_error_group=self.group)
        if self.tenant:
            q &= Q(tenant_id=self.tenant)
        return q or None

    def among(self, queryset: Any, reach: Reach) -> Any:
        """Those of *queryset* that have the label, if one is asked for; an index finds them."""
        if not self.label:
            return queryset
        return queryset.filter(pk__in=labelled(self.label, "item", reach))

    @property
    def fields(self) -> dict[str, str]:
        """What a form or an address says to ask for the same."""
        given = {
            "kind": self.kind, "code": self.code, "group": self.group, "label": self.label,
            "tenant": self.tenant,
        }  # fmt: skip
        return {"slice": self.slice.name, **{name: text for name, text in given.items() if text}}

    @property
    def query(self) -> str:
        """`fields`, as the query of an address."""
        return urlencode(self.fields)

    @property
    def words(self) -> str:
        """What is asked for, in words: ``failed items of slack.post with DEADLINE_EXCEEDED``."""
        said = f"{self.slice.label.lower()} items"
        if self.slice.name == "all":
            said = "items"
        if self.kind:
            said += f" of {self.kind}"
        if self.code == _NO_CODE:
            said += " without an error code"
        elif self.code:
            said += f" with {self.code}"
        if self.group:
            said += f" of {self.group}"
        if self.label:
            said += f" labelled {self.label}"
        if self.tenant:
            said += f" of tenant {self.tenant}"
        return said
