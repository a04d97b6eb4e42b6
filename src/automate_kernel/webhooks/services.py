"""The signature schemes of services, and the one for all that do it in the plain way."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from automate_kernel.errors import ConfigError, SecretError
from automate_kernel.webhooks.headers import HeadersLike, WebhookHeaders
from automate_kernel.webhooks.ignoring import Ignored
from automate_kernel.webhooks.scheme import (
    Claim,
    Message,
    SecretNames,
    SignatureScheme,
    digest,
    parse_timestamp,
    read_field,
    read_header,
)

__all__ = [
    "GitHubSignature",
    "HmacSignature",
    "SlackSignature",
    "StandardWebhooksSignature",
    "StripeSignature",
]

_ALGORITHMS = ("sha256", "sha512", "sha384", "sha1")
_MESSAGE_ID = re.compile(r"[!-\-/-~]{1,256}")


@dataclass(frozen=True, slots=True)
class HmacSignature(SignatureScheme):
    """
    One header with an HMAC over the body, as most services send it.

    Shopify's, for one::

        HmacSignature("$secret:SHOPIFY", header="X-Shopify-Hmac-Sha256", encoding="base64")

    *prefix* stands before the signature (``sha256=``). With a *timestamp_header*, *signed* says
    how time and body were put together (``{timestamp}.{body}``). Without one nothing tells how old
    a request is: then only the delivery's id (see `ReplayLedger`) tells a repetition.

    *delivery_id_header* names the header in which the service gives the delivery an id, and
    *event_header* the one that says what happened. Without the first a repetition is told by a
    hash of what was signed. With it, by a header that isn't signed: who copied a request can send
    it with another id. ``delivery_id_header=None`` trusts what is signed only; then two deliveries
    of the same bytes count as one.
    """

    header: str = field(kw_only=True)
    algorithm: Literal["sha256", "sha512", "sha384", "sha1"] = field(default="sha256", kw_only=True)
    encoding: Literal["hex", "base64"] = field(default="hex", kw_only=True)
    prefix: str = field(default="", kw_only=True)
    timestamp_header: str | None = field(default=None, kw_only=True)
    signed: str = field(default="{body}", kw_only=True)
    delivery_id_header: str | None = field(default=None, kw_only=True)
    event_header: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        SignatureScheme.__post_init__(self)
        for label, value, known in (
            ("algorithm", self.algorithm, _ALGORITHMS),
            ("encoding", self.encoding, ("hex", "base64")),
        ):
            if value not in known:
                raise ConfigError(f"{label} {value!r} is unknown", hint=f"use {', '.join(known)}")
        if self.signed.count("{body}") != 1:
            raise ConfigError("signed must have {body} once", hint="such as '{timestamp}.{body}'")
        # A time that is not signed could be changed by whoever replays the request.
        if bool(self.timestamp_header) != ("{timestamp}" in self.signed):
            raise ConfigError("timestamp_header and {timestamp} in signed need each other")

    def event_name(self, headers: HeadersLike, raw_body: bytes) -> str | None:
        """What `event_header` says, if the request has it once."""
        return read_header(WebhookHeaders(headers), self.event_header or "")

    def _own_delivery_id(self, headers: WebhookHeaders, body: bytes) -> str | None:
        return read_header(headers, self.delivery_id_header or "")

    def _read(self, headers: WebhookHeaders, body: bytes) -> Claim | None:
        value = read_header(headers, self.header)
        if value is None or not value.startswith(self.prefix):
            return None
        timestamp = None
        if self.timestamp_header:
            timestamp = parse_timestamp(read_header(headers, self.timestamp_header))
            if timestamp is None:
                return None
        signature = value[len(self.prefix) :]
        return Claim(self._message(body, timestamp), (signature,), timestamp)

    def _write(
        self, body: bytes, keys: Sequence[bytes], message_id: str | None, timestamp: int
    ) -> dict[str, str]:
        signature = self._signature(keys[0], self._message(body, timestamp))
        headers = {self.header: self.prefix + signature}
        if self.timestamp_header:
            headers[self.timestamp_header] = str(timestamp)
        return headers

    def _message(self, body: bytes, timestamp: int | None) -> Message:
        before, _, after = self.signed.partition("{body}")
        parts = [part.replace("{timestamp}", str(timestamp)) for part in (before, after)]
        return parts[0].encode(), body, parts[1].encode()

    def _signature(self, key: bytes, message: Message) -> str:
        mac = digest(key, message, self.algorithm)
        return mac.hex() if self.encoding == "hex" else base64.b64encode(mac).decode()


@dataclass(frozen=True, slots=True)
class GitHubSignature(HmacSignature):
    """
    GitHub's ``X-Hub-Signature-256``.

    GitHub signs no time. Deliveries are told apart by ``X-GitHub-Delivery``, and events by
    ``X-GitHub-Event``. Its ``ping`` is answered and starts nothing.
    """

    secret: SecretNames = "$secret:GITHUB_WEBHOOK_SECRET"  # noqa: S105 - its key
    header: str = field(default="X-Hub-Signature-256", kw_only=True)
    prefix: str = field(default="sha256=", kw_only=True)
    delivery_id_header: str | None = field(default="X-GitHub-Delivery", kw_only=True)
    event_header: str | None = field(default="X-GitHub-Event", kw_only=True)

    def handshake(self, headers: HeadersLike, raw_body: bytes) -> Ignored | None:
        """GitHub's ``ping``, which it sends when a webhook is made."""
        return Ignored("a ping") if self.event_name(headers, raw_body) == "ping" else None


