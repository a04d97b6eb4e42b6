"""Pages of a list: by cursor or by offset."""

from __future__ import annotations

from typing import Any

from automate_django.api.bases.placed import Placed
from automate_django.api.options import Configured, option
from automate_django.api.paginators import CursorPagination, OffsetPagination

__all__ = ["Pagination", "PaginationMixin"]


class _ByStyle:
    """`pagination_class`, for a view that names none: what its *pagination_style* is called."""

    def __get__(self, view: object, owner: type | None = None) -> Any:
        style = getattr(view or owner, "pagination_style", None) or option("PAGINATION")
        return {"cursor": CursorPagination, "offset": OffsetPagination}[style]


class Pagination(Placed):
    """The behaviour of `PaginationMixin`."""

    pagination_class: Any = _ByStyle()
    pagination_style: str | None = None
    page_size: Any = Configured("PAGE_SIZE")
    max_page_size: Any = Configured("MAX_PAGE_SIZE")


class PaginationMixin(Pagination):
    """
    Stable pages of bounded size.

    *pagination_style* is ``"cursor"`` or ``"offset"``; *page_size* is for who asks for none, and
    *max_page_size* for who asks for more. *pagination_class* takes any other class, or None.
    """
