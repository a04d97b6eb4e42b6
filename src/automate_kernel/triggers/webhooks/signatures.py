"""Signature schemes: they verify the origin and the age of webhooks, and sign webhooks."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from automate_kernel.base import runtime
from automate_kernel.base.errors import ConfigError, SecretError, SecretNotFoundError, type_name
from automate_kernel.secrets.handles import SecretReader, SecretRef, check_key
from automate_kernel.triggers.webhooks.request import (
    BodyError,
    HeadersLike,
    Ignored,
    WebhookHeaders,
    parse_json,
)

SecretNames = str | SecretRef | Sequence[str | SecretRef]
"""A secret's key (``KEY``, ``$secret:KEY`` or a `SecretRef`), or several while one is rotated."""

MAX_SIGNATURES = 16
_MAX_HEADER_LENGTH = 4096
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,14}")
_REFERENCE = re.compile(r"\$secret:(?:\{([^{}]+)\}|([^{}]+))")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request's claim: the bytes that were signed, the signatures, and the signed time."""

    message: bytes
    signatures: tuple[str, ...]
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class SignatureScheme(ABC):
    """
    A way in which a service signs its webhooks.

    *secret* names the secret, or several while it is rotated: each is tried, and no request is
    lost. A signed time may be *tolerance_seconds* off, either way.
    """

    _takes_several = True

    secret: SecretNames
    tolerance_seconds: float = field(default=300.0, kw_only=True)

    def __post_init__(self) -> None:
        if not self.keys:
            raise ConfigError(f"{type(self).__name__} names no secret", hint="give it a key")

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the secrets that are tried."""
        names = (self.secret,) if isinstance(self.secret, (str, SecretRef)) else self.secret
        return tuple(_key_of(name) for name in names)

    def verify(
        self,
        headers: HeadersLike,
        raw_body: bytes,
        secrets: SecretReader,
        *,
        now: Callable[[], float] = runtime.wall_clock,
    ) -> bool:
        """
        Return True if one of the secrets signed exactly *raw_body*, not long ago.

        No request makes it raise, however odd. It raises `SecretError` if a secret that might have
        matched can't be read: that is the receiver's fault, not the sender's.
        """
        signed = self._claim(WebhookHeaders(headers), raw_body)
        if signed is None:
            return False
        off = 0 if signed.timestamp is None else abs(now() - signed.timestamp)
        return off <= self.tolerance_seconds and self._is_proved(signed, secrets)

    def refusal(
        self,
        headers: HeadersLike,
        raw_body: bytes,
        secrets: SecretReader,
        *,
        now: Callable[[], float] = runtime.wall_clock,
    ) -> str:
        """
        Return what a request lacks that `verify` has refused, for those who run the receiver.

        The sender must not see it. Nothing of the request is in it but its time.
        """
        found = WebhookHeaders(headers)
        for name in self._headers:
            if name not in found:
                times = len(found.get_all(name))
                return f"the header {name} is there {times} times" if times else f"no header {name}"
        signed = self._claim(found, raw_body)
        if signed is None:
            return f"{type(self).__name__} can't read {', '.join(self._headers) or 'its headers'}"
        off = 0.0 if signed.timestamp is None else now() - signed.timestamp
        if abs(off) > self.tolerance_seconds:
            when = f"{abs(off):,.0f} seconds {'ago' if off > 0 else 'from now'}"
            return f"it was signed {when}: it is a recorded one, or a clock is wrong"
        try:
            self._is_proved(signed, secrets)
        except SecretError as error:
            return str(error)
        return (
            f"not signed with {' or '.join(self.keys)}: the service has another secret, or signs"
            " in another way, or the body was changed on its way"
        )

    def _claim(self, headers: WebhookHeaders, raw_body: bytes) -> SignedRequest | None:
        """Read a request's claim; None if it can't be read, or has no or too many signatures."""
        signed = self._read(headers, _as_bytes(raw_body))
        fits = signed is not None and 0 < len(signed.signatures) <= MAX_SIGNATURES
        return signed if fits else None

    @property
    def _headers(self) -> tuple[str, ...]:
        """The names of the headers that a request must have."""
        return ()

    def sign(
        self,
        raw_body: bytes,
        *secrets: str,
        message_id: str | None = None,
        now: Callable[[], float] = runtime.wall_clock,
    ) -> dict[str, str]:
        """
        Return the headers that prove that a holder of *secrets* sent *raw_body*.

        These are the secrets' values, not their keys. Only schemes with room for several
        signatures take several. Schemes that sign a *message_id* make one up if it is left out.
        """
        if not secrets or not all(isinstance(each, str) for each in secrets):
            wrong = next((type_name(each) for each in secrets if not isinstance(each, str)), "none")
            # Not shown: it may well be a secret in another type.
            raise ConfigError(
                f"sign() takes the value of a secret as text, and got {wrong}",
                hint="write sign(body, secret), or sign(body, new_secret, old_secret)",
            )
        if len(secrets) > 1 and not self._takes_several:
            raise TypeError(f"{type(self).__name__} has room for one signature only")
        keys = [self._key("to sign with", secret) for secret in secrets]
        return self._write(_as_bytes(raw_body), keys, message_id, int(now()))

    def delivery_id(
        self, headers: HeadersLike, raw_body: bytes, *, hashed: bool = True
    ) -> str | None:
        """
        Return the id of a verified request: the same each time that it is sent again.

        Without an id of the service's own it is a hash of the signed bytes, so that a copied
        request counts once; or None, if it may not be *hashed*. It is also None for a request
        that doesn't keep to the scheme.
        """
        found, body = WebhookHeaders(headers), _as_bytes(raw_body)
        signed = self._read(found, body)
        if signed is None:
            return None
        own = self._own_delivery_id(found, body)
        if own is not None and own.strip():
            return own
        return _digest_of(signed) if hashed else None

    def second_id(self, headers: HeadersLike, raw_body: bytes) -> str | None:
        """
        Return another id of a verified request, which must be new too; None if it needs none.

        It is for a scheme whose own id isn't signed, so that who recorded a request can change it.
        """
        return None

    def event_name(self, headers: HeadersLike, raw_body: bytes) -> str | None:
        """Return the service's name of the event in a verified request, or None."""
        return None

    def handshake(self, headers: HeadersLike, raw_body: bytes) -> Ignored | None:
        """
        Return the answer to a verified request that only tries the connection.

        It is None for a request with an event.
        """
        return None

    def _own_delivery_id(self, headers: WebhookHeaders, body: bytes) -> str | None:
        """Return the service's own id of the delivery."""
        return None

    @abstractmethod
    def _read(self, headers: WebhookHeaders, body: bytes) -> SignedRequest | None:
        """Read the request's claim; None if it doesn't keep to the scheme."""

    @abstractmethod
    def _write(
        self, body: bytes, keys: Sequence[bytes], message_id: str | None, timestamp: int
    ) -> dict[str, str]:
        """Return the headers of a request that is signed with each of *keys*."""

    @abstractmethod
    def _signature(self, key: bytes, message: bytes) -> str:
        """Return the one right signature, as it stands in the header."""

    def _key(self, name: str, secret: str) -> bytes:
        """Return the key's bytes from the text of the secret called *name*."""
        if not secret.strip():
            # Anyone can sign with an empty key.
            raise SecretError(f"the secret {name!r} is empty", hint="nothing is verified with it")
        return secret.encode("utf-8", "surrogatepass")

    def _is_proved(self, signed: SignedRequest, secrets: SecretReader) -> bool:
        proved = False
        problems: list[SecretError] = []
        for name in self.keys:
            try:
                key = self._key(name, secrets.get(name))
            except SecretError as error:
                problems.append(error)
                continue
            expected = self._signature(key, signed.message).encode()
            for given in signed.signatures:
                # Bytes, as compare_digest refuses text that is not ASCII. No early exit.
                proved |= hmac.compare_digest(expected, given.encode("utf-8", "replace"))
        for problem in () if proved else problems:
            # While a secret is rotated, one of them may well be gone already.
            if len(problems) == len(self.keys) or not isinstance(problem, SecretNotFoundError):
                raise problem
        return proved


