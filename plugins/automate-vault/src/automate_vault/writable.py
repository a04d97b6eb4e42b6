"""The backend that writes secrets to Vault too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from automate_kernel.base.errors import ConfigError, ErrorCodes, SecretError, SecretUnavailableError
from automate_kernel.operations.portal import Portal
from automate_kernel.secrets import LeaseLock, LockState, WritableSecretsBackend
from automate_vault.api import as_mapping
from automate_vault.backend import VaultBackend, fields_of
from automate_vault.paths import SecretPath, parse_key

_ATTEMPTS = 10
_LOCK, _HOLDER = ".lock", "holder"


class WritableVaultBackend(VaultBackend, WritableSecretsBackend):
    """
    Secrets in the key-value engine of version 2, which are written to by check-and-set.

    A write changes its field alone, and undoes no other's. `locked` keeps a small secret beside
    the path, ``PATH.lock``.
    """

    name = "writable_vault"

    def set_secret(self, key: str, value: str) -> None:
        """Write a new version in which the field has *value*."""
        if not value:
            raise SecretError(f"the value of secret {key!r} is empty")
        place = self._place(key)
        self._portal.run(self._change(place, lambda fields: {**fields, place.field: value}))

    def delete_secret(self, key: str) -> None:
        """Write a new version without the field. Vault keeps earlier ones, as many as it is set."""
        place = self._place(key)
        self._portal.run(self._change(place, lambda fields: _without(fields, place.field)))

    def locked(self, key: str) -> AbstractContextManager[None]:
        """Hold a lock, kept beside the path; that of a process which died is free after 20 s."""
        place = self._place(key)
        beside = SecretPath(place.mount, place.path + _LOCK, _HOLDER)
        entry = _Entry(self._portal, partial(self._current, beside), partial(self._replace, beside))
        return LeaseLock(entry, key).held()

    def _place(self, key: str) -> SecretPath:
        place = parse_key(key, self._mounts)
        if place is None or place.version is not None:
            raise SecretError(
                f"secret {key!r} can't be written to Vault",
                code=ErrorCodes.INVALID_ARGUMENT,
                hint="a key is PATH or PATH#FIELD",
            )
        return place

    async def _change(
        self, place: SecretPath, change: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
    ) -> None:
        for _ in range(_ATTEMPTS):
            fields, version = await self._current(place)
            new = change(fields)
            if new is None or await self._replace(place, new, version) is not None:
                return
        raise SecretUnavailableError(
            f"the secret at {place.path!r} was changed by others {_ATTEMPTS} times meanwhile"
        )

    async def _current(self, place: SecretPath) -> tuple[Mapping[str, Any], int]:
        """Return the newest fields, and the version that a write must name."""
        if await self._engine_version(place.mount) != 2:
            raise ConfigError(
                f"the engine at {place.mount!r} can't check and set",
                hint=f"vault kv enable-versioning {place.mount}, or name a mount of version 2",
            )
        answer = await self._get(place, 2)
        fields: Mapping[str, Any] = {}
        if answer.ok:
            fields = fields_of(answer, 2)
        else:
            self._require_absent(place, answer)
        # That of a deleted secret is in the 404.
        version = as_mapping(answer.data.get("metadata")).get("version")
        return fields, version if isinstance(version, int) else 0

    async def _replace(
        self, place: SecretPath, fields: Mapping[str, Any], version: int
    ) -> int | None:
        """Write *fields* unless *version* is no longer the newest; return theirs, else None."""
        body = {"options": {"cas": version}, "data": dict(fields)}
        answer = await self._ask("POST", f"{place.mount}/data/{place.quoted}", body)
        if answer.ok:
            new = answer.data.get("version")
            if isinstance(new, int):
                return new
            raise SecretUnavailableError(
                f"the answer {answer.status} doesn't say that Vault has written"
            )
        if "check-and-set" in answer.errors:
            return None
        raise self._problem(f"Vault can't write to the mount {place.mount!r}", answer)


class _Entry:
    """The entry of a lock, a secret that is read by *current* and written by *replace*."""

    def __init__(
        self,
        portal: Portal,
        current: Callable[[], Awaitable[tuple[Mapping[str, Any], int]]],
        replace: Callable[[Mapping[str, Any], int], Awaitable[int | None]],
    ) -> None:
        self._portal, self._current, self._replace = portal, current, replace

    def read(self) -> LockState:
        """Return the entry's state."""
        fields, version = self._portal.run(self._current())
        return LockState(version, str(fields.get(_HOLDER) or ""))

    def write(self, holder: str, version: int) -> int | None:
        """Write *holder* by check-and-set."""
        return self._portal.run(self._replace({_HOLDER: holder}, version))


def _without(fields: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return *fields* without *name*; None if it isn't there."""
    return {key: value for key, value in fields.items() if key != name} if name in fields else None
