"""What all signature schemes share: which secrets, how old, and how two signatures are compared."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from automate_kernel.context import SecretReader
from automate_kernel.errors import ConfigError, SecretError, SecretNotFoundError
from automate_kernel.secrets.handles import SecretRef, check_key
from automate_kernel.webhooks.bodies import BodyError, parse_json
from automate_kernel.webhooks.headers import HeadersLike, WebhookHeaders
from automate_kernel.webhooks.ignoring import Ignored

__all__ = [
    "Claim",
    "Message",
    "SecretNames",
    "SignatureScheme",
    "digest",
    "parse_timestamp",
    "read_field",
    "read_header",
]

SecretNames = str | SecretRef | Sequence[str | SecretRef]
"""A secret's key (``KEY``, ``$secret:KEY`` or a `SecretRef`), or several while one is rotated."""

MAX_SIGNATURES = 16
_MAX_HEADER_LENGTH = 4096
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,14}")
_REFERENCE = re.compile(r"\$secret:(?:\{([^{}]+)\}|([^{}]+))")

Message = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of itself: the bytes that were signed, when, and the signatures."""

    message: Message
    signatures: tuple[str, ...]
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class SignatureScheme(ABC):
    """
    A way in which a service signs its webhooks.

    *secret* names the secret, or several, each of which is tried, so that it can be rotated
    without losing a request. A signed time may be *tolerance_seconds* off, either way.
    """

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
        now: Callable[[], float] = time.time,
    ) -> bool:
        """
        Whether one of the secrets signed exactly *raw_body*, not long ago.

        No request makes it raise, however odd. It raises `SecretError` if a secret that might have
        matched can't be read, since that is the host's fault and not the sender's.
        """
        claim = self._read(WebhookHeaders(headers), _as_bytes(raw_body))
        if claim is None or not 0 < len(claim.signatures) <= MAX_SIGNATURES:
            return False
        return self._is_recent(claim, now) and self._is_proved(claim, secrets)

    def sign(
        self,
        raw_body: bytes,
        *secrets: str,
        message_id: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> dict[str, str]:
        """
        The headers that prove to the receiver that a holder of *secrets* sent *raw_body*.

        These are the secrets' values, not their keys. Schemes that have room for several
        signatures take several. *message_id* is for schemes that sign one, which make one up
        if it is left out.
        """
        if not secrets:
            raise TypeError("sign() needs the value of a secret")
        if len(secrets) > 1 and not self._takes_several():
            raise TypeError(f"{type(self).__name__} has room for one signature only")
        keys = [self._key("to sign with", secret) for secret in secrets]
        return self._write(_as_bytes(raw_body), keys, message_id, int(now()))

    def delivery_id(
        self, headers: HeadersLike, raw_body: bytes, *, hashed: bool = True
    ) -> str | None:
        """
        The id of a request that was verified: the same each time that it is sent again.

        Where the service gives its deliveries no id, or this one has none, it is a hash of what
        was signed, so that a request that somebody copied counts once; or None, if it may not be
        *hashed*. None, too, for a request that doesn't keep to the scheme.
        """
        found, body = WebhookHeaders(headers), _as_bytes(raw_body)
        claim = self._read(found, body)
        if claim is None:
            return None
        own = self._own_delivery_id(found, body)
        if own is not None and own.strip():
            return own
        if not hashed:
            return None
        return f"signed:{hashlib.sha256(b''.join(claim.message)).hexdigest()}"

    def event_name(self, headers: HeadersLike, raw_body: bytes) -> str | None:
        """What the service calls the event that a verified request tells of; None if it doesn't."""
        return None

    def handshake(self, headers: HeadersLike, raw_body: bytes) -> Ignored | None:
        """
        The answer to a verified request by which the service only tries the connection.

        None for one that tells of an event.
        """
        return None

    def _own_delivery_id(self, headers: WebhookHeaders, body: bytes) -> str | None:
        """The id that the service gives the delivery."""
        return None

    @abstractmethod
    def _read(self, headers: WebhookHeaders, body: bytes) -> Claim | None:
        """What the request claims, or None if it doesn't keep to the scheme."""

    @abstractmethod
    def _write(
        self, body: bytes, keys: Sequence[bytes], message_id: str | None, timestamp: int
    ) -> dict[str, str]:
        """The headers of a request that is signed with each of *keys*."""

    @abstractmethod
    def _signature(self, key: bytes, message: Message) -> str:
        """The one right signature, as it stands in the header."""

    def _takes_several(self) -> bool:
        return False

    def _key(self, name: str, secret: str) -> bytes:
        """The bytes that are the key, from the text of the secret called *name*."""
        if not secret.strip():
            # Anyone can sign with an empty key.
            raise SecretError(f"the secret {name!r} is empty", hint="nothing is verified with it")
        return secret.encode("utf-8", "surrogatepass")

    def _is_recent(self, claim: Claim, now: Callable[[], float]) -> bool:
        return claim.timestamp is None or abs(now() - claim.timestamp) <= self.tolerance_seconds

    def _is_proved(self, claim: Claim, secrets: SecretReader) -> bool:
        proved = False
        problems: list[SecretError] = []
        for name in self.keys:
            try:
                key = self._key(name, secrets.get(name))
            except SecretError as error:
                problems.append(error)
                continue
            expected = self._signature(key, claim.message).encode()
            for given in claim.signatures:
                # Bytes, as compare_digest refuses text that is not ASCII. No early exit.
                proved |= hmac.compare_digest(expected, given.encode("utf-8", "replace"))
        if not proved:
            self._complain(problems)
        return proved

    def _complain(self, problems: Sequence[SecretError]) -> None:
        # While a secret is rotated, one of them may well be gone already.
        all_failed = len(problems) == len(self.keys)
        for problem in problems:
            if all_failed or not isinstance(problem, SecretNotFoundError):
                raise problem


def digest(key: bytes, message: Iterable[bytes], algorithm: str = "sha256") -> bytes:
    """The HMAC of the concatenated *message*."""
    mac = hmac.new(key, digestmod=algorithm)
    for part in message:
        mac.update(part)
    return mac.digest()


def parse_timestamp(text: str | None) -> int | None:
    """
    The seconds since 1970 that *text* says, written in the one usual way.

    ``int()`` also takes ``+1``, ``1_0``, blanks and other scripts' digits.
    """
    return int(text) if text is not None and _TIMESTAMP.fullmatch(text) else None


def read_header(headers: WebhookHeaders, name: str) -> str | None:
    """The header's value, if it was sent exactly once and can be one."""
    value = headers.get(name)
    if value is None or not value.isascii() or not 0 < len(value) <= _MAX_HEADER_LENGTH:
        return None
    return value


def read_field(body: bytes, *path: str) -> str | None:
    """The text in a JSON body under *path*, if it is there."""
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
        # Decoded or parsed and dumped again, it is no longer what was signed.
        raise TypeError("raw_body must be the request's body as it came, in bytes")
    return bytes(raw_body)
