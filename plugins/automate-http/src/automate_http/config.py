"""The configuration of the connector."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from automate_http.fields import BaseUrl, CaFile, HeaderName, PlainHttp, PrivateNetworks, checked_by
from automate_http.headers import check_headers
from automate_kernel.base.hosts import check_encrypted

_MIB = 1024 * 1024


def _check_values(headers: dict[str, SecretStr]) -> None:
    check_headers({name: value.get_secret_value() for name, value in headers.items()})


class HttpConfig(BaseModel):
    """The allowed requests, and their limits. Actions can ask for less, not for more."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    base_url: BaseUrl | None = Field(
        default=None,
        description="The base of a relative URL. Needed for `headers`.",
    )
    headers: Annotated[dict[str, SecretStr], checked_by(_check_values)] = Field(
        default_factory=dict,
        description="Sent with each request to the origin of `base_url`, and to no other.",
    )
    allowed_hosts: list[str] | None = Field(
        default=None,
        description="If given, only these hosts are requested: names, or `*.example.com`.",
    )
    allow_private_networks: PrivateNetworks = False
    allow_plain_http: PlainHttp = False
    timeout_seconds: float = Field(
        default=30.0, gt=0, le=3600, description="The most seconds of a request in all."
    )
    max_response_bytes: int = Field(
        default=5 * _MIB, ge=0, le=512 * _MIB, description="The most bytes of a body, unpacked."
    )
    max_redirects: int = Field(
        default=5, ge=0, le=20, description="The most redirects that a request follows."
    )
    idempotency_header: HeaderName | None = Field(
        default="Idempotency-Key",
        description="The header that marks another attempt of a step, not a new request.",
    )
    ca_file: CaFile = None
    user_agent: Annotated[str, checked_by(lambda v: check_headers({"User-Agent": v}))] = Field(
        default="automate-http/0.1", min_length=1, description="The program that asks."
    )

    @model_validator(mode="after")
    def _headers_have_an_origin(self) -> HttpConfig:
        if self.headers and self.base_url is None:
            # Else a template that makes a URL from an event could send them anywhere.
            raise ValueError("headers are sent to the origin of base_url only, so set base_url")
        if self.headers:
            check_encrypted(
                self.base_url or "",
                allow_plain_http=self.allow_plain_http,
                what="base_url, which gets the headers",
            )
        return self
