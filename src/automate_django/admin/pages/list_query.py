"""The conditions of a list of items or executions, between a request, an address and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any
from urllib.parse import urlencode

from automate_django.admin.pages.access import Reach


def given(**texts: str) -> dict[str, Any]:
    """Return those of *texts* that are not empty."""
    return {name: text for name, text in texts.items() if text}


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Conditions under the names that an address has for them; empty text is no condition."""

    @classmethod
    def texts(cls, data: Mapping[str, Any], reach: Reach) -> dict[str, str]:
        """Read the parameters of a request. Only who sees the rows of all chooses a tenant."""
        # No text in a database holds a NUL, and PostgreSQL raises for one.
        found = {
            each.name: str(data.get(each.name) or "").replace("\x00", "").strip()[:255]
            for each in fields(cls)
        }
        return found if reach.everyone else {**found, "tenant": ""}

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a form or an address that asks for the same."""
        return given(**asdict(self))

    @property
    def query(self) -> str:
        """`fields`, as the query of an address."""
        return urlencode(self.fields)

    def url(self, **changed: str) -> str:
        """Return the address that asks for the same but for what is *changed*."""
        return f"?{urlencode(given(**{**self.fields, **changed}))}"

    def said(self, **words: str) -> str:
        """Return the conditions in words: *words* stand before their values."""
        texts = self.fields
        return "".join(f" {word} {texts[name]}" for name, word in words.items() if name in texts)
