"""The config of `OpenApiConnector`: the document, the actions, credentials, pages and bounds."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from automate_http.fields import (
    AnswerBytes,
    BaseUrl,
    CaFile,
    HeaderName,
    PlainHttp,
    PrivateNetworks,
    checked_by,
)
from automate_http.headers import check_headers
from automate_http.pages import Cursor, NextLink, Offset, PageNumber, Pages
from automate_kernel.base.hosts import check_encrypted
from automate_kernel.secrets.keys import SecretKey

_MIB = 1024 * 1024
_Seconds = Annotated[float, Field(gt=0, le=86_400)]


class _Table(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ActionHints(_Table):
    """The host's own word on actions, which counts more than the document's method."""

    read_only: bool | None = None
    """True if it changes nothing."""
    destructive: bool | None = None
    """True if what it does can't be taken back."""
    idempotent: bool | None = None
    """True if it may be called again where it is unknown whether the last call arrived."""


class SchemeAuth(_Table):
    """
    The credentials for one security scheme, by the keys of secrets.

    The document describes the scheme. With *type* it is described here: for a document that
    forgets to, or a scheme that it doesn't have.
    """

    secret: SecretKey | None = None
    """The key of the secret: a token, an API key, a password."""
    user: str | None = None
    """The user's name, for ``basic``."""
    client_id: str | None = None
    """The client's id, for OAuth 2 client credentials."""
    client_secret: SecretKey | None = None
    """The key of the client's secret."""
    scopes: list[str] = []
    """The scopes to ask for."""
    token_url: str | None = None
    """The endpoint for tokens, in place of the document's."""
    type: Literal["bearer", "basic", "header", "query", "cookie", "oauth2"] | None = None
    name: str | None = None
    """The name of the header, query parameter or cookie, if *type* is one of these."""

    @model_validator(mode="after")
    def _fits(self) -> SchemeAuth:
        if (self.secret is None) == (self.client_id is None):
            raise ValueError("give secret (the key of a token), or client_id and client_secret")
        if self.type in ("header", "query", "cookie") and not self.name:
            raise ValueError(f"name is missing: that of the {self.type}")
        if self.type == "oauth2" and self.secret is None and self.token_url is None:
            raise ValueError("token_url is missing")
        return self


class PagesConfig(_Table):
    """The way from one page of a list to the next."""

    by: Literal["link", "cursor", "page", "offset"]
    """``link``: a URL in the ``Link`` header or in *field*; the others: query parameters."""
    field: str = ""
    """The dotted name of the URL or the cursor in the answer."""
    parameter: str | None = None
    """The query parameter of the cursor, the page's number or the offset."""
    size: int | None = Field(default=None, ge=1)
    """Items on a page, for ``page`` and ``offset``."""
    size_parameter: str | None = None
    """The query parameter of the size."""
    items: str = ""
    """The dotted name of the list in the answer; empty if the answer is the list."""

    @model_validator(mode="after")
    def _fits(self) -> PagesConfig:
        if self.by == "cursor" and not self.field:
            raise ValueError("field is missing: the cursor's name in the answer")
        return self

    def made(self) -> Pages:
        """Return the pages of the client."""
        if self.by == "link":
            return NextLink(self.field, items=self.items)
        if self.by == "cursor":
            return Cursor(self.field, self.parameter or "cursor", items=self.items)
        if self.by == "page":
            return PageNumber(
                self.parameter or "page",
                size=self.size,
                size_parameter=self.size_parameter or "per_page",
                items=self.items,
            )
        return Offset(
            self.size or 100,
            parameter=self.parameter or "offset",
            limit_parameter=self.size_parameter or "limit",
            items=self.items,
        )


class OpenApiConfig(_Table):
    """One service: its document, the actions to have of it, and how to call it."""

    document: str = Field(min_length=1, examples=["petstore.yaml"])
    """The OpenAPI document, version 3.0 or 3.1: a file, or a URL. JSON or YAML."""
    base_url: BaseUrl | None = Field(default=None, examples=["https://api.example.com/v1"])
    """The service's address, in place of the document's servers."""
    server: int = Field(default=0, ge=0)
    """Which of the document's servers to take, from 0."""
    server_variables: dict[str, str] = {}
    """Values for the variables in the server's address."""
    actions: list[str] = ["*"]
    """The actions to have, by name; ``*`` stands for any text."""
    exclude: list[str] = []
    """The actions not to have, out of these."""
    tags: list[str] | None = None
    """If given, only actions with one of these tags."""
    hints: dict[str, ActionHints] = {}
    """Your own word on actions, by name or pattern; the last that fits counts."""
    auth: dict[str, SchemeAuth] = {}
    """Credentials, by the names of the document's security schemes."""
    headers: Annotated[dict[str, str], checked_by(check_headers)] = {}
    """Headers that are sent with each request, such as an API's version. No secrets."""
    pages: dict[str, PagesConfig] = {}
    """Lists in pages, by the name or pattern of their actions: these take ``max_items``."""
    max_items: int = Field(default=10_000, ge=1, le=1_000_000)
    """The most items of a list that one call may ask for."""
    validate_output: Literal["warn", "error", "off"] = "warn"
    """The consequence of an answer that doesn't fit the document: a warning, an error, none."""
    files_from: str | None = None
    """The folder whose files may be sent. Without it a file is given as base64."""
    idempotency_header: HeaderName | None = Field(default=None, examples=["Idempotency-Key"])
    """A header that the service knows a repeated request by, such as ``Idempotency-Key``."""
    allow_private_networks: PrivateNetworks = False
    allow_plain_http: PlainHttp = False
    ca_file: CaFile = None
    timeout_seconds: _Seconds = 30.0
    """The most seconds of a request."""
    max_response_bytes: AnswerBytes = 5 * _MIB
    max_redirects: int = Field(default=5, ge=0, le=20)
    """The most redirects that a request follows."""
    max_document_bytes: int = Field(default=32 * _MIB, ge=1_000, le=256 * _MIB)
    """The most bytes of the document."""
    refresh_seconds: float = Field(default=3_600.0, ge=1, le=86_400 * 30)
    """Seconds after which a document with a URL is asked for again, by its ETag."""
    external_refs: bool = False
    """Follow references to other documents: beside or below the file, or on the URL's own host."""

    @model_validator(mode="after")
    def _is_encrypted(self) -> OpenApiConfig:
        if self.auth:
            check_encrypted(
                self.base_url or "",
                allow_plain_http=self.allow_plain_http,
                what="base_url, which gets the credentials",
            )
        return self