def parse_timestamp(text: str | None) -> int | None:
    """
    Return the seconds since 1970 that *text* states in the one usual way.

    ``int()`` would also take ``+1``, ``1_0``, blanks and other scripts' digits.
    """
    return int(text) if text is not None and _TIMESTAMP.fullmatch(text) else None


def read_header(headers: WebhookHeaders, name: str) -> str | None:
    """Return the header's value if it was sent exactly once and is valid."""
    value = headers.get(name)
    if value is None or len(value) > _MAX_HEADER_LENGTH:
        return None
    return value if value.strip() and value.isascii() and value.isprintable() else None


def read_field(body: bytes, *path: str) -> str | None:
    """Return the text in a JSON body under *path*, or None."""
    try:
        value = parse_json(body)
    except BodyError:
        return None
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) and value else None


def _key_of(name: str | SecretRef) -> str:
    if isinstance(name, SecretRef):
        return name.key
    match = _REFERENCE.fullmatch(name)
    key = (match[1] or match[2]) if match else name
    if key.startswith("whsec_"):
        # Not shown: it would end in a log as the key that was not found.
        raise ConfigError(
            "a signature scheme was given the value of a secret",
            hint="give the key under which a secrets backend has it, such as $secret:HOOK_SECRET",
        )
    return check_key(key)


