"""The backend that reads secrets from Vault's key-value engines."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automate_kernel.base.errors import (
    ConfigError,
    ErrorCodes,
    SecretDeniedError,
    SecretError,
    SecretNotFoundError,
)
from automate_kernel.base.forks import renew_in_children
from automate_kernel.operations.portal import Portal
from automate_kernel.secrets import SecretsBackend
from automate_vault.api import VaultAnswer, VaultApi, as_mapping
from automate_vault.logins import Login, parse_login
from automate_vault.paths import SecretPath, is_mount, parse_key
from automate_vault.tokens import TokenKeeper

_ENGINES = ("kv", "generic")


class VaultBackend(SecretsBackend):
    """
    Secrets in the key-value engines, version 1 and 2, of HashiCorp Vault or OpenBao.

    A key is ``PATH#FIELD``; without a field it is ``value``. ``PATH#FIELD@3`` is version 3. It is
    in *mount*, or, if it begins with the name of one, in another of *mounts*.

    *auth* is a login, or a mapping with its ``method``: token, approle or kubernetes. *address*,
    a token, *namespace* and *ca_file* are taken from the variables of Vault's own command line,
    ``VAULT_ADDR``, ``VAULT_TOKEN``, ``VAULT_NAMESPACE`` and ``VAULT_CACERT``, if they aren't given.
    """

    name = "vault"

    def __init__(
        self,
        address: str | None = None,
        *,
        auth: Login | Mapping[str, Any] | None = None,
        mount: str = "secret",
        mounts: Sequence[str] = (),
        namespace: str | None = None,
        ca_file: str | None = None,
        timeout_seconds: float = 10.0,
        allow_plain_http: bool = False,
    ) -> None:
        self._mounts = tuple(each.strip("/") for each in (mount, *mounts))
        if not all(map(is_mount, self._mounts)):
            raise ConfigError("a mount of Vault is a path such as secret or team/kv")
        ca_file = ca_file or os.environ.get("VAULT_CACERT")
        if ca_file is not None and not Path(ca_file).is_file():
            raise ConfigError(f"the ca_file of Vault, {ca_file!r}, is not there")
        self._api = VaultApi(
            address or _variable("VAULT_ADDR", "address"),
            namespace=namespace or os.environ.get("VAULT_NAMESPACE"),
            ca_file=ca_file,
            timeout_seconds=timeout_seconds,
            allow_plain_http=allow_plain_http,
        )
        if auth is None:
            auth = {"method": "token", "token": _variable("VAULT_TOKEN", "auth")}
        self._login = parse_login(auth)
        # The token is shared, and its lock and task belong to one loop: so all requests are there.
        self._portal = Portal()
        self._versions: dict[str, int] = {}
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Log in again: the token is another process's, which renews and revokes it."""
        self._keeper = TokenKeeper(self._api, self._login)

    def get_secret(self, key: str) -> str:
        """Return the field's value; one that is no text as JSON."""
        place = parse_key(key, self._mounts)
        if place is None:
            raise SecretNotFoundError(key)
        return self._portal.run(self._read(key, place))

    def remedy(self, key: str) -> str:
        """Give the command that writes it."""
        place = parse_key(key, self._mounts)
        if place is None:
            return ""
        mount, path, field = map(shlex.quote, (place.mount, place.path, place.field))
        return f"vault kv put -mount={mount} {path} {field}=…"

    def close(self) -> None:
        """Revoke the token that a login has made, and close the connections."""
        self._portal.run(self._aclose())
        self._portal.close()

    async def _aclose(self) -> None:
        await self._keeper.revoke()
        await self._api.aclose()

    async def _read(self, key: str, place: SecretPath) -> str:
        found = await self._fields(place)
        value = found.get(place.field)
        if value is None:
            raise SecretNotFoundError(key)
        return value if isinstance(value, str) else json.dumps(value)

    async def _fields(self, place: SecretPath) -> Mapping[str, Any]:
        """Return the secret's fields; none if it is not there."""
        for _ in range(2):
            version = await self._engine_version(place.mount)
            answer = await self._get(place, version)
            if answer.ok:
                return fields_of(answer, version)
            # Vault warns of a path that is none of the engine's version: it has been upgraded.
            if not answer.warnings:
                break
            self._versions.pop(place.mount, None)
        self._require_absent(place, answer)
        return {}

    async def _get(self, place: SecretPath, version: int) -> VaultAnswer:
        if version == 2:
            query = f"?version={place.version}" if place.version else ""
            return await self._ask("GET", f"{place.mount}/data/{place.quoted}{query}")
        if place.version is not None:
            raise SecretError(
                f"the engine at {place.mount!r} keeps no versions",
                code=ErrorCodes.INVALID_ARGUMENT,
                hint=f"leave @{place.version} out of the key",
            )
        return await self._ask("GET", f"{place.mount}/{place.quoted}")

    def _require_absent(self, place: SecretPath, answer: VaultAnswer) -> None:
        """Raise an error unless *answer* says that there is no such secret, and nothing else."""
        if answer.is_absent:
            return
        self._versions.pop(place.mount, None)
        raise self._problem(f"Vault can't read from the mount {place.mount!r}", answer)

    def _problem(self, text: str, answer: VaultAnswer) -> SecretError:
        said = " ".join(self._api.redactor.redact(answer.errors).split())[:200]
        return SecretError(f"{text}: {answer.status} {said}".rstrip())

    async def _engine_version(self, mount: str) -> int:
        """Return 1 or 2, as Vault's own command line finds it out; once for each mount."""
        known = self._versions.get(mount)
        if known is not None:
            return known
        try:
            answer = await self._ask("GET", f"sys/internal/ui/mounts/{mount}")
        except SecretDeniedError as error:
            hint = f"does the mount {mount!r} exist, and may this token read something below it?"
            raise SecretDeniedError(
                error.message, code=error.code, hint=error.hint or hint
            ) from None
        if not answer.ok:
            raise self._problem(f"Vault doesn't know the mount {mount!r}", answer)
        if answer.data.get("type") not in _ENGINES:
            raise SecretError(
                f"the mount {mount!r} of Vault is no key-value engine",
                hint="secrets that are made for each reader are not supported",
            )
        version = 2 if as_mapping(answer.data.get("options")).get("version") == "2" else 1
        self._versions[mount] = version
        return version

    async def _ask(self, method: str, path: str, body: Any = None) -> VaultAnswer:
        """Send a request with the token, and once more if the token is gone."""
        token = await self._keeper.token()
        try:
            return await self._api.send(method, path, token=token, body=body)
        except SecretDeniedError:
            if not await self._keeper.replaced(token):
                raise
        token = await self._keeper.token()
        return await self._api.send(method, path, token=token, body=body)


def fields_of(answer: VaultAnswer, version: int) -> Mapping[str, Any]:
    """Return the fields in a success of an engine of that *version*."""
    found = answer.data.get("data") if version == 2 else answer.content.get("data")
    if isinstance(found, Mapping):
        return found
    # Of a proxy: nobody's word that there is no such secret.
    raise SecretError(
        f"the answer {answer.status} has no secret in it, as Vault's have", hint="check its address"
    )


def _variable(name: str, option: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"Vault needs {option}", hint=f"give it, or set the variable {name}")
    return value
