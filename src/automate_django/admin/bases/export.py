"""Exports that stream, leave secrets out and are recorded in the audit trail."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone
from django.utils.translation import gettext_lazy

from automate_django.admin.bases.audit import Audited
from automate_django.secrecy import fields_along, leads_to_secret
from automate_kernel.secrets.masking import hide_named
from automate_pages.csv_file import CSV_TYPE, csv_lines, joined

CONTENT_TYPES = {"csv": CSV_TYPE, "json": "application/json"}
_CHUNK = 2000


def _csv_lines(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    return csv_lines(names, ([_text(value) for value in row] for row in rows))


def _text(value: Any) -> Any:
    return json.dumps(value, cls=DjangoJSONEncoder) if isinstance(value, (dict, list)) else value


def json_lines(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """Return the parts of a JSON file: a list with an object per row."""
    encode = DjangoJSONEncoder(ensure_ascii=True).encode
    objects = (encode(dict(zip(names, map(_value, row), strict=True))) for row in rows)
    lines = (f",\n{each}" if i else each for i, each in enumerate(objects))
    yield from joined(chain(["[\n"], lines, ["\n]\n"]))


def _value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such numbers
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()  # all digits of the second, which the encoder would cut
    if value is None or isinstance(value, (bool, int, float, str, dict, list, Decimal)):
        return value
    return str(value)


_WRITERS: dict[str, Callable[..., Iterator[bytes]]] = {"csv": _csv_lines, "json": json_lines}


class Export(Audited):
    """Sends the chosen rows as a file, row by row."""

    export_formats: Sequence[str] = ("csv", "json")
    export_fields: Sequence[str] | None = None
    export_exclude: Sequence[str] = ()

    def has_export_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """
        Return True if rows may be exported: by those who may view them.

        If the model declares a permission ``export_MODEL``, by those of them who hold it.
        """
        return self.has_view_permission(request, obj) and self.holds_own(request, "export")

    def get_export_fields(self, request: HttpRequest) -> list[str]:
        """
        Return the columns: fields, ``relation__field``, and methods of this class on a row.

        Without ``export_fields`` they are the model's own fields but for those that are excluded
        here. Secrets are left out, whoever listed them; see ``not_secret_fields``.
        """
        hidden = {*(self.get_exclude(request) or ()), *self.export_exclude}
        names = self.export_fields
        if names is None:
            names = [field.name for field in self.opts.concrete_fields if field.name not in hidden]
        return [
            name
            for name in names
            if name not in self.export_exclude
            and not leads_to_secret(self.model, name, self.not_secret_fields)
        ]

    def _is_column(self, name: str) -> bool:
        """Return True if *name* leads to a field, and not to a method or property."""
        return len(fields_along(self.model, name)) == len(name.split(LOOKUP_SEP))

    def offered_actions(self, request: HttpRequest) -> list[str]:
        """Return an action for each of ``export_formats``."""
        offered = super().offered_actions(request)
        return [*offered, *(f"export_as_{each}" for each in self.export_formats)]

    @admin.action(
        permissions=["export"],
        description=gettext_lazy("Export selected %(verbose_name_plural)s as CSV"),
    )
    def export_as_csv(self, request: HttpRequest, queryset: Any) -> StreamingHttpResponse:
        """Return the chosen rows as a CSV file."""
        return self.export(request, queryset, "csv")

    @admin.action(
        permissions=["export"],
        description=gettext_lazy("Export selected %(verbose_name_plural)s as JSON"),
    )
    def export_as_json(self, request: HttpRequest, queryset: Any) -> StreamingHttpResponse:
        """Return the chosen rows as a JSON file."""
        return self.export(request, queryset, "json")

    def export(self, request: HttpRequest, queryset: Any, format: str) -> StreamingHttpResponse:
        """Return a response that streams the rows of *queryset*, and record who took how many."""
        if format not in self.export_formats or not self.has_export_permission(request):
            raise PermissionDenied
        names = self.get_export_fields(request)
        details = {"format": format, "rows": queryset.count(), "fields": names}
        self.audit(request, "export", details=details)
        parts: Any = _WRITERS[format](names, self.export_rows(request, queryset, names))
        if isinstance(request, ASGIRequest):
            # Else Django would collect all parts before it sends the first.
            parts = parts_async(parts)
        filename = f"{self.opts.model_name}-{timezone.localdate():%Y-%m-%d}.{format}"
        response = StreamingHttpResponse(parts, content_type=CONTENT_TYPES[format])
        response["Content-Disposition"] = f'attachment; filename="{filename}"'
        response["Cache-Control"] = "no-store"
        response["X-Content-Type-Options"] = "nosniff"
        return response

    def export_rows(
        self, request: HttpRequest, queryset: Any, names: Sequence[str]
    ) -> Iterator[Sequence[Any]]:
        """Return the values of each row, read in chunks as the client takes them."""
        if all(map(self._is_column, names)):
            rows = queryset.values_list(*names).iterator(chunk_size=_CHUNK)
        else:
            found = queryset.prefetch_related(None).iterator(chunk_size=_CHUNK)
            rows = (tuple(self._value(obj, name) for name in names) for obj in found)
        for row in rows:
            yield [hide_named(v) if isinstance(v, (dict, list)) else v for v in row]

    def _value(self, obj: Any, name: str) -> Any:
        if not self._is_column(name):
            own = getattr(self, name, None)
            if callable(own):
                return own(obj)
        for part in name.split(LOOKUP_SEP):
            obj = getattr(obj, part, None)
        value = obj() if callable(obj) else obj
        return value.pk if hasattr(value, "_meta") else value


async def parts_async(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Return *parts*, each made in a thread when it is asked for."""
    following = sync_to_async(lambda: next(parts, None))
    while (part := await following()) is not None:
        yield part


class ExportMixin(Export):
    """
    Adds export actions to an admin.

    ``export_formats`` (CSV, JSON), ``export_fields`` and ``export_exclude`` say what is in the
    files. Secrets are not, and cells that a spreadsheet would run begin with a quote.
    """
