"""The settings of the server: what it offers, and to whom."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from automate_kernel.base.errors import ConfigError
from automate_kernel.base.hosts import is_loopback
from automate_kernel.operations.exposure import callers_key

SCOPES = {
    "operations:call": "call operations",
    "workflows:start": "start workflows",
    "executions:read": "look at executions, and wait for them",
    "executions:write": "send signals to executions",
    "approvals:read": "list the steps that wait for a person",
    "approvals:write": "approve and reject, in the name of the token's person",
}
"""The scopes of tokens, and what each allows; ``executions:*`` and ``*`` work too."""

CALL_PREFIX = "mcp.call."
"""The names of the workflows that calls of destructive operations are begin with it."""

_LEAST_TOKEN = 20
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
# Those with public keys alone: a shared key would let this server make tokens out.
_Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
]  # fmt: skip
_Seconds = Annotated[float, Field(gt=0, le=86_400)]
_Bytes = Annotated[int, Field(ge=1_000, le=1 << 30)]


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of tools: its *name*, tenant and scopes, and its roles in approvals."""

    name: str
    tenant_id: str | None = None
    scopes: frozenset[str] = frozenset()
    roles: tuple[str, ...] = ()

    def allows(self, scope: str) -> bool:
        """Return True if it has *scope*, by name, as ``executions:*`` or as ``*``."""
        area = scope.partition(":")[0]
        return not self.scopes.isdisjoint({scope, f"{area}:*", "*"})

    def key_for(self, name: str, key: str | None) -> str | None:
        """Return the idempotency *key* of its own as what it calls or starts gets it."""
        # Keys of clients are none of each other's business.
        if key is None:
            return None
        return callers_key(key, tenant_id=self.tenant_id, caller=self.name, name=name)