@dataclass(frozen=True, slots=True)
class SlackSignature(HmacSignature):
    """
    Slack's ``X-Slack-Signature``, version v0.

    An event's delivery is told by its ``event_id``, a command's or a click's by what was signed.
    The ``url_verification`` is answered with its challenge and starts nothing.
    """

    secret: SecretNames = "$secret:SLACK_SIGNING_SECRET"  # noqa: S105 - its key
    header: str = field(default="X-Slack-Signature", kw_only=True)
    prefix: str = field(default="v0=", kw_only=True)
    timestamp_header: str | None = field(default="X-Slack-Request-Timestamp", kw_only=True)
    signed: str = field(default="v0:{timestamp}:{body}", kw_only=True)

    def event_name(self, headers: HeadersLike, raw_body: bytes) -> str | None:
        """The ``type`` of the event in the body, or of the body itself."""
        return read_field(raw_body, "event", "type") or read_field(raw_body, "type")

    def handshake(self, headers: HeadersLike, raw_body: bytes) -> Ignored | None:
        """The ``url_verification``, with the answer that Slack waits for."""
        if read_field(raw_body, "type") != "url_verification":
            return None
        challenge = read_field(raw_body, "challenge") or ""
        return Ignored("a URL verification", {"challenge": challenge})

    def _own_delivery_id(self, headers: WebhookHeaders, body: bytes) -> str | None:
        return read_field(body, "event_id")