def _as_bytes(raw_body: bytes) -> bytes:
    if not isinstance(raw_body, (bytes, bytearray, memoryview)):
        # Decoded or parsed and dumped again, it differs from the signed bytes.
        raise TypeError("raw_body must be the request's body as it came, in bytes")
    return bytes(raw_body)


_ALGORITHMS = ("sha256", "sha512", "sha384", "sha1")
_MESSAGE_ID = re.compile(r"[!-\-/-~]{1,256}")


def _digest_of(signed: SignedRequest) -> str:
    return f"signed:{hashlib.sha256(signed.message).hexdigest()}"


@dataclass(frozen=True, slots=True)
class HmacSignature(SignatureScheme):
    """
    One header with an HMAC over the body, as most services send it.

    Shopify's, for example::

        HmacSignature("$secret:SHOPIFY", header="X-Shopify-Hmac-Sha256", encoding="base64")

    *prefix* stands before the signature (``sha256=``). With a *timestamp_header*, *signed* is the
    pattern of time and body (``{timestamp}.{body}``). Without one the age of a request is unknown:
    then only the delivery's id (see `ReplayLedger`) shows a repetition.

    *delivery_id_header* names the header with the delivery's id, and *event_header* the header with
    the event. The first isn't signed: an attacker who copied a request can send it with another id.
    ``delivery_id_header=None`` takes a hash of the signed bytes as the id; then two deliveries of
    the same bytes count as one.
    """

    _takes_several = False

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
            raise ConfigError(
                "timestamp_header and {timestamp} in signed need each other",
                hint="say what the service signs, as signed='{timestamp}.{body}', and where the"
                " time stands, as timestamp_header='X-Timestamp'",
            )

    def event_name(self, headers: HeadersLike, raw_body: bytes) -> str | None:
        """Return the value of `event_header`, if the request has it once."""
        return read_header(WebhookHeaders(headers), self.event_header or "")

    @property
    def _headers(self) -> tuple[str, ...]:
        return (self.header, *([self.timestamp_header] if self.timestamp_header else []))

    def _own_delivery_id(self, headers: WebhookHeaders, body: bytes) -> str | None:
        return read_header(headers, self.delivery_id_header or "")

    def _read(self, headers: WebhookHeaders, body: bytes) -> SignedRequest | None:
        value = read_header(headers, self.header)
        if value is None or not value.startswith(self.prefix):
            return None
        timestamp = None
        if self.timestamp_header:
            timestamp = parse_timestamp(read_header(headers, self.timestamp_header))
            if timestamp is None:
                return None
        signature = value[len(self.prefix) :]
        return SignedRequest(self._message(body, timestamp), (signature,), timestamp)

    def _write(
        self, body: bytes, keys: Sequence[bytes], message_id: str | None, timestamp: int
    ) -> dict[str, str]:
        signature = self._signature(keys[0], self._message(body, timestamp))
        headers = {self.header: self.prefix + signature}
        if self.timestamp_header:
            headers[self.timestamp_header] = str(timestamp)
        return headers

    def _message(self, body: bytes, timestamp: int | None) -> bytes:
        before, _, after = self.signed.partition("{body}")
        parts = [part.replace("{timestamp}", str(timestamp)).encode() for part in (before, after)]
        return body.join(parts)

    def _signature(self, key: bytes, message: bytes) -> str:
        mac = hmac.digest(key, message, self.algorithm)
        return mac.hex() if self.encoding == "hex" else base64.b64encode(mac).decode()


