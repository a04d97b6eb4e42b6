"""The type of a config's field that names a secret."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

SecretKey = Annotated[str, Field(min_length=1, json_schema_extra={"format": "secret-key"})]
"""The key of a secret: text that is no secret itself, so that pages may show it."""
