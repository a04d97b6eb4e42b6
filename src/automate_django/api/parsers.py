"""Bodies of requests, of bounded size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from automate_kernel.webhooks.request import BodyError, parse_json

__all__ = ["BoundedJSONParser"]


class BoundedJSONParser(JSONParser):
    """
    JSON of at most ``DATA_UPLOAD_MAX_MEMORY_SIZE`` bytes, as deep and with numbers as long as
    `automate_kernel.webhooks.request.parse_json` takes.

    REST framework's own reads whatever comes, since it reads past Django's check, and fails on
    lists that are nested thousands of times.
    """

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """The parsed body; raises `RequestDataTooBig`, and `ParseError` for what is no JSON."""
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = stream.read() if limit is None else stream.read(limit + 1)
        if limit is not None and len(body) > limit:
            raise RequestDataTooBig
        try:
            return parse_json(body)
        except BodyError as error:
            raise ParseError(f"JSON parse error: {error}") from None
