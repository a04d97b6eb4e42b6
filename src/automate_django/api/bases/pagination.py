"""Pages of a list, by cursor or by offset: they lose and repeat no row and are bounded in size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db import DataError
from django.db.models import QuerySet
from rest_framework import pagination
from rest_framework.exceptions import NotFound

from automate_django import conf
from automate_django.api.bases.access import Configured, MixinOrderGuard
from automate_django.api.problems import ParameterError

_MAX_OFFSET = 10_000


class CursorPagination(pagination.CursorPagination):
    """
    Pages that go on from the last row, whatever its number, and whatever was added.

    The newest row is first: by primary key, which is the order of creation for counters and for
    ids of UUID version 7. A view's *cursor_ordering* (``("-created_at",)``) replaces it; the
    primary key is added, so that equal rows have an order too. The client may give *page_size*.
    """

    ordering: Any = ("-pk",)
    page_size_query_param = "page_size"

    def paginate_queryset(self, queryset: Any, request: Any, view: Any = None) -> Any:
        """Return the rows of the page; a made-up cursor is an unknown page."""
        _number(request, "page_size", 1)
        self.page_size, self.max_page_size = _sizes(view)
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValueError, TypeError, OverflowError, ValidationError, DataError):
            raise NotFound(self.invalid_cursor_message) from None

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """Return the parameters, with the bounds of the page's size."""
        found = super().get_schema_operation_parameters(view)
        return [_bounded(each, "page_size", _sizes(view)) for each in found]

    def get_ordering(self, request: Any, queryset: Any, view: Any) -> Any:
        """Return the order of an `OrderingFilter`, else of the view, down to the key."""
        for backend in getattr(view, "filter_backends", ()):
            if hasattr(backend, "get_ordering"):
                found = backend().get_ordering(request, queryset, view)
                if found:
                    return tuple(_down_to_key(list(found), queryset))
        own = getattr(view, "cursor_ordering", None) or self.ordering
        return tuple(_down_to_key([own] if isinstance(own, str) else list(own), queryset))


class OffsetPagination(pagination.LimitOffsetPagination):
    """Pages by ``limit`` and ``offset``; an offset over 10,000 is an unknown page."""

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """Return the parameters, with their bounds."""
        found = super().get_schema_operation_parameters(view)
        return [_bounded(each, "limit", _sizes(view)) for each in found]

    def paginate_queryset(self, queryset: Any, request: Any, view: Any = None) -> Any:
        """Return the rows of the page."""
        _number(request, "limit", 1)
        _number(request, "offset", 0)
        self.default_limit, self.max_limit = _sizes(view)
        if self.get_offset(request) > _MAX_OFFSET:
            raise NotFound("There is no such page. Use filters, or a list with cursors.")
        if isinstance(queryset, QuerySet):
            queryset = queryset.order_by(*_down_to_key(_ordering_of(queryset), queryset))
        return super().paginate_queryset(queryset, request, view)


def _bounded(parameter: dict[str, Any], name: str, sizes: tuple[int, int]) -> dict[str, Any]:
    """Return the OpenAPI *parameter* with its bounds; *name* is that of the page's size."""
    if parameter["name"] == "offset":
        bounds = {"type": "integer", "minimum": 0, "maximum": _MAX_OFFSET}
        return {**parameter, "schema": bounds}
    if parameter["name"] != name:
        return parameter
    default, most = sizes
    # No maximum: a client that asks for more is not refused, and gets the most.
    bounds = {"type": "integer", "minimum": 1, "default": default}
    return {**parameter, "schema": bounds, "description": f"Rows on a page; never over {most}."}


def _number(request: Any, name: str, least: int) -> None:
    """Refuse *request* if its parameter *name* is not a whole number from *least* on."""
    text = request.query_params.get(name)
    if text is None:
        return
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) or int(text) < least:
        raise ParameterError({name: [f"This has to be a whole number from {least} on."]})


def _sizes(view: Any) -> tuple[int, int]:
    size = getattr(view, "page_size", None) or conf.option("AUTOMATE_API", "PAGE_SIZE")
    most = getattr(view, "max_page_size", None) or conf.option("AUTOMATE_API", "MAX_PAGE_SIZE")
    return min(size, most), most


def _ordering_of(queryset: QuerySet[Any]) -> list[Any]:
    query = queryset.query
    if query.order_by:
        return list(query.order_by)
    return list(queryset.model._meta.ordering) if query.default_ordering else []


def _down_to_key(ordering: Sequence[Any], queryset: Any) -> list[Any]:
    key = queryset.model._meta.pk.name
    named = {str(each).lstrip("-") for each in ordering}
    if named & {"pk", key, "?"}:
        return list(ordering)
    backwards = str(ordering[0]).startswith("-") if ordering else False
    return [*ordering, "-pk" if backwards else "pk"]


class _ByStyle:
    """The `pagination_class` of a view's *pagination_style*, if the view names no class."""

    def __get__(self, view: object, owner: type | None = None) -> Any:
        style = getattr(view or owner, "pagination_style", None)
        style = style or conf.option("AUTOMATE_API", "PAGINATION")
        return {"cursor": CursorPagination, "offset": OffsetPagination}[style]


class Pagination(MixinOrderGuard):
    """The behaviour of `PaginationMixin`."""

    pagination_class: Any = _ByStyle()
    pagination_style: str | None = None
    page_size: Any = Configured("PAGE_SIZE")
    max_page_size: Any = Configured("MAX_PAGE_SIZE")


class PaginationMixin(Pagination):
    """
    Stable pages of bounded size.

    *pagination_style* is ``"cursor"`` or ``"offset"``. *page_size* is the default, and
    *max_page_size* the most that a client gets. *pagination_class* takes any other class, or None.
    """
