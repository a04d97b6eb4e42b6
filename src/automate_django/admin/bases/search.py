"""Search with a lookup per field, and in one field alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.admin.utils import lookup_spawns_duplicates
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.text import smart_split, unescape_string_literal

from automate_django.admin.bases.base import AdminRoot
from automate_django.secrecy import leads_to_secret


class Search(AdminRoot):
    """Searches by ``advanced_search_fields``, and understands ``field:words``."""

    advanced_search_fields: Mapping[str, str] = {}

    def _lookups(self) -> dict[str, str]:
        """Return the lookup for each field that may be searched; no secret, whoever listed it."""
        return {
            name: f"{name}__{lookup}"
            for name, lookup in self.advanced_search_fields.items()
            if not leads_to_secret(self.model, name, self.not_secret_fields)
        }

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        """Return ``search_fields``, and the advanced fields with their lookups."""
        unfit = request.__dict__.get("_automate_unfit_lookups", ())
        lookups = [each for each in self._lookups().values() if each not in unfit]
        return [*super().get_search_fields(request), *lookups]

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        """Return the rows that have all words; the words of ``field:words`` in that field."""
        lookups, words, repeats = self._lookups(), [], False
        for word in smart_split(search_term):
            name, colon, wanted = word.partition(":")
            if not colon or name not in lookups:
                words.append(word)
                continue
            found = _filtered(queryset, lookups[name], wanted)
            queryset = queryset.none() if found is None else found
            repeats |= lookup_spawns_duplicates(self.opts, lookups[name])
        unfit = {
            each
            for each in lookups.values()
            if any(_filtered(queryset, each, word) is None for word in words)
        }
        # Words that a number or a date can't be are looked for in the other fields.
        request.__dict__["_automate_unfit_lookups"] = unfit
        found, also = super().get_search_results(request, queryset, " ".join(words))
        return found, repeats or also


def _filtered(queryset: Any, lookup: str, word: str) -> Any:
    """Return the rows with *word*; None if the field of *lookup* can't be asked for it."""
    quoted = len(word) > 1 and word[0] in "\"'" and word[0] == word[-1]
    try:
        return queryset.filter(**{lookup: unescape_string_literal(word) if quoted else word})
    except (ValueError, ValidationError):
        return None


class SearchMixin(Search):
    """
    Says per field how it is searched: ``advanced_search_fields = {"name": "icontains"}``.

    ``name:miller`` in the search box looks in that field alone. Secrets can't be searched.
    """