_DISPATCHES = ("workflow_dispatch", "repository_dispatch")


def _is_dispatch(body: bytes) -> bool:
    """Return True if *body* is a dispatch by itself: the header that says so isn't signed."""
    try:
        found = parse_json(body)
    except BodyError:
        return False
    names = {"client_payload", "inputs"}
    return isinstance(found, dict) and not names.isdisjoint(found)


@dataclass(frozen=True, slots=True)
class GitHubSignature(HmacSignature):
    """
    GitHub's ``X-Hub-Signature-256``.

    GitHub signs no time. ``X-GitHub-Delivery`` is the delivery's id, and ``X-GitHub-Event`` the
    event. It signs neither, so a delivery counts as repeated by its body too. Dispatches, which
    may be alike, go by their id alone. A ``ping`` is answered and starts nothing.
    """

    secret: SecretNames = "$secret:GITHUB_WEBHOOK_SECRET"  # noqa: S105 - its key
    header: str = field(default="X-Hub-Signature-256", kw_only=True)
    prefix: str = field(default="sha256=", kw_only=True)
    delivery_id_header: str | None = field(default="X-GitHub-Delivery", kw_only=True)
    event_header: str | None = field(default="X-GitHub-Event", kw_only=True)

    def second_id(self, headers: HeadersLike, raw_body: bytes) -> str | None:
        """Return a hash of the body; None for a dispatch."""
        body = _as_bytes(raw_body)
        if self.event_name(headers, body) in _DISPATCHES and _is_dispatch(body):
            return None
        signed = self._read(WebhookHeaders(headers), body)
        return None if signed is None else _digest_of(signed)

    def handshake(self, headers: HeadersLike, raw_body: bytes) -> Ignored | None:
        """Answer a ``ping``, which GitHub sends when a webhook is made."""
        return Ignored("a ping") if self.event_name(headers, raw_body) == "ping" else None