class _Rights(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    """The person or program that has it, as approvals and logs name it."""
    tenant_id: str | None = None
    """The tenant that it works for. Without one it sees what belongs to no tenant."""
    roles: list[str] = []
    """Its roles for approvals, by their plain names."""

    @field_validator("scopes", check_fields=False)
    @classmethod
    def _known(cls, scopes: list[str]) -> list[str]:
        areas = {f"{each.partition(':')[0]}:*" for each in SCOPES}
        for scope in scopes:
            if scope not in {*SCOPES, *areas, "*"}:
                raise ValueError(f"there are the scopes {', '.join(SCOPES)}")
        return scopes


class Token(_Rights):
    """A bearer token of the HTTP server."""

    token: str
    """``$secret:KEY``, or ``sha256:`` and the hash of the token in hexadecimal digits."""
    scopes: list[str]

    @field_validator("token")
    @classmethod
    def _no_plain_text(cls, value: str) -> str:
        if not value.startswith("$secret:") and not _HASH.fullmatch(value):
            raise ValueError("it is $secret:KEY, or sha256: and a hash, and never the token itself")
        return value


class Local(_Rights):
    """The user of a server on standard input and output: who started it."""

    name: str = "local"
    scopes: list[str] = ["operations:call", "workflows:start", "executions:read"]


class ApprovalSettings(BaseModel):
    """The approval that a destructive operation waits for."""

    model_config = ConfigDict(extra="forbid")

    by: list[str] = []
    """People, and roles as ``role:NAME``; by default anybody whom the host lets decide."""
    timeout: str = "7d"
    """Until then it must be given."""
    notify: dict[str, Any] | None = None
    """A call that tells people: ``{action = "mail.send", input = {…}}``."""


class Authorization(BaseModel):
    """An authorization server, whose tokens the HTTP server takes if they are made out to it."""

    model_config = ConfigDict(extra="forbid")

    issuer: str
    """Its URL, as its tokens name it in ``iss``."""
    resource: str
    """The URL by which clients reach this server; tokens name it in ``aud``."""
    audience: list[str] = []
    """The values of ``aud`` that are taken, if not *resource*."""
    jwks_url: str | None = None
    """The URL of its keys; by default what its metadata says."""
    algorithms: Annotated[list[_Algorithm], Field(min_length=1)] = ["RS256", "ES256", "EdDSA"]
    """The signatures that are taken."""
    name_claim: str = "sub"
    """The claim with the caller's name."""
    scope_claim: str = "scope"
    """The claim with the caller's scopes, those of this server: a list, or text."""
    tenant_claim: str | None = None
    """The claim with the caller's tenant. A token without it is refused then."""
    roles_claim: str | None = None
    """The claim with the caller's roles for approvals."""

    @field_validator("issuer", "resource", "jwks_url")
    @classmethod
    def _is_url(cls, text: str | None) -> str | None:
        if text is not None:
            url = urlsplit(text)
            fits = url.hostname and not url.username and not url.query and not url.fragment
            plain = url.scheme == "http" and is_loopback(url.hostname)
            if not fits or not (url.scheme == "https" or plain):
                raise ValueError("it must be like https://mcp.example.com/mcp")
        return text


class ServeSettings(BaseModel):
    """The settings in ``[commands.mcp]``. Nothing is offered unless it is named."""

    model_config = ConfigDict(extra="forbid")

    name: str = "automate"
    """The server's name, as clients show it."""
    operations: list[str] = []
    """The operations that are offered: names, or patterns such as ``slack.*``. A destructive
    operation needs its full name."""
    workflows: list[str] = []
    """The workflows that can be started and looked at: names, or patterns."""
    tokens: list[Token] = []
    """The bearer tokens of the HTTP server."""
    authorization: Authorization | None = None
    """An authorization server whose tokens the HTTP server takes, beside or without *tokens*."""
    local: Local = Field(default_factory=Local)
    """The rights of a client on standard input and output."""
    approval: ApprovalSettings = Field(default_factory=ApprovalSettings)
    """The approval of calls of destructive operations."""
    wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 20.0
    """Seconds that a tool waits, at most, for an execution to end."""
    timeout_seconds: _Seconds = 60.0
    """Seconds for the call of an operation."""
    max_input_bytes: _Bytes = 1_000_000
    """The largest input, as JSON."""
    max_output_bytes: _Bytes = 1_000_000
    """The largest output, as JSON."""
    most_calls: Annotated[int, Field(ge=1, le=1_000)] = 16
    """The calls at once; any further one is turned away."""
    allowed_hosts: list[str] = []
    """The hosts, with their ports, by which clients reach the HTTP server, beside this machine's
    own names: ``["mcp.example.com"]``."""
    allowed_origins: list[str] = []
    """The origins of web pages that may call it: ``["https://app.example.com"]``."""

    def offers_workflow(self, name: str) -> bool:
        """Return True if a workflow is on the list; those of destructive calls never are."""
        return not name.startswith(CALL_PREFIX) and any(
            fnmatchcase(name, each) for each in self.workflows
        )

    def local_caller(self) -> Caller:
        """Return the caller on standard input and output."""
        return _caller(self.local, self.local.scopes)


def _caller(rights: _Rights, scopes: Iterable[str]) -> Caller:
    return Caller(rights.name, rights.tenant_id, frozenset(scopes), tuple(rights.roles))


class TokenTable:
    """The callers by their tokens, of which only hashes are kept."""

    def __init__(self, tokens: Iterable[Token], secret: Callable[[str], str]) -> None:
        self._callers = [
            (self._digest(each, secret), _caller(each, each.scopes)) for each in tokens
        ]
        names = [caller.name for _, caller in self._callers]
        if len(set(names)) < len(names):
            raise ConfigError("two tokens have the same name", hint="give each its own")

    def __len__(self) -> int:
        return len(self._callers)

    def caller(self, token: str) -> Caller | None:
        """Return the caller whose *token* it is, or None."""
        given = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = None
        for digest, caller in self._callers:  # all of them, so that the time tells nothing
            if hmac.compare_digest(digest, given):
                found = caller
        return found

    @staticmethod
    def _digest(token: Token, secret: Callable[[str], str]) -> bytes:
        hashed = _HASH.fullmatch(token.token)
        if hashed is not None:
            return bytes.fromhex(hashed[1])
        value = secret(token.token.removeprefix("$secret:").strip("{}"))
        if len(value) < _LEAST_TOKEN:
            raise ConfigError(
                f"the token of {token.name!r} has less than {_LEAST_TOKEN} characters",
                hint='python -c "import secrets; print(secrets.token_urlsafe(32))" makes one',
            )
        return hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()