@dataclass(frozen=True, slots=True)
class StripeSignature(SignatureScheme):
    """
    Stripe's ``Stripe-Signature``: a time and one signature for each secret in use.

    A delivery is told by the event's ``id``, which stays when Stripe sends it again.
    """

    secret: SecretNames = "$secret:STRIPE_WEBHOOK_SECRET"  # noqa: S105 - its key
    header: str = field(default="Stripe-Signature", kw_only=True)

    def event_name(self, headers: HeadersLike, raw_body: bytes) -> str | None:
        """The event's ``type``: ``invoice.paid``."""
        return read_field(raw_body, "type")

    def _own_delivery_id(self, headers: WebhookHeaders, body: bytes) -> str | None:
        return read_field(body, "id")

    def _read(self, headers: WebhookHeaders, body: bytes) -> Claim | None:
        pairs = [
            part.partition("=") for part in (read_header(headers, self.header) or "").split(",")
        ]
        times = [value for name, _, value in pairs if name == "t"]
        timestamp = parse_timestamp(times[0]) if len(times) == 1 else None
        if timestamp is None:
            return None
        # v0 is for test events and has another key; a later version would be another scheme.
        signatures = tuple(value for name, _, value in pairs if name == "v1")
        return Claim(self._message(body, timestamp), signatures, timestamp)

    def _write(
        self, body: bytes, keys: Sequence[bytes], message_id: str | None, timestamp: int
    ) -> dict[str, str]:
        message = self._message(body, timestamp)
        signatures = [f"v1={self._signature(key, message)}" for key in keys]
        return {self.header: ",".join([f"t={timestamp}", *signatures])}

    def _message(self, body: bytes, timestamp: int) -> Message:
        return f"{timestamp}.".encode(), body

    def _signature(self, key: bytes, message: Message) -> str:
        return digest(key, message).hex()

    def _takes_several(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class StandardWebhooksSignature(SignatureScheme):
    """
    The symmetric signatures (``v1``) of the Standard Webhooks specification.

    A secret is base64, with or without ``whsec_`` before it. With ``prefix="svix"`` the headers
    are those that Svix's customers send. The ``webhook-id`` is signed, and is the delivery's id.
    """

    secret: SecretNames = "$secret:WEBHOOK_SECRET"  # noqa: S105 - its key
    prefix: str = field(default="webhook", kw_only=True)

    def event_name(self, headers: HeadersLike, raw_body: bytes) -> str | None:
        """The ``type`` in the body, which the specification asks for."""
        return read_field(raw_body, "type")

    def _own_delivery_id(self, headers: WebhookHeaders, body: bytes) -> str | None:
        return read_header(headers, f"{self.prefix}-id")

    def _read(self, headers: WebhookHeaders, body: bytes) -> Claim | None:
        message_id, time, value = (
            read_header(headers, f"{self.prefix}-{name}")
            for name in ("id", "timestamp", "signature")
        )
        timestamp = parse_timestamp(time)
        # A dot in the id would let one message be read as another, with a different time.
        if timestamp is None or value is None or not _MESSAGE_ID.fullmatch(message_id or ""):
            return None
        # Other versions are other schemes: v1a is asymmetric.
        pairs = [part.partition(",") for part in value.split(" ")]
        signatures = tuple(signature for version, _, signature in pairs if version == "v1")
        return Claim(self._message(str(message_id), timestamp, body), signatures, timestamp)

    def _write(
        self, body: bytes, keys: Sequence[bytes], message_id: str | None, timestamp: int
    ) -> dict[str, str]:
        message_id = message_id or f"msg_{uuid.uuid4().hex}"
        if not _MESSAGE_ID.fullmatch(message_id):
            raise ValueError("a message id has 1 to 256 visible ASCII characters, and no dot")
        message = self._message(message_id, timestamp, body)
        return {
            f"{self.prefix}-id": message_id,
            f"{self.prefix}-timestamp": str(timestamp),
            f"{self.prefix}-signature": " ".join(
                f"v1,{self._signature(key, message)}" for key in keys
            ),
        }

    def _message(self, message_id: str, timestamp: int, body: bytes) -> Message:
        return f"{message_id}.{timestamp}.".encode(), body

    def _signature(self, key: bytes, message: Message) -> str:
        return base64.b64encode(digest(key, message)).decode()

    def _key(self, name: str, secret: str) -> bytes:
        encoded = secret.removeprefix("whsec_")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not key:
            raise SecretError(
                f"the secret {name!r} is not one of Standard Webhooks",
                hint="it is base64, usually after 'whsec_'",
            )
        return key

    def _takes_several(self) -> bool:
        return True
