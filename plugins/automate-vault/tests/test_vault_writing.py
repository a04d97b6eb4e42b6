"""Writing: by check-and-set, so that nobody's change is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from automate_kernel.base.errors import ConfigError, SecretDeniedError, SecretError
from automate_kernel.secrets import SecretResolver
from automate_vault import VaultBackend, WritableVaultBackend
from vault_support import ROOT, Bao

TOKEN = {"method": "token", "token": ROOT}


@pytest.fixture
def writable(bao: Bao) -> Iterator[WritableVaultBackend]:
    backend = WritableVaultBackend(bao.url, auth=TOKEN, mounts=["legacy"])
    yield backend
    backend.close()


def test_a_write_changes_its_field_alone(bao: Bao, writable: WritableVaultBackend) -> None:
    bao.write("shared", mine="first-value", yours="your-value")
    writable.set_secret("shared#mine", "second-value")
    writable.delete_secret("shared#nothing")
    found = bao.get("secret/data/shared")["data"]
    assert found["data"] == {"mine": "second-value", "yours": "your-value"}
    assert found["metadata"]["version"] == 2
    writable.delete_secret("shared#mine")
    assert bao.get("secret/data/shared")["data"]["data"] == {"yours": "your-value"}


def test_writers_of_one_path_lose_nothing(bao: Bao, writable: WritableVaultBackend) -> None:
    """Without a lock: each write names the version that it replaces."""
    names = [f"field-{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: writable.set_secret(f"crowded#{name}", name * 2), names))
    found = bao.get("secret/data/crowded")["data"]["data"]
    assert found == {name: name * 2 for name in names}


def test_a_deleted_secret_can_be_written_again(bao: Bao, writable: WritableVaultBackend) -> None:
    writable.set_secret("again", "first-value")
    bao.request("DELETE", "secret/data/again")
    writable.set_secret("again", "second-value")
    assert writable.get_secret("again") == "second-value"


def test_an_engine_without_versions_is_not_written_to(writable: WritableVaultBackend) -> None:
    with pytest.raises(ConfigError, match="can't check and set"):
        writable.set_secret("legacy/app", "value-of-app")


@pytest.mark.parametrize("key", ["../x", "app@3", ""])
def test_a_key_that_can_not_be_written(writable: WritableVaultBackend, key: str) -> None:
    with pytest.raises(SecretError, match="can't be written"):
        writable.set_secret(key, "value-of-app")
    with pytest.raises(SecretError):
        writable.set_secret("app", "")


def test_a_token_that_may_only_read_can_not_write(bao: Bao) -> None:
    token = bao.token('path "secret/data/*" { capabilities = ["read"] }')
    backend = WritableVaultBackend(bao.url, auth={"method": "token", "token": token})
    bao.write("guarded", value="first-value")
    with pytest.raises(SecretDeniedError):
        backend.set_secret("guarded", "second-value")
    assert backend.get_secret("guarded") == "first-value"
    backend.close()


def test_tokens_of_accounts_go_only_to_a_backend_that_is_meant_for_it(
    bao: Bao, writable: WritableVaultBackend
) -> None:
    reading = VaultBackend(bao.url, auth=TOKEN)
    assert SecretResolver([reading, writable]).writable is writable
    reading.close()
