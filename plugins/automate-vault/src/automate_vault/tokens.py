"""The token of a process: got by a login, renewed before its end, replaced once it is gone."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from automate_kernel.base.errors import ErrorCodes, SecretDeniedError, SecretError
from automate_kernel.secrets.logs import get_logger
from automate_vault.api import VaultApi, as_mapping
from automate_vault.logins import NAMES, Login, TokenLogin

logger: logging.Logger = get_logger(__name__)

_RETRY_SECONDS = 10.0
_SOONEST_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class VaultToken:
    """A token with its times, by the clock of this process; both None if it never ends."""

    value: str = field(repr=False)
    renewable: bool = False
    seconds: float = 0.0
    """The time that it was good for at first."""
    renew_at: float | None = None
    ends_at: float | None = None


class TokenKeeper:
    """
    Keeps a token of a *login*. All of it runs on one event loop.

    A token is renewed after about two thirds of its time: when it is used, and by a task, so that a
    token which can't be had again outlives a quiet night. Where it can't be renewed, or only for
    a short time more, a new login replaces it.
    """

    def __init__(self, api: VaultApi, login: Login) -> None:
        self._api, self._login = api, login
        self._clock: Callable[[], float] = time.monotonic
        self._lock = asyncio.Lock()
        self._token: VaultToken | None = None
        self._task: asyncio.Task[None] | None = None

    async def token(self) -> str:
        """Return a token that is good now."""
        async with self._lock:
            token, now = self._token, self._clock()
            if token is None or (token.ends_at is not None and token.ends_at <= now):
                token = await self._new()
            elif token.renew_at is not None and token.renew_at <= now:
                token = await self._renewed(token)
            self._token = token
            if token.renew_at is not None and (self._task is None or self._task.done()):
                self._task = asyncio.create_task(self._keep_renewed())
            return token.value

    async def replaced(self, refused: str) -> bool:
        """
        Return True if there is another token than *refused*, with which a request got 403.

        Vault says 403 both of a token that is gone and of one that may not read this. Only in the
        first case is there another.
        """
        async with self._lock:
            if self._token is not None and self._token.value != refused:
                return True
            if await self._looked_up(refused) is not None:
                return False
            self._token = await self._new()
            return self._token.value != refused

    async def revoke(self) -> None:
        """End the token, if a login made it, so that none is left over; and the task."""
        if self._task is not None:
            self._task.cancel()
        token, self._token, self._task = self._token, None, None
        self._lock = asyncio.Lock()  # the backend may be used again, on another loop
        if token is not None and not isinstance(self._login, TokenLogin):
            try:
                await self._api.send("POST", "auth/token/revoke-self", token=token.value, body={})
            except SecretError as error:
                logger.debug("the token was not revoked: %s", error.message)

    async def _new(self) -> VaultToken:
        if isinstance(self._login, TokenLogin):
            value = await asyncio.to_thread(self._login.read)
            self._api.redactor.add(value)
            return await self._looked_up(value) or VaultToken(value)
        body = await asyncio.to_thread(self._login.body)
        for name in body.keys() - NAMES:
            self._api.redactor.add(body[name])
        try:
            answer = await self._api.send("POST", f"auth/{self._login.mount}/login", body=body)
            refusal = "" if answer.ok else answer.errors or str(answer.status)
        except SecretDeniedError as error:
            refusal = error.message
        if refusal:
            raise SecretDeniedError(
                f"Vault refused the {self._login.method} login at auth/{self._login.mount}: "
                f"{self._api.redactor.redact(refusal)}",
                code=ErrorCodes.UNAUTHENTICATED,
                hint="check the role and its credentials",
            )
        auth = as_mapping(answer.content.get("auth"))
        given = auth.get("client_token")
        if not isinstance(given, str) or not given:
            raise SecretError("Vault answered a login without a token")
        self._api.redactor.add(given)
        return self._timed(given, auth.get("lease_duration"), auth.get("renewable"))

    async def _looked_up(self, value: str) -> VaultToken | None:
        """Return the token with its times; None if it is gone, or may not look itself up."""
        try:
            answer = await self._api.send("GET", "auth/token/lookup-self", token=value)
        except SecretDeniedError:
            return None
        if not answer.ok:
            return None
        return self._timed(value, answer.data.get("ttl"), answer.data.get("renewable"))

    async def _renewed(self, token: VaultToken) -> VaultToken:
        again = not isinstance(self._login, TokenLogin) or self._login.token_file is not None
        try:
            if token.renewable:
                answer = await self._api.send(
                    "POST", "auth/token/renew-self", token=token.value, body={}
                )
                auth = as_mapping(answer.content.get("auth"))
                new = self._timed(token.value, auth.get("lease_duration"), auth.get("renewable"))
                # Near the end of its longest time each renewal gives less.
                if answer.ok and (not again or new.seconds > token.seconds / 3):
                    return replace(new, seconds=token.seconds)
            if again:
                return await self._new()
        except SecretError as error:
            if again and not error.retryable:
                return await self._new()
            logger.warning("the token was not renewed: %s", self._api.redactor.redact(str(error)))
        # It is good for a while. A login that fails now may work then.
        return replace(token, renew_at=self._clock() + _RETRY_SECONDS)

    def _timed(self, value: str, seconds: Any, renewable: Any) -> VaultToken:
        if not isinstance(seconds, (int, float)) or seconds <= 0:
            return VaultToken(value)  # root's never ends
        now = self._clock()
        # Not all workers in the same moment.
        renew_at = now + seconds * random.uniform(0.6, 0.7)
        return VaultToken(value, renewable is True, float(seconds), renew_at, now + seconds)

    async def _keep_renewed(self) -> None:
        while self._token is not None and self._token.renew_at is not None:
            await asyncio.sleep(max(self._token.renew_at - self._clock(), _SOONEST_SECONDS))
            try:
                await self.token()
            except SecretError as error:
                text = self._api.redactor.redact(str(error))
                logger.warning("there is no new token: %s", text)
                await asyncio.sleep(_RETRY_SECONDS)
