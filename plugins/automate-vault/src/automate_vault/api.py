"""Requests to Vault, each bounded, and the meaning of its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from automate_http import Reply, ServiceClient
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    SecretDeniedError,
    SecretError,
    SecretUnavailableError,
)
from automate_kernel.base.hosts import check_encrypted
from automate_kernel.operations.context import PluginContext
from automate_kernel.secrets import Redactor

_READ = 4_096
_MOST_BYTES = 2 * 1024 * 1024  # a secret of Vault's has at most 1 MiB
_ANSWERS = frozenset({400, 404})
_ELSEWHERE = frozenset({301, 302, 303, 307, 308})
# A node that is behind (412), or a standby that doesn't serve this (472, 473).
_NOT_NOW = frozenset({412, 472, 473})
# Its words while an engine is upgraded to version 2, with a 400.
_UPGRADING = "unavailable for a brief period"


@dataclass(frozen=True, slots=True)
class VaultAnswer:
    """An answer of Vault's: a success, a 400 or a 404."""

    status: int
    content: Mapping[str, Any] = field(repr=False)

    @property
    def ok(self) -> bool:
        """True for a success."""
        return self.status < 400

    @property
    def data(self) -> Mapping[str, Any]:
        """The answer's own part; empty if there is none."""
        return as_mapping(self.content.get("data"))

    @property
    def errors(self) -> str:
        """Vault's words for what is wrong."""
        errors = self.content.get("errors")
        return "; ".join(map(str, errors))[:_READ] if isinstance(errors, list) else ""

    @property
    def is_absent(self) -> bool:
        """True for a 404 as Vault has it for a missing secret, or for a deleted version."""
        # One with words is about something else: a route, a proxy's own trouble.
        nothing = self.content.get("errors") == []
        return self.status == 404 and (nothing or bool(as_mapping(self.data.get("metadata"))))

    @property
    def warnings(self) -> bool:
        """True if Vault warns of something."""
        return bool(self.content.get("warnings"))


class VaultApi:
    """
    Sends requests to the Vault at *address*. What it must not show enters its *redactor*.

    It follows no redirect, since each request has a token.
    """

    def __init__(
        self,
        address: str,
        *,
        namespace: str | None,
        ca_file: str | None,
        timeout_seconds: float,
        allow_plain_http: bool,
    ) -> None:
        try:
            check_encrypted(address, allow_plain_http=allow_plain_http)
        except ValueError as error:
            raise ConfigError("the address of Vault is not https", hint=str(error)) from None
        self.redactor = Redactor()
        named = {"x-vault-namespace": namespace.strip("/")} if namespace else {}
        self._client = ServiceClient(
            address,
            ctx=PluginContext(key="vault", redact=self.redactor.redact),
            # Vault's agent can be told to refuse requests without the first: a browser forges none.
            headers={"x-vault-request": "true", "content-type": "application/json", **named},
            timeout_seconds=timeout_seconds,
            max_response_bytes=_MOST_BYTES,
            max_redirects=0,
            allow_private_networks=True,
            ca_file=ca_file,
        )

    async def send(
        self, method: str, path: str, *, token: str | None = None, body: Any = None
    ) -> VaultAnswer:
        """
        Send a request below ``/v1/`` and return its answer, which may be a 400 or a 404.

        Raises `SecretDeniedError` for 401 and 403, `SecretUnavailableError` for what another try
        may change, and `SecretError` for the rest.
        """
        headers = {"x-vault-token": token} if token is not None else {}
        content = json.dumps(body).encode() if body is not None else b""
        try:
            reply = await self._client.asend(
                method, f"/v1/{path}", content=content, headers=headers, answers=_ANSWERS
            )
        except AutomateError as error:
            raise _secret_error(error) from None
        return _answer(reply)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return *value* if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _answer(reply: Reply) -> VaultAnswer:
    if reply.status in _ELSEWHERE:
        raise SecretError(
            "Vault answered with a redirect, as a standby does that forwards nothing",
            hint="let the address lead to the active node, by a load balancer or a DNS name",
        )
    if not reply.content:
        return VaultAnswer(reply.status, {})
    try:
        content = json.loads(reply.content)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        # Of a proxy, or cut off. A 404 of this kind is nobody's word that there is no secret.
        raise SecretUnavailableError(f"Vault answered {reply.status} with no valid JSON object")
    if reply.status >= 400 and not {"errors", "data"} & content.keys():
        # No `SecretNotFoundError`: it is no word of Vault's that there is no such secret.
        code = ErrorCodes.NOT_FOUND if reply.status == 404 else ErrorCodes.INVALID_ARGUMENT
        raise SecretError(
            f"the answer {reply.status} is not one of Vault's", code=code, hint="check its address"
        )
    answer = VaultAnswer(reply.status, content)
    if answer.status == 400 and _UPGRADING in answer.errors:
        raise SecretUnavailableError("Vault is upgrading the engine to version 2")
    return answer


def _secret_error(error: AutomateError) -> SecretError:
    status = error.details.get("status")
    if error.code in (ErrorCodes.PERMISSION_DENIED, ErrorCodes.UNAUTHENTICATED):
        return SecretDeniedError(error.message, code=error.code, hint=error.hint)
    if status in _NOT_NOW:
        return SecretUnavailableError(error.message, retry_after=error.retry_after)
    if error.retryable:
        hint = "is it sealed? vault status tells" if status == 503 else error.hint
        return SecretUnavailableError(
            error.message, code=error.code, hint=hint, retry_after=error.retry_after
        )
    return SecretError(error.message, code=error.code, hint=error.hint, retryable=False)
