"""A relay to an address: events as signed HTTP requests, such as to another `automate serve`."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import httpx

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, PayloadError
from automate_kernel.base.forks import renew_in_children
from automate_kernel.operations.error_mapping import retry_after_of
from automate_kernel.relays.cloud_events import CONTENT_TYPE, CloudEvent
from automate_kernel.relays.relay import Relay
from automate_kernel.triggers.webhooks import StandardWebhooksSignature

_REFUSED = (400, 413, 414, 415, 422)
"""The answers to an event that will never be taken; any other failure may pass."""


class HttpRelay(Relay):
    """
    Sends each event to *url* by POST, in the structured mode of CloudEvents.

    With *secret* requests are signed as Standard Webhooks have it, with the event's id; several
    secrets sign while they are rotated. *token* is sent as a bearer token, to HTTPS or to this
    machine alone. An answer has to come within *timeout* seconds. The receiver drops repeats by
    the event's id; another ``automate serve`` does so at ``/events``.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str | Sequence[str] = (),
        token: str | None = None,
        timeout: float = 20.0,
    ) -> None:
        try:
            self._url = httpx.URL(url)
        except (httpx.InvalidURL, TypeError):
            raise ConfigError("a relay's url is no URL") from None
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise ConfigError(
                "a relay's url begins with https:// or http://",
                hint='for example url = "https://automate.example.org/events"',
            )
        if self._url.userinfo:
            raise ConfigError("a relay's url has a password in it", hint="give a secret or a token")
        if token is not None and self._url.scheme == "http" and not _is_here(self._url.host):
            raise ConfigError(
                "a token would be sent in the clear", hint="use https://, or a secret that signs"
            )
        if not 0 < timeout < 30:
            raise ConfigError("a relay's timeout is above 0 and below 30 seconds")
        self._secrets = (secret,) if isinstance(secret, str) else tuple(secret)
        self._scheme = StandardWebhooksSignature("relay")
        if self._secrets:
            self._scheme.sign(b"", *self._secrets)  # raises for a secret that can't sign
        self._headers = {"Content-Type": f"{CONTENT_TYPE}; charset=utf-8"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout = timeout
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget the connections, which are another process's."""
        self._client: httpx.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"HttpRelay({self._place})"

    @property
    def _place(self) -> str:
        # A query may hold a key.
        return str(self._url.copy_with(query=None))

    async def send(self, event: CloudEvent) -> None:
        """Send an event, and read the answer's status alone."""
        body = event.to_text().encode()
        headers = dict(self._headers)
        if self._secrets:
            headers |= self._scheme.sign(body, *self._secrets, message_id=event.id)
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=self._timeout, trust_env=False, follow_redirects=False,
                limits=httpx.Limits(max_connections=50, max_keepalive_connections=50),
            )  # fmt: skip
        try:
            # The body of the answer is a stranger's: its status says all.
            async with self._client.stream(
                "POST", self._url, content=body, headers=headers
            ) as answer:
                status, after = answer.status_code, retry_after_of(answer.headers)
        except httpx.HTTPError as error:
            text = f"{self._place} can't be reached: {type(error).__name__}"
            raise AutomateError(ErrorCodes.UNAVAILABLE, text) from None
        if 200 <= status < 300:
            return
        text = f"{self._place} answered {status}"
        if status in _REFUSED:
            raise PayloadError(f"{text}: it doesn't take this event")
        raise AutomateError(
            ErrorCodes.UNAVAILABLE, text, hint=_HINTS.get(status), retry_after=after
        )

    async def problems(self) -> list[str]:
        """Say if nothing answers at the address; an answer of any kind will do."""
        client = httpx.AsyncClient(timeout=5.0, trust_env=False, follow_redirects=False)
        try:
            async with client, client.stream("GET", self._url):
                return []
        except httpx.HTTPError as error:
            return [f"{self._place} can't be reached: {type(error).__name__}"]

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


_HINTS = {
    401: "look at the secret or the token on both sides",
    403: "the receiver needs serve.events_secrets or serve.events_token",
    404: "look at the path: automate serve takes events at /events",
}


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
