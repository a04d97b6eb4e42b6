"""The tokens of an authorization server, checked by its public keys (RFC 9068)."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import jwt
from mcp.client.auth.utils import (
    build_oauth_authorization_server_metadata_discovery_urls,
    issuers_match,
)

from automate_http import AddressPolicy, Guard, GuardedTransport, Reply
from automate_http.exchange import Bounds, exchange
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.secrets.logs import get_logger
from automate_mcp.settings import SCOPES, Authorization, Caller

logger: logging.Logger = get_logger(__name__)

_LEEWAY_SECONDS = 30
_LONGEST_TOKEN, _LONGEST_NAME = 16_384, 200
_BOUNDS = Bounds(timeout_seconds=10.0, max_bytes=1_000_000, max_redirects=0)
# A key that isn't known yet may be new; strangers can name any, so often as they like.
_KEPT_SECONDS, _PAUSE_SECONDS, _STALE_SECONDS = 300.0, 10.0, 3_600.0


class AccessTokens:
    """Finds the callers of tokens that *authorization*'s server has signed for this server."""

    def __init__(
        self, authorization: Authorization, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._given = authorization
        self._keys = SigningKeys(authorization, clock)

    def caller(self, token: str) -> Caller | None:
        """
        Return the caller that a token is for, or None; blocks.

        Raises ``UNAVAILABLE`` while nobody can say, because the keys can't be read.
        """
        claims = self._claims(token)
        return _caller_in(claims, self._given) if claims is not None else None

    def _claims(self, token: str) -> Mapping[str, Any] | None:
        if len(token) > _LONGEST_TOKEN or token.count(".") != 2:
            return None
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in self._given.algorithms:
                raise jwt.InvalidAlgorithmError
            key = self._keys.find(header.get("kid"))
            if key is None:
                raise jwt.InvalidKeyError
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[header["alg"]],
                audience=self._given.audience or [self._given.resource],
                issuer=self._given.issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            # Its kind alone: the text may quote the token.
            logger.info("a token was refused: %s", type(error).__name__)
            return None
        return claims


def _caller_in(claims: Mapping[str, Any], given: Authorization) -> Caller | None:
    """Return the caller that *claims* describe; None where one that counts isn't there."""
    name, tenant = claims.get(given.name_claim), None
    if not _is_name(name):
        logger.info("a token was refused: it has no claim %r", given.name_claim)
        return None
    if given.tenant_claim is not None:
        tenant = claims.get(given.tenant_claim)
        if not _is_name(tenant):
            # Without one it would see what belongs to no tenant.
            logger.info("a token was refused: it has no claim %r", given.tenant_claim)
            return None
    scopes = frozenset(_words(claims.get(given.scope_claim))) & SCOPES.keys()
    roles = _words(claims.get(given.roles_claim)) if given.roles_claim is not None else []
    return Caller(str(name), tenant, scopes, tuple(roles))


def _is_name(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= _LONGEST_NAME
        and value.isprintable()
        and value == value.strip()
    )


def _words(claim: Any) -> list[str]:
    """Return the words of a claim: text with spaces between them, or a list."""
    found = claim.split() if isinstance(claim, str) else claim
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


class SigningKeys:
    """The public keys of an authorization server, read again now and then."""

    def __init__(self, authorization: Authorization, clock: Callable[[], float]) -> None:
        self._given, self._clock = authorization, clock
        self._lock = threading.Lock()
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._read_at = self._asked_at = float("-inf")

    def find(self, kid: Any) -> jwt.PyJWK | None:
        """Return the key *kid*, or None if there is none; without a name the only one."""
        known, now = self._known(kid), self._clock()
        if known is not None and now - self._read_at <= _KEPT_SECONDS:
            return known
        is_stale = now - self._read_at > _STALE_SECONDS
        # Whoever has a good key doesn't wait for the one who looks whether it still is.
        if not self._lock.acquire(blocking=known is None or is_stale):
            return known
        try:
            now = self._clock()
            if now - self._asked_at > _PAUSE_SECONDS:
                self._asked_at = now
                self._refresh(now)
        finally:
            self._lock.release()
        if now - self._read_at > _STALE_SECONDS:
            raise AutomateError(
                ErrorCodes.UNAVAILABLE,
                "the keys of the authorization server can't be read",
                retry_after=_PAUSE_SECONDS,
            )
        return self._known(kid)

    def _known(self, kid: Any) -> jwt.PyJWK | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid) if isinstance(kid, str) else None

    def _refresh(self, now: float) -> None:
        try:
            listed = _json_at(self._given.jwks_url or self._found())["keys"]
            self._keys, self._read_at = _usable(listed), now
        except (AutomateError, ValueError, KeyError, TypeError, RecursionError) as error:
            logger.warning(
                "the keys of %s can't be read: %s", self._given.issuer, type(error).__name__
            )

    def _found(self) -> str:
        issuer = self._given.issuer
        for url in build_oauth_authorization_server_metadata_discovery_urls(issuer, issuer):
            try:
                found = _json_at(url)
            except ValueError:
                continue
            if issuers_match(str(found.get("issuer")), issuer) and found.get("jwks_uri"):
                return str(found["jwks_uri"])
        raise KeyError("jwks_uri")


def _json_at(url: str) -> dict[str, Any]:
    """Return the JSON object at *url*, in bounded time; blocks, on a thread without a loop."""
    reply = asyncio.run(_fetched(url))
    if reply.status != 200:
        raise ValueError(f"status {reply.status}")
    found = json.loads(reply.content)
    return dict(found) if isinstance(found, dict) else {}


async def _fetched(url: str) -> Reply:
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    # The issuer is the config's, and may be in the own network.
    transport = GuardedTransport(Guard(AddressPolicy.parse(True)))
    try:
        return await exchange(transport, httpx.Request("GET", url, headers=headers), _BOUNDS)
    finally:
        await transport.aclose()


def _usable(listed: Any) -> dict[str | None, jwt.PyJWK]:
    """Return the public keys for signatures by their names; others are left out."""
    found: dict[str | None, jwt.PyJWK] = {}
    for each in listed:
        if not isinstance(each, dict) or each.get("kty") == "oct":
            continue
        if each.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(each)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        found[key.key_id] = key
    return found