@dataclass(frozen=True, slots=True)
class SlackSignature(HmacSignature):
    """
    Slack's ``X-Slack-Signature``, version v0.

    The delivery's id is an event's ``event_id``; for a command or a click it is a hash of the
    signed bytes. The ``url_verification`` is answered with its challenge and starts nothing.
    """

    secret: SecretNames = "$secret:SLACK_SIGNING_SECRET"  # noqa: S105 - its key
    header: str = field(default="X-Slack-Signature", kw_only=True)
    prefix: str = field(default="v0=", kw_only=True)
    timestamp_header: str | None = field(default="X-Slack-Request-Timestamp", kw_only=True)
    signed: str = field(default="v0:{timestamp}:{body}", kw_only=True)

    def event_name(self, headers: HeadersLike, raw_body: bytes) -> str | None:
        """Return the ``type`` of the event in the body, or of the body itself."""
        return read_field(raw_body, "event", "type") or read_field(raw_body, "type")

    def handshake(self, headers: HeadersLike, raw_body: bytes) -> Ignored | None:
        """Answer the ``url_verification`` as Slack expects it."""
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

    The delivery's id is the event's ``id``, which stays when Stripe sends it again.
    """

    secret: SecretNames = "$secret:STRIPE_WEBHOOK_SECRET"  # noqa: S105 - its key
    header: str = field(default="Stripe-Signature", kw_only=True)

    def event_name(self, headers: HeadersLike, raw_body: bytes) -> str | None:
        """Return the event's ``type``: ``invoice.paid``."""
        return read_field(raw_body, "type")

    @property
    def _headers(self) -> tuple[str, ...]:
        return (self.header,)

    def _own_delivery_id(self, headers: WebhookHeaders, body: bytes) -> str | None:
        return read_field(body, "id")

    def _read(self, headers: WebhookHeaders, body: bytes) -> SignedRequest | None:
        value = read_header(headers, self.header) or ""
        pairs = [part.partition("=") for part in value.split(",")]
        times = [value for name, _, value in pairs if name == "t"]
        timestamp = parse_timestamp(times[0]) if len(times) == 1 else None
        if timestamp is None:
            return None
        # v0 is for test events and has another key; a later version would be another scheme.
        signatures = tuple(value for name, _, value in pairs if name == "v1")
        return SignedRequest(self._message(body, timestamp), signatures, timestamp)

    def _write(
        self, body: bytes, keys: Sequence[bytes], message_id: str | None, timestamp: int
    ) -> dict[str, str]:
        message = self._message(body, timestamp)
        signatures = [f"v1={self._signature(key, message)}" for key in keys]
        return {self.header: ",".join([f"t={timestamp}", *signatures])}

    def _message(self, body: bytes, timestamp: int) -> bytes:
        return f"{timestamp}.".encode() + body

    def _signature(self, key: bytes, message: bytes) -> str:
        return hmac.digest(key, message, "sha256").hex()


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
        """Return the ``type`` in the body, which the specification asks for."""
        return read_field(raw_body, "type")

    @property
    def _headers(self) -> tuple[str, ...]:
        return tuple(f"{self.prefix}-{name}" for name in ("id", "timestamp", "signature"))

    def _own_delivery_id(self, headers: WebhookHeaders, body: bytes) -> str | None:
        return read_header(headers, f"{self.prefix}-id")

    def _read(self, headers: WebhookHeaders, body: bytes) -> SignedRequest | None:
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
        return SignedRequest(self._message(str(message_id), timestamp, body), signatures, timestamp)

    def _write(
        self, body: bytes, keys: Sequence[bytes], message_id: str | None, timestamp: int
    ) -> dict[str, str]:
        message_id = message_id or f"msg_{runtime.uuid4().hex}"
        if not _MESSAGE_ID.fullmatch(message_id):
            raise ValueError("a message id has 1 to 256 visible ASCII characters, and no dot")
        message = self._message(message_id, timestamp, body)
        signatures = [f"v1,{self._signature(key, message)}" for key in keys]
        return {
            f"{self.prefix}-id": message_id,
            f"{self.prefix}-timestamp": str(timestamp),
            f"{self.prefix}-signature": " ".join(signatures),
        }

    def _message(self, message_id: str, timestamp: int, body: bytes) -> bytes:
        return f"{message_id}.{timestamp}.".encode() + body

    def _signature(self, key: bytes, message: bytes) -> str:
        return base64.b64encode(hmac.digest(key, message, "sha256")).decode()

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
