"""Fields that the configs of connectors for a service have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from automate_http.addresses import AddressPolicy
from automate_http.headers import check_headers
from automate_http.urls import parse_base_url
from automate_kernel.base.errors import AutomateError

_MIB = 1024 * 1024


def checked_by(check: Callable[[Any], object]) -> AfterValidator:
    """Make pydantic report the errors of *check* with the field's name."""

    def validate(value: Any) -> Any:
        try:
            check(value)
        except AutomateError as error:
            raise ValueError(str(error)) from None
        return value

    return AfterValidator(validate)


BaseUrl = Annotated[str, checked_by(parse_base_url)]
"""The address of a service's API."""

HeaderName = Annotated[str, checked_by(lambda name: check_headers({name: ""}))]
"""The name of a header."""

PrivateNetworks = Annotated[
    bool | list[str],
    checked_by(AddressPolicy.parse),
    Field(
        description="Addresses that are not public and may be reached: all private ones (true), or "
        "networks, addresses and host names. Link-local ones, where clouds keep credentials, only "
        "by name of their network."
    ),
]
"""The ``allow_private_networks`` of a `ServiceClient`."""

PlainHttp = Annotated[
    bool,
    Field(
        description="Send credentials over http:// to another machine too, where all between can "
        "read them: for a network of your own."
    ),
]
"""The ``allow_plain_http`` of a `ServiceClient`."""

CaFile = Annotated[
    str | None,
    Field(description="A file of authorities to trust in place of the public ones, in PEM."),
]
"""The ``ca_file`` of a `ServiceClient`."""

AnswerBytes = Annotated[
    int, Field(ge=1_000, le=512 * _MIB, description="The most bytes of an answer, unpacked.")
]
"""The ``max_response_bytes`` of a `ServiceClient`."""
