"""The config of `McpProvider`: the server, its tools that may be called, and bounds."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from automate_kernel.base.hosts import check_encrypted, is_loopback
from automate_kernel.secrets.keys import SecretKey

_Seconds = Annotated[float, Field(gt=0, le=86_400)]


class ToolHints(BaseModel):
    """The host's own word on a tool, which counts more than the server's."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    read_only: bool | None = None
    """True if it changes nothing."""
    destructive: bool | None = None
    """True if what it does can't be taken back."""
    idempotent: bool | None = None
    """True if it may be called again where it is unknown whether the last call arrived."""
    timeout_seconds: _Seconds | None = None
    """Seconds for a call of this tool."""


class OAuthSettings(BaseModel):
    """The account at a server that demands OAuth 2.1. ``{}`` is enough for most servers."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    client_id: str | None = None
    """A client that was registered by hand; else this one registers itself."""
    client_secret: SecretKey | None = None
    """The key of the secret of such a client, if it has one."""
    scopes: list[str] = []
    """The scopes to ask for; by default those that the server names."""
    shared: bool = False
    """Let tenants that have connected no account use the application's."""
    allow_private_networks: bool | list[str] = False
    """Private addresses, or names, at which the server and its authorization server may be."""
    allow_plain_http: bool = False
    """Let the authorization server be http:// on another machine."""

    @model_validator(mode="after")
    def _is_whole(self) -> OAuthSettings:
        if self.client_secret is not None and self.client_id is None:
            raise ValueError("client_secret goes with a client_id")
        return self

    def networks_for(self, url: str) -> bool | list[str]:
        """Return the private addresses that may be asked for a server at *url*."""
        host = urlsplit(url).hostname or ""
        # Who names this machine means it.
        return self.allow_private_networks or ([host] if is_loopback(host) else False)


class McpConfig(BaseModel):
    """One server: a *command* to start, or the *url* of one that runs."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [{"url": "https://mcp.example.com/mcp", "tools": ["read_*", "search"]}]
        },
    )

    command: str | None = None
    """The program of a server that speaks over its standard input and output."""
    args: list[str] = []
    """Its arguments. Others on this machine can see them: secrets belong in `env`."""
    env: dict[str, SecretStr] = {}
    """Its environment: it sees nothing but this and `inherit_env`."""
    inherit_env: list[str] = []
    """The variables of this process that it sees too: ``["PATH", "HOME"]`` for ``npx``."""
    cwd: str | None = None
    """Its working folder; by default that of this process."""
    url: str | None = None
    """The endpoint of a server that speaks streamable HTTP."""
    allow_plain_http: bool = False
    """Let `url` be http:// on another machine, where all between can read what is sent."""
    token: SecretStr | None = None
    """Sent to it as a bearer token; better as ``$secret:KEY``."""
    headers: dict[str, SecretStr] = {}
    """Headers that are sent with each request."""
    oauth: OAuthSettings | None = None
    """For a server that demands OAuth: connect an account with ``automate connect``."""
    tools: list[str] = Field(examples=[["read_*", "search"]])
    """The tools that may be called, by the server's names; ``*`` stands for any text."""
    trust_annotations: bool = False
    """Believe what the server says about its tools. Else each counts as destructive and not
    idempotent, unless `hints` say otherwise."""
    hints: dict[str, ToolHints] = {}
    """Your own word on tools, by the server's names."""
    timeout_seconds: _Seconds = 60.0
    """Seconds for a call."""
    start_timeout_seconds: _Seconds = 30.0
    """Seconds until a server must have answered its first request."""
    max_result_bytes: int = Field(default=1_048_576, ge=1_000, le=1 << 30)
    """The largest message that is taken from the server."""

    @model_validator(mode="after")
    def _fits(self) -> McpConfig:
        if (self.command is None) == (self.url is None):
            raise ValueError("give either command or url")
        mine: dict[str, Any] = {"args": self.args, "env": self.env, "cwd": self.cwd}
        theirs: dict[str, Any] = {"token": self.token, "headers": self.headers, "oauth": self.oauth}
        for name, value in (theirs if self.url is None else mine).items():
            if value is not None and value not in ([], {}):
                raise ValueError(f"{name} is for a {'url' if self.url is None else 'command'}")
        if self.url is not None:
            _check_url(self.url, allow_plain_http=self.allow_plain_http)
        if self.oauth is not None and self.token is not None:
            raise ValueError("give either token or oauth")
        return self


def _check_url(text: str, *, allow_plain_http: bool) -> None:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.fragment:
        raise ValueError("url must be like https://mcp.example.com/mcp, without a password in it")
    check_encrypted(text, allow_plain_http=allow_plain_http, what="url")
