"""The keyring backend on a real Secret Service."""

from __future__ import annotations

from typing import Any

import keyring
import pytest
from automate_kernel.base.errors import SecretError, SecretNotFoundError, SecretUnavailableError
from automate_kernel.secrets import SecretsBackend
from automate_testing import SecretsBackendContract
from automate_secrets.keyring_backend import KeyringBackend
from keyring.backends import SecretService, fail


@pytest.fixture
def service(secret_service: None) -> Any:
    before = keyring.get_keyring()
    keyring.set_keyring(SecretService.Keyring())
    yield keyring
    keyring.set_keyring(before)


class _Failing:
    """The library, with a keyring that fails."""

    errors = keyring.errors

    def __init__(self, kind: type[Exception]) -> None:
        self._kind = kind

    def get_password(self, service: str, key: str) -> str:
        raise self._kind("canary")


class TestKeyringBackend(SecretsBackendContract):
    @pytest.fixture
    def backend(self, service: Any, known_key: str, known_value: str) -> SecretsBackend:
        service.set_password("automate", known_key, known_value)
        return KeyringBackend()

    @pytest.fixture
    def broken(self) -> dict[str, SecretsBackend]:
        errors = keyring.errors
        kinds = (errors.KeyringLocked, errors.InitError, errors.KeyringError, OSError, ValueError)
        made: dict[str, SecretsBackend] = {}
        for kind in (*kinds, errors.NoKeyringError):
            made[kind.__name__] = backend = KeyringBackend()
            backend._keyring = _Failing(kind)
        return made


def test_services_are_apart(service: Any) -> None:
    service.set_password("shop", "token", "value-of-shop")
    assert KeyringBackend("shop").get_secret("token") == "value-of-shop"
    with pytest.raises(SecretNotFoundError):
        KeyringBackend("blog").get_secret("token")
    assert KeyringBackend("blog").remedy("token") == "keyring set blog token"


@pytest.mark.parametrize("locked", [True, False])
def test_a_keyring_that_can_not_be_asked_is_no_missing_secret(
    monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    """Else an old value of the next backend would count."""

    def refuse(*args: Any) -> None:
        raise keyring.errors.KeyringLocked("canary")

    monkeypatch.setattr(keyring, "get_password", refuse if locked else fail.Keyring().get_password)
    with pytest.raises(SecretUnavailableError if locked else SecretError) as caught:
        KeyringBackend().get_secret("token")
    assert not isinstance(caught.value, SecretNotFoundError)
    assert "canary" not in str(caught.value)
    assert caught.value.hint
